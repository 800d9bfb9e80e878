import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from llama_recipes_local.data import worker_pool
from llama_recipes_local.data.audit import Counts
from llama_recipes_local.data.cache import cached
from llama_recipes_local.data.token_rows import Chunk
from llama_recipes_local.data.worker_pool import RECORDS_PER_TASK, KilledWorkerError, tokenize
from llama_recipes_local.errors import Problem, UsageError


def encode(records: list[int]) -> tuple[Chunk, Counts]:
    if -1 in records:
        raise UsageError([Problem("row -1", "it is negative", "fix it")])
    rows = [[record, os.getpid()] for record in records]
    return Chunk.of(rows, rows), Counts(records=len(records))


def rows(records: Iterator[int]) -> list[list[int]]:
    chunks = [chunk for chunk, _ in tokenize(records, encode, "test", show=False)]
    return [row for chunk in chunks for row in chunk.ids.reshape(-1, 2).tolist()]


def test_many_records_are_encoded_in_other_processes_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    number = 12 * RECORDS_PER_TASK + 5
    encoded = rows(iter(range(number)))
    assert [record for record, _ in encoded] == list(range(number))
    assert os.getpid() not in {process for _, process in encoded}


def test_one_core_encodes_many_records_here_in_their_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    number = 4 * RECORDS_PER_TASK + 5
    assert rows(iter(range(number))) == [[record, os.getpid()] for record in range(number)]


def test_few_records_are_encoded_here():
    encoded = rows(iter(range(2 * RECORDS_PER_TASK)))
    assert {process for _, process in encoded} == {os.getpid()}


def test_records_are_read_a_bounded_number_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    read = 0

    def count() -> Iterator[int]:
        nonlocal read
        while read < 100 * RECORDS_PER_TASK:
            read += 1
            yield read

    chunks = tokenize(count(), encode, "test", show=False)
    next(chunks)
    assert read < 10 * RECORDS_PER_TASK
    assert multiprocessing.active_children()
    chunks.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [10, 5 * RECORDS_PER_TASK])
def test_an_error_names_its_row_wherever_it_was_found(number: int):
    with pytest.raises(UsageError) as caught:
        rows(iter([*range(number), -1]))
    assert caught.value.problems == [Problem("row -1", "it is negative", "fix it")]


def die(records: list[int]) -> tuple[Chunk, Counts]:
    if records[0] >= 3 * RECORDS_PER_TASK:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(records)


def test_a_killed_worker_is_one_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(KilledWorkerError, match="memory") as caught:
        list(tokenize(iter(range(9 * RECORDS_PER_TASK)), die, "test", show=False))
    assert "one of 2 processes" in str(caught.value) and "taskset -c 0" in str(caught.value)
    assert not multiprocessing.active_children()


def start_and_wait(entry: Path, workers: Path) -> None:
    """Tokenise into an entry of a cache until killed."""

    def slowly(records: list[int]) -> tuple[Chunk, Counts]:
        with workers.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.2)
        return encode(records)

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, which ignores it
    os.sched_getaffinity = lambda _: {0, 1}
    numbers = iter(range(10**7))
    cached(entry, lambda: tokenize(numbers, slowly, "test", show=False))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_run_leaves_no_worker_and_no_lock(number: signal.Signals, tmp_path: Path):
    entry, workers = tmp_path / "cache" / "rows-1", tmp_path / "workers"
    context = multiprocessing.get_context("fork")
    run = context.Process(target=start_and_wait, args=(entry, workers))
    run.start()
    while not workers.exists() or len(set(workers.read_text().split())) < 2:
        time.sleep(0.02)
    started = {int(line) for line in workers.read_text().split()}
    assert all(map(is_running, started))
    os.kill(run.pid or 0, number)
    run.join()
    rows, _, how = cached(entry, lambda: tokenize(iter(range(5)), encode, "test", show=False))
    assert (len(rows), how) == (5, "made")
    while any(map(is_running, started)):
        time.sleep(0.02)


@pytest.mark.parametrize(("show", "disable"), [(True, None), (False, True)])
def test_the_bar_counts_records(show: bool, disable: bool | None, monkeypatch: pytest.MonkeyPatch):
    bar = MagicMock()
    monkeypatch.setattr(worker_pool, "tqdm", bar)
    list(tokenize(iter(range(RECORDS_PER_TASK + 5)), encode, "test", show))
    assert bar.call_args.kwargs["disable"] is disable  # None: shown where there is a terminal
    updates = bar.return_value.__enter__.return_value.update.call_args_list
    assert [update.args for update in updates] == [(RECORDS_PER_TASK,), (5,)]


def test_no_records_give_no_chunks():
    assert rows(iter([])) == []
