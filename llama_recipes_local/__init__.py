"""llama-recipes for machines that never reach the Hugging Face Hub.

Importing the package switches every Hugging Face library to offline mode, lets idle OpenMP threads
sleep, and makes each public module of upstream's ``llama_recipes`` importable at the same place
under this package's name.
"""

import os
from typing import TYPE_CHECKING

from llama_recipes_local import _interrupt, _python

_interrupt.end_in_a_line()
_python.check_version()
from llama_recipes_local import _lazy, _offline, _upstream  # noqa: E402 (an older Python cannot read it)

__version__ = "0.1.0"

if "RANK" in os.environ:
    # torch prints a C++ trace for each connection to a rank that has ended, which is reported
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # torch asks for the name of each address that it connects to, and where the name server does
    # not answer, as on a machine without a network, waits for 10 s; so it is 2 s
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:2")
_offline.enforce()
_offline.set_defaults()
_python.check_packages()
_upstream.install_aliases()

if TYPE_CHECKING:
    from llama_recipes_local.api import InterruptedRun as InterruptedRun
    from llama_recipes_local.api import Result as Result
    from llama_recipes_local.api import TrainingError as TrainingError
    from llama_recipes_local.api import UsageError as UsageError
    from llama_recipes_local.api import finetune as finetune
else:
    __getattr__ = _lazy.lazy_names(
        __name__, "api", ("InterruptedRun", "Result", "TrainingError", "UsageError", "finetune")
    )
