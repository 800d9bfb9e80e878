"""The folder of a saved adapter, as PEFT lays it out."""

import json
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import refusal
from llama_recipes_local.files.finding import listing

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def read_adapter_config(
    folder: Path, mend: str = "name the --output_dir of a run with --use_peft"
) -> dict[str, Any]:
    """Return an adapter's configuration, as JSON has it.

    Args:
        folder: the folder, absolute.
        mend: what the user can name if it holds no adapter.

    Raises:
        UsageError: if it lacks the configuration or the weights, or the configuration is damaged.
    """
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    if missing:
        what = f"--adapter {folder} has no {' and no '.join(missing)}"
        raise refusal(what, listing(folder), mend)
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict) or "peft_type" not in config:
            raise ValueError("it names no peft_type")
    except ValueError as error:
        what = f"{path} is no configuration of PEFT"
        raise refusal(what, str(error), "copy the adapter again") from error
    return config
