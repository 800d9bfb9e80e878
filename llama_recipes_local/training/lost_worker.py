"""Processes that prepare batches, of which one may be killed while a run trains."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from llama_recipes_local.errors import TrainingError, reason

# torch raises it wherever the main thread is: it is told of the process by a signal
_LOST = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")


@contextmanager
def named_lost_worker(checkpoint: bool) -> Iterator[None]:
    """Stop training with a message where torch says that such a process has ended.

    Args:
        checkpoint: whether the run saves checkpoints.

    Raises:
        TrainingError: if one of them has.
    """
    try:
        yield
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        raise TrainingError(_message(error, checkpoint)) from error


def _message(error: RuntimeError, checkpoint: bool) -> str:
    again = ", and resume with --resume_from_checkpoint auto" if checkpoint else ""
    return (
        "training stopped: a process that prepares batches was killed\n"
        "   why: most likely memory ran out, or /dev/shm is full, through which it hands batches "
        f"over; torch says: {reason(error)}\n"
        "   fix: lower --num_workers_dataloader (0 prepares batches in the training process), or "
        f"make /dev/shm larger (docker run --shm-size=8g){again}"
    )
