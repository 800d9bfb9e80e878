"""Runs forked from a process that has imported everything, so that faults hit the run itself.

``kills.py`` and ``faults.py`` start their runs here.
"""

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_recipes_local import finetuning

WEIGHTS = "adapter_model.safetensors"
HANGS = 90.0  # seconds after which a run is killed, and has not held
Prepare = Callable[[], None]


def flags_of(model: Path, data: Path, output: Path, **more: object) -> dict[str, Any]:
    """Return the flags of a LoRA run of six steps that saves each, and resumes if it can."""
    return {
        "model_name": str(model),
        "dataset": "local_dataset",
        "local_dataset.data_path": str(data),
        "data_cache": f"{output}-cache",
        "output_dir": str(output),
        "use_peft": True,
        "context_length": 64,
        "batch_size_training": 2,
        "num_workers_dataloader": 0,
        "max_train_step": 6,
        "max_eval_step": 2,
        "eval_steps": 2,
        "save_steps": 1,
        "save_total_limit": 2,
        "resume_from_checkpoint": "auto",
        **more,
    }


def fork(flags: dict[str, Any], log: Path, prepare: Prepare | None = None) -> int:
    """Start a run in a process and session of its own; return its id.

    Args:
        flags: the run's.
        log: where its output goes.
        prepare: what the process does first.
    """
    process = os.fork()
    if process:
        return process
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 1
    try:
        if prepare is not None:
            prepare()
        finetuning.main(**flags)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def fork_ranks(
    flags: dict[str, Any], log: Path, last: dict[str, Any] | None = None, ranks: int = 2
) -> list[int]:
    """Start a run on several ranks; return their ids.

    Args:
        flags: the run's.
        log: the output of rank N goes to a file of this name with ``.N``.
        last: flags that the last rank has in place of the others'.
        ranks: how many.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def place(rank: int) -> None:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
        os.environ.update({name: str(number) for name, number in numbers.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

    flags = {"enable_fsdp": True, **flags}
    given = [flags] * (ranks - 1) + [flags | (last or {})]
    return [
        fork(own, log.with_name(f"{log.name}.{rank}"), lambda rank=rank: place(rank))  # type: ignore[misc]
        for rank, own in enumerate(given)
    ]


def wait(process: int, seconds: float = HANGS) -> int | None:
    """Return a process's exit code, minus the number of the signal that killed it; None: it hangs.

    A process that hangs is killed.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def left_over(session: int) -> list[int]:
    """Return the processes of a session that are still running, half a second at most."""
    found = _running(session)
    if found:
        time.sleep(0.5)  # they are being killed
        found = _running(session)
    return found


def _running(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def weights(output: Path) -> bytes:
    """Return the saved adapter, and that of the last checkpoint; nothing of one that is missing."""
    paths = (output / WEIGHTS, output / "checkpoint-6" / WEIGHTS)
    return b"".join(path.read_bytes() for path in paths if path.is_file())
