"""Starts a run whose output is logged, for the command and for Python's ``finetune``.

It prints a first line at once and imports what takes seconds only then, so that ``--help`` and the
first line are immediate.
"""

import sys
import threading
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from llama_recipes_local import _network, launch
from llama_recipes_local._python import why_compiled_each_time
from llama_recipes_local.api.opened_device import open_device
from llama_recipes_local.api.quick_imports import quick_imports
from llama_recipes_local.console import EndedRun, exit_on_broken_pipe, expected_failure
from llama_recipes_local.errors import refusal
from llama_recipes_local.run.log import RunLog, logged_output
from llama_recipes_local.run.stages import Stages, print_start
from llama_recipes_local.storage.read_ahead import read_ahead

if TYPE_CHECKING:
    from llama_recipes_local.run import Run

_running = threading.Lock()


def finetune_logged(
    arguments: tuple[Any, ...],
    flags: dict[str, Any],
    say: Callable[[EndedRun, RunLog], None],
    called: bool = False,
) -> "Run":
    """Fine-tune; what is printed is logged.

    Args:
        arguments: words of the command line without a flag.
        flags: the flags, by name: their text, or what Python passed.
        say: called with the error that ended the run early, if one did.
        called: whether Python called ``finetune``; then the process continues after the run.

    Raises:
        EndedRun: if the run fails or is stopped; an unexpected error is raised as it is.
        UsageError: if another run of this process has not ended.
    """
    if not _running.acquire(blocking=False):
        why = "only one run at a time can have the process's output and devices"
        raise refusal("a run of this process has not ended", why, "wait, or use another process")
    try:
        _network.watch()
        open_device(launch.local_rank())
        if launch.local_rank() == 0:
            read_ahead(flags.get("model_name"))
        with logged_output() as log:
            try:
                finetuning_run = import_run()
                run: Run = finetuning_run.finetune(arguments, flags, log, called)
                return run
            except EndedRun as ended:
                say(ended, log)
                raise
    finally:
        _running.release()


def import_run() -> ModuleType:
    """Import ``finetuning_run``; the first time, print that this begins and how long it took.

    Raises:
        EndedRun: if Ctrl-C stops it.
    """
    first = "llama_recipes_local.finetuning_run" not in sys.modules and launch.rank() == 0
    stages = Stages()
    try:
        with exit_on_broken_pipe(), quick_imports(), warnings.catch_warnings():
            if first:
                print_start("imports")
            # tqdm's bars are plain text here, also in a notebook without ipywidgets
            warnings.filterwarnings("ignore", message="IProgress not found")
            from llama_recipes_local import finetuning_run

            if first:
                stages.end("imports")
                if why := why_compiled_each_time(sys.modules["torch"]):
                    print(f"--> imports were compiled from source, as at each start: {why}")
    except KeyboardInterrupt as error:
        failure = expected_failure(error)
        assert failure is not None
        raise EndedRun(failure) from error
    return finetuning_run
