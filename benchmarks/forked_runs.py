"""Runs forked from a process that has imported everything, so that faults hit the run itself.

``kills.py`` and ``faults.py`` start their runs here.
"""

import hashlib
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llama_recipes_local import cli, finetuning, finetuning_run  # noqa: F401  (all that a run imports)
from llama_recipes_local._upstream import load

load("finetuning")  # upstream's, which a run imports when it starts

LAST = "checkpoint-6"
HANGS = 90.0  # seconds after which a run is killed, and has not held
Prepare = Callable[[], object]


def flags_of(model: Path, data: Path, output: Path, **more: object) -> dict[str, Any]:
    """Return the flags of a LoRA run of six steps that saves each, and resumes if it can."""
    return {
        "model_name": str(model),
        "dataset": "local_dataset",
        "local_dataset.data_path": str(data),
        "data_cache": f"{output}-cache",
        "output_dir": str(output),
        "dist_checkpoint_root_folder": f"{output}-sharded",
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
    return _fork(partial(finetuning.main, **flags), log, prepare)


def fork_command(words: Sequence[object], log: Path, prepare: Prepare | None = None) -> int:
    """Start ``llama-recipes-local`` in a process and session of its own; return its id.

    Args:
        words: of the command line, after the program's name.
        log: where its output goes.
        prepare: what the process does first.
    """
    return _fork(partial(cli.main, [str(word) for word in words]), log, prepare)


def _fork(call: Callable[[], int | None], log: Path, prepare: Prepare | None) -> int:
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
        code = call() or 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def fork_ranks(
    flags: dict[str, Any],
    log: Path,
    last: dict[str, Any] | None = None,
    ranks: int = 2,
    prepare: Prepare | None = None,
) -> list[int]:
    """Start a run on several ranks; return their ids.

    Args:
        flags: the run's.
        log: the output of rank N goes to a file of this name with ``.N``.
        last: flags that the last rank has in place of the others'.
        ranks: how many.
        prepare: what each process does first, once it knows its rank.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def place(rank: int) -> None:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
        os.environ.update({name: str(number) for name, number in numbers.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        if prepare is not None:
            prepare()

    flags = {"enable_fsdp": True, **flags}
    given = [flags] * (ranks - 1) + [flags | (last or {})]
    return [
        fork(own, log.with_name(f"{log.name}.{rank}"), partial(place, rank))
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


def result(output: Path) -> dict[str, str]:
    """Return what a run left that the same run must leave again, to the bit.

    Returns:
        A digest of each file of weights, of the optimiser's state and of random numbers, and of the
        losses and gradient norms of all steps, by the file's name in the output folder.
    """
    kept = [*output.glob("*.safetensors"), *(output / LAST).rglob("*.safetensors")]
    kept += (output / LAST).glob("random/*.json")
    found = {str(path.relative_to(output)): digest(path.read_bytes()) for path in kept}
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        if (output / name).is_file():
            lines = map(json.loads, (output / name).read_text("utf-8").splitlines())
            numbers = [[line.get(key) for key in ("step", "loss", "grad_norm")] for line in lines]
            found[name] = digest(repr(numbers).encode())
    return found


def digest(data: bytes) -> str:
    """Return a hash of bytes."""
    return hashlib.sha256(data).hexdigest()


def difference(found: dict[str, str], expected: dict[str, str]) -> str:
    """Return the files that differ between two results, in words; "" if none does."""
    names = sorted(found.keys() | expected.keys())
    return ", ".join(name for name in names if found.get(name) != expected.get(name))
