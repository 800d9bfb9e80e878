"""Ctrl-C while a program of this package is still being imported ends it in a line."""

import sys
from pathlib import Path
from types import TracebackType

PROGRAMS = ("llama-recipes-local", "finetuning.py", "sft.py")
AS_MODULE = "-m"  # what stands for the program's name while Python looks for the module


def end_in_a_line() -> None:
    """Have an interrupt that nothing handles print a line, if this process is such a program.

    Later the commands handle it themselves. Python's exit code stays: that of SIGINT.
    """
    if sys.argv and Path(sys.argv[0]).name in (*PROGRAMS, AS_MODULE):
        sys.excepthook = _say


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped by Ctrl-C", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
