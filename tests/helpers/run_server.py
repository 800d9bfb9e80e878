"""Runs fine-tunings in forks of one process that has imported torch, and can interrupt them.

Reads a line of JSON for each run: ``flags`` of ``finetuning.main``, ``ranks``, ``logs`` (a folder),
``last``, what only the last rank is given, and ``trigger``, for the ranks in its ``ranks``, or all:

- ``{"at": "step" | "evaluation" | "saving", "count": N, "signal": names}`` sends signals in the
  middle of the Nth step, batch or file,
- ``{"after": seconds}`` kills all ranks after so many seconds of training,
- ``{"bytes": N}`` makes the disk full after N bytes of checkpoints,
- ``{"lines": N}`` makes the disk full after N lines of metrics.

``last`` has ``flags`` beside those of all, and ``patches``: values by the name of what they replace
in this package, ``module:name``. ``patches`` of the request are for all ranks. With ``on``, a
pattern and the names of signals, the first rank gets these signals when what it printed matches,
and the others are killed once it has ended.

Answers with the ranks' exit codes; that of a process that a signal killed is minus its number.
Each rank logs the rows that it trains on.
"""

import errno
import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local import finetuning
from llama_recipes_local._upstream import load
from llama_recipes_local.checkpoints import writing
from llama_recipes_local.training import stepping, trainer, validating
from llama_recipes_local.training.loggers import JsonLines


def serve() -> None:
    torch.set_num_threads(1)
    load("finetuning")
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)


def run(
    flags: dict[str, Any],
    ranks: int,
    logs: str,
    trigger: dict[str, Any] | None = None,
    patches: dict[str, Any] | None = None,
    last: dict[str, Any] | None = None,
    on: tuple[str, str] | None = None,
) -> list[int]:
    port = free_port()
    started, starts = os.pipe()
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            report_start(starts)
            own = (last or {}) if rank == ranks - 1 else {}
            for name, value in ((patches or {}) | own.get("patches", {})).items():
                replace(name, value)
            flags |= own.get("flags", {})
            os._exit(train(flags, rank, ranks, port, Path(logs), trigger))
        children.append(child)
    os.close(starts)
    if trigger is not None and "after" in trigger and os.read(started, 1):
        time.sleep(trigger["after"])
        for child in children:
            os.kill(child, signal.SIGKILL)
    os.close(started)
    if on is not None:
        send_signals(children[0], *on, Path(logs) / "0.log")
    statuses = [os.waitpid(children[0], 0)[1]]
    for child in children[1:] if on is not None else []:
        os.kill(child, signal.SIGKILL)
    statuses += [os.waitpid(child, 0)[1] for child in children[1:]]
    return [os.waitstatus_to_exitcode(status) for status in statuses]


def send_signals(process: int, pattern: str, names: str, log: Path) -> None:
    """Send a process signals once what it printed matches, each once it has noted the last."""
    wait_for(pattern, process, log)
    for name in names.split():
        os.kill(process, signal.Signals[name])
        wait_for(name, process, log)  # two signals that a process has yet to get are one


def wait_for(pattern: str, process: int, log: Path) -> None:
    """Wait until a process has printed what a pattern matches, or has ended."""
    until = time.monotonic() + 600
    while not re.search(pattern, log.read_text()) and time.monotonic() < until:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.05)


def replace(name: str, value: Any) -> None:
    """Replace a value of this package, or have a function of it return the value."""
    module, attribute = name.split(":")
    owner = import_module(f"llama_recipes_local.{module}")
    if callable(getattr(owner, attribute)):
        setattr(owner, attribute, lambda *arguments: value)
    else:
        setattr(owner, attribute, value)


def train(
    flags: dict[str, Any],
    rank: int,
    ranks: int,
    port: int,
    logs: Path,
    trigger: dict[str, Any] | None,
) -> int:
    redirect(logs / f"{rank}.log")
    if ranks > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        flags = flags | {"enable_fsdp": True}
    record_samples(logs / f"samples-{rank}.jsonl")
    trigger = trigger if trigger and rank in trigger.get("ranks", range(ranks)) else {}
    if "bytes" in trigger:
        fill_disk(trigger["bytes"])
    if "lines" in trigger:
        fill_disk_with_metrics(trigger["lines"])
    if "at" in trigger:
        numbers = [signal.Signals[name] for name in trigger["signal"].split()]
        arm(trigger["at"], trigger["count"], numbers)
    try:
        finetuning.main(**flags)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def arm(at: str, count: int, numbers: list[signal.Signals]) -> None:
    """Send this process signals in the middle of the ``count``-th step, batch or file."""
    places: dict[str, tuple[Any, str]] = {
        "step": (stepping.Stepper, "_check_finite"),
        "evaluation": (validating, "any_rank"),
        "saving": (writing.files, "write_tensors"),
    }
    owner, name = places[at]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            for number in numbers:
                os.kill(os.getpid(), number)
        return original(*arguments, **options)

    setattr(owner, name, counting)


def fill_disk(free: int) -> None:
    """Have writes to checkpoints fail as on a full disk, in the middle, after so many bytes."""
    write_file = writing.files.write_file

    def limited(path: Path, blocks: Any) -> Any:
        def until_full() -> Any:
            nonlocal free
            for block in blocks:
                yield block[: max(free, 0)]
                free -= len(block)
                if free < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        return write_file(path, until_full())

    writing.files.write_file = limited


def fill_disk_with_metrics(free: int) -> None:
    """Have the log of steps fail as on a full disk, after so many lines."""
    log = JsonLines.log

    def limited(self: JsonLines, kind: str, step: int, numbers: Any) -> None:
        if step > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        log(self, kind, step, numbers)

    JsonLines.log = limited  # type: ignore[method-assign]


def report_start(pipe: int) -> None:
    train = trainer.Trainer.train

    def reporting(self: Any) -> Any:
        os.write(pipe, b".")
        return train(self)

    trainer.Trainer.train = reporting  # type: ignore[method-assign]


def record_samples(path: Path) -> None:
    take_step = trainer.Trainer._take_step

    def recording(self: Any, micro_batches: Any, waited: float) -> None:
        take_step(self, micro_batches, waited)
        rows = [row for batch in micro_batches for row in batch["input_ids"].tolist()]
        with path.open("a") as file:
            print(json.dumps({"step": self.parts.state.step, "rows": rows}), file=file)

    trainer.Trainer._take_step = recording  # type: ignore[method-assign]


def redirect(path: Path) -> None:
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    serve()
