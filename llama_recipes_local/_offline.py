"""Environment variables that libraries read once, when they are imported.

The Hugging Face libraries stay offline whatever the user's environment says. OpenMP's idle threads
sleep unless the user's environment says otherwise.
"""

import logging
import os
import sys

_SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
}

_DEFAULTS = {
    # spinning, threads starve whatever else runs on the machine, and each other on shared cores
    "OMP_WAIT_POLICY": "PASSIVE",
}


def set_defaults() -> None:
    """Set what the user's environment does not, for this process and its children.

    torch must not have been imported before: OpenMP reads its variables when it is loaded.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def enforce() -> None:
    """Set the offline switches of this process and its children.

    The libraries read their switches once, at import; where one is imported already, as in a
    notebook, its constant is set as well.
    """
    os.environ.update(_SWITCHES)
    # on a CPU it asks the Hub for a kernel at import, and warns that it got none
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    hub_constants = sys.modules.get("huggingface_hub.constants")
    if hub_constants is not None:
        hub_constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    datasets_config = sys.modules.get("datasets.config")
    if datasets_config is not None:
        datasets_config.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
