"""Tokenises records on all cores, keeping their order and a bounded number in memory."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from llama_recipes_local.data.audit import Counts
from llama_recipes_local.data.token_rows import Chunk
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.processes import end_with_parent

RECORDS_PER_TASK = 1_000
# Starting processes takes longer than tokenising these.
TASKS_IN_THIS_PROCESS = 2

Records = list[Any]
Encode = Callable[[Records], tuple[Chunk, Counts]]


class KilledWorkerError(TrainingError):
    """A tokenising process was killed, as the system does when memory runs out."""


def tokenize(
    records: Iterable[Any], encode: Encode, title: str, show: bool
) -> Iterator[tuple[Chunk, Counts]]:
    """Yield the tokens of the records, chunk by chunk in their order.

    Args:
        records: read in this process, a bounded number ahead.
        encode: makes a chunk from some records. It runs in forked processes, which share everything
            that it refers to; only records and chunks are sent.
        title: title of the progress bar.
        show: whether to show a progress bar if the console is a terminal.

    Raises:
        KilledWorkerError: if one of the processes was killed.
    """
    tasks = _tasks(records)
    first = list(islice(tasks, TASKS_IN_THIS_PROCESS))
    workers = len(os.sched_getaffinity(0))
    with tqdm(desc=title, unit=" rows", disable=None if show else True) as bar:
        # one task more than is worth doing in this process
        following = list(islice(tasks, 1))
        if workers > 1 and following:
            chunks = _in_processes(chain(first, following, tasks), encode, workers)
        else:
            chunks = map(encode, chain(first, following, tasks))
        for chunk, counts in chunks:
            bar.update(counts.records)
            yield chunk, counts


def _tasks(records: Iterable[Any]) -> Iterator[Records]:
    remaining = iter(records)
    while task := list(islice(remaining, RECORDS_PER_TASK)):
        yield task


def _in_processes(
    tasks: Iterator[Records], encode: Encode, workers: int
) -> Iterator[tuple[Chunk, Counts]]:
    # forked, not spawned: a new interpreter would take seconds to import transformers
    pool = ProcessPoolExecutor(workers, get_context("fork"), _start, (encode, os.getpid()))
    waiting: deque[Future[tuple[Chunk, Counts]]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_encode, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise KilledWorkerError(_killed(workers)) from error
    finally:
        pool.shutdown(cancel_futures=True)


_encode_here: Encode | None = None


def _start(encode: Encode, parent: int) -> None:
    global _encode_here
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends these
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _encode_here = encode


def _encode(task: Records) -> tuple[Chunk, Counts]:
    assert _encode_here is not None
    return _encode_here(task)


def _killed(workers: int) -> str:
    return (
        f"stopped: one of {workers} processes that tokenise was killed\n"
        "   why: most likely memory ran out, and the system killed the largest process\n"
        "   fix: tokenise on fewer cores (taskset -c 0 COMMAND takes one), or free memory"
    )
