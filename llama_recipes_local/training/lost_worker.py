"""Explains the error when a process that prepares batches was killed."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch._C import _error_if_any_worker_fails  # type: ignore[attr-defined]

from llama_recipes_local.errors import TrainingError, reason

# torch raises it wherever the main thread is: it is told of the process by a signal
_LOST = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")

_SOON = 10.0
"""Seconds until a process that has ended is reported to torch, on a busy machine."""


@contextmanager
def named_lost_worker(checkpoint: bool) -> Iterator[None]:
    """Stop training with a clear message if a process that prepares batches has ended.

    Args:
        checkpoint: whether the run saves checkpoints.

    Raises:
        TrainingError: if one of them has.
    """
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        lost = _lost(error)
        if lost is None:
            raise
        raise TrainingError(_message(lost, checkpoint)) from error


def _lost(error: Exception) -> RuntimeError | None:
    """Return torch's message about a lost worker process; None if an error has another cause.

    If a worker ends while it hands over a batch, only the broken connection is seen at first.
    """
    if isinstance(error, RuntimeError):
        return error if _LOST.search(str(error)) else None
    until = time.monotonic() + _SOON
    while time.monotonic() < until:
        try:
            _error_if_any_worker_fails()
            time.sleep(0.05)
        except RuntimeError as said:  # from here, or by the signal
            return said if _LOST.search(str(said)) else None
    return None


def _message(error: RuntimeError, checkpoint: bool) -> str:
    again = ", and resume with --resume_from_checkpoint auto" if checkpoint else ""
    return (
        "training stopped: a process that prepares batches was killed\n"
        "   why: most likely memory ran out, or /dev/shm is full, through which it hands batches "
        f"over; torch says: {reason(error)}\n"
        "   fix: lower --num_workers_dataloader (0 prepares batches in the training process), or "
        f"make /dev/shm larger (docker run --shm-size=8g){again}"
    )
