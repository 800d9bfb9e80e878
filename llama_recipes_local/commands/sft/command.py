"""``main`` of ``sft.py``: preflight, data, training."""

import sys
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local import extras
from llama_recipes_local.api.quick_imports import quick_imports
from llama_recipes_local.console import (
    exit_on_broken_pipe,
    ignore_broken_pipe,
    printable_output,
    rank_zero_output,
    report_failure,
)
from llama_recipes_local.storage.folder_lock import locked


@printable_output()
def main(words: Sequence[str]) -> int:
    """Run one command line of ``sft.py``.

    Args:
        words: those after the script's name.

    Returns:
        The exit code: 0 if the model is trained, 1 if training could not go on, 2 if the user's
        input kept it from starting, 130 after Ctrl-C.
    """
    try:
        with rank_zero_output():
            _run(words)
    except (Exception, KeyboardInterrupt) as error:
        code = report_failure(error)
        if code is None:
            raise
        return code
    finally:
        if "torch" in sys.modules:  # which is not imported for this alone
            from llama_recipes_local import parallel

            parallel.cleanup()
    return 0


def _run(words: Sequence[str]) -> None:
    extras.require("trl", "sft.py", "sft")
    with exit_on_broken_pipe(), quick_imports():
        from llama_recipes_local.commands.sft.flags import make_parser

        if {"-h", "--help"} & set(words):
            make_parser().print_help()
            return
        from llama_recipes_local import parallel
        from llama_recipes_local.commands.sft.sft_run import preflight
        from llama_recipes_local.commands.sft.trl_trainer import load_data, train

    with exit_on_broken_pipe():
        run = preflight(words)
        data = load_data(run)
    with ignore_broken_pipe(), locked(Path(run.training.output_dir), parallel.is_rank_zero()):
        train(run, data)
