"""Data loader workers survive a signal to the whole process group, but not their run."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker as torch_worker

from llama_recipes_local import finetuning
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.training import lost_worker
from llama_recipes_local.training.lost_worker import named_lost_worker
from llama_recipes_local.training.progress import Progress
from llama_recipes_local.training.signals import leave_signals_to_main_process, start_worker

HELD_UNTIL_EXIT = """
import sys
from torch.utils.data import DataLoader
from llama_recipes_local import finetuning
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.training import lost_worker
from llama_recipes_local.training.lost_worker import named_lost_worker
from llama_recipes_local.training.signals import leave_signals_to_main_process
sys.held = DataLoader([0, 1], num_workers=1, persistent_workers=True,
                      worker_init_fn=leave_signals_to_main_process)
sys.held_too = next(iter(sys.held))
sys.exit(3)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_worker_survives_signals_to_the_process_group(number: signal.Signals) -> None:
    loader: Any = DataLoader(
        list(range(8)),
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=leave_signals_to_main_process,
    )
    before = set(psutil.Process().children())
    batches = iter(loader)
    assert next(batches) == 0
    (worker,) = set(psutil.Process().children()) - before
    subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)
    assert [int(batch) for batch in batches] == list(range(1, 8))


def test_a_process_exits_while_its_workers_are_held(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", HELD_UNTIL_EXIT]
    assert subprocess.run(command, env=environment, timeout=600, check=False).returncode == 3


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_worker_ends_with_a_run_that_is_killed() -> None:
    reader, writer = os.pipe()
    run = os.fork()
    if not run:
        torch_worker.MP_STATUS_CHECK_INTERVAL = 1e6  # seconds until torch's own worker would look
        ends = partial(start_worker, os.getpid())
        held: Any = iter(DataLoader([0, 1], num_workers=1, worker_init_fn=ends))
        next(held)
        os.write(writer, str(held._workers[0].pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    worker = psutil.Process(int(os.read(reader, 20)))
    os.waitpid(run, 0)
    while not has_ended(worker):
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["KILL", "BUS"])
def test_a_worker_that_is_killed_is_one_message(
    number: str,
    tiny_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before, add = set(psutil.Process().children()), Progress.add

    def kill_and_add(self: Progress, pending: Any) -> None:
        worker = min(set(psutil.Process().children()) - before, key=lambda child: child.pid)
        worker.send_signal(signal.Signals[f"SIG{number}"])
        add(self, pending)

    monkeypatch.setattr(Progress, "add", kill_and_add)
    flags = {"num_workers_dataloader": 1, "context_length": 64, "save_steps": 100}
    with pytest.raises(SystemExit) as ended:
        finetuning.main(**tiny_run | flags, use_peft=True, output_dir=str(tmp_path / "out"))
    said = capfd.readouterr().err
    assert ended.value.code == 1 and "Traceback" not in said
    assert "training stopped: a process that prepares batches was killed\n" in said
    assert (
        "torch says: RuntimeError: DataLoader worker" in said
        and "resume with --resume_from_checkpoint auto" in said
    )


def test_a_worker_that_is_killed_while_it_hands_a_batch_over_is_named() -> None:
    """The broken connection is seen first, and torch hears of the process after it."""
    before = set(psutil.Process().children())
    held: Any = iter(DataLoader([0, 1], num_workers=1))
    (worker,) = set(psutil.Process().children()) - before
    with (
        pytest.raises(TrainingError, match="a process that prepares batches was killed"),
        named_lost_worker(checkpoint=True),
    ):
        threading.Timer(0.3, worker.kill).start()
        raise ConnectionResetError(104, "Connection reset by peer")
    del held


def test_another_broken_connection_is_not_taken_for_a_killed_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lost_worker, "_SOON", 0.1)
    with pytest.raises(EOFError), named_lost_worker(checkpoint=True):
        raise EOFError


def test_another_error_is_not_taken_for_a_killed_worker() -> None:
    with pytest.raises(RuntimeError, match="shapes"), named_lost_worker(checkpoint=True):
        raise RuntimeError("shapes differ")
