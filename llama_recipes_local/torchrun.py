"""torchrun that ends with the run's own message: ``python -m llama_recipes_local.torchrun``.

torchrun itself exits with 1 and its own traceback, whatever its ranks report, and after a signal it
does not wait for their exit codes. This is the same launcher with the same arguments, but it prints
what the ranks report last, and exits with their exit code. ``make`` uses it.
"""

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
TORCHRUNS = "SIGHUP,SIGQUIT"  # the signals that torchrun may still handle itself


def main() -> int:
    """Run torchrun with the arguments of the command line; return the exit code of its ranks."""
    arguments = run.parse_args(sys.argv[1:])
    if "LOGLEVEL" not in os.environ:  # torchrun's
        logging.disable(logging.ERROR)  # what failed is reported by the ranks, and below
    if arguments.nnodes in ("1", "1:1") and arguments.local_addr is None:
        # torchrun would look for its own host by name, for minutes where none resolves it, as in a
        # container without a network
        arguments.local_addr = "localhost"
    if sys.platform == "linux":
        arguments.signals_to_handle = TORCHRUNS
        for number in FORWARDED:
            signal.signal(number, _forward)
    try:
        run.run(arguments)
    except ChildFailedError as error:
        return _code(error)
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _code(error: ChildFailedError) -> int:
    """Return the exit code of the rank that ended first; print its number if it had no message."""
    rank, failure = next(iter(error.failures.items()))
    if failure.exitcode >= 0:
        return failure.exitcode
    why = f"rank {rank} was killed by {failure.signal_name()}"
    if failure.exitcode == -signal.SIGKILL:
        why += ", as the system does when memory runs out: see `dmesg`"
    if failure.exitcode != -signal.SIGINT:  # forwarded
        print(f"\nstopped: {why}", file=sys.stderr)
    return 128 - failure.exitcode


def _forward(number: int, frame: FrameType | None) -> None:
    """Send a signal to each rank; in sessions of their own, they do not get a terminal's Ctrl-C."""
    ranks = _children()
    if not ranks:
        raise SystemExit(128 + number)
    for process in ranks:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(process, number)


def _children() -> list[int]:
    """Return the processes that this one has started, as /proc has them."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, fields = status.read_text(errors="replace").rpartition(")")
            if int(fields.split()[1]) == os.getpid():
                found.append(int(status.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
