"""Data loaders' workers: they outlive a signal to the whole group, and no run."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from torch.utils.data import DataLoader

from llama_recipes_local.training.feed import end_workers
from llama_recipes_local.training.interruption import leave_signals_to_the_trainer


@pytest.fixture
def loader() -> Iterator[DataLoader[Any]]:
    """A loader whose one worker waits for what is asked of it next."""
    loader: Any = DataLoader(
        list(range(8)),
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=leave_signals_to_the_trainer,
    )
    assert next(iter(loader)) == 0
    yield loader
    for worker in workers():
        worker.kill()


def workers() -> list[psutil.Process]:
    return psutil.Process().children()


def ended(process: psutil.Process, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_worker_outlives_what_the_group_is_sent(
    loader: DataLoader[Any], number: signal.Signals
) -> None:
    (worker,) = workers()
    os.kill(worker.pid, number)
    assert not ended(worker, 1.0)
    assert [int(batch) for batch in loader] == list(range(8))


def test_a_worker_does_not_outlive_being_ended_at_exit(loader: DataLoader[Any]) -> None:
    (worker,) = workers()
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.5)  # two signals at once are one
    os.kill(worker.pid, signal.SIGTERM)
    assert ended(worker, 10.0)


def test_a_run_ends_its_workers(loader: DataLoader[Any]) -> None:
    (worker,) = workers()
    end_workers(loader)
    assert not psutil.pid_exists(worker.pid)
    assert [int(batch) for batch in loader] == list(range(8))  # with new ones


def test_a_loader_without_workers_has_none_to_end() -> None:
    end_workers(DataLoader(list(range(8))))
    end_workers(None)
