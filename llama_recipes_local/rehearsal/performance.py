"""The stages of a rehearsal, each in a process of its own, as the program's commands are."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local import cli, extras
from llama_recipes_local.datasets.base import first_records
from llama_recipes_local.finetuning import finetune
from llama_recipes_local.processes import end_with_parent
from llama_recipes_local.rehearsal.exact_resume import compare
from llama_recipes_local.rehearsal.script import Script
from llama_recipes_local.rehearsal.small_model import make_small_model
from llama_recipes_local.rehearsal.small_run import KILLED_IN, STEPS
from llama_recipes_local.training.stepping import Stepper
from llama_recipes_local.typed_words import Typed

RECORDS = 200
"""What is read of each part of the data."""
PATIENCE = 600
"""Seconds after which a stage is taken to hang."""
ANSWER = 8
"""Tokens of a generated answer."""
LINES_OF_LOG = 15
Act = Callable[[], object]


class StageError(Exception):
    """A stage that did not end as expected."""


def rehearse(script: Script) -> None:
    """Go through all stages, and print a line for each.

    Raises:
        StageError: with the first one that fails, and the end of its log.
    """
    folder = Path(script.folder)
    model = partial(make_small_model, Path(script.model), folder / "model", Path(script.tokenizer))
    stage(folder, "small model", model)
    stage(folder, "train", partial(_train, script, "straight"), script.ranks)
    killed = partial(_train, script, "resumed", dying=True)
    stage(folder, "kill", killed, script.ranks, killed=True)
    resume = partial(_train, script, "resumed", resume_from_checkpoint="auto")
    stage(folder, "resume", resume, script.ranks)
    began = time.monotonic()
    if differs := compare(folder / "straight", folder / "resumed", STEPS):
        raise StageError(f"compare: the resumed run is not the one that was not killed: {differs}")
    _say("compare", began, "losses and weights of both runs are equal to the bit")
    for name, words in _commands(script).items():
        stage(folder, name, partial(_command, words))
    if why := _why_not_evaluated(script):
        print(f"--> not rehearsed: evaluate: {why}", flush=True)


def _train(script: Script, output: str, dying: bool = False, **more: str) -> None:
    folder = Path(script.folder)
    places = {"output_dir": str(folder / output)}
    if script.ranks and not script.adapter:
        places["dist_checkpoint_root_folder"] = str(folder / f"{output}-shards")
    flags = {**script.flags, **places, **more}
    if dying:
        _die_in_step(KILLED_IN)
    texts = {name: Typed(each) for name, each in flags.items() if isinstance(each, str) and each}
    typed = flags | texts
    with first_records(RECORDS):
        finetune((), typed)


def _die_in_step(number: int) -> None:
    """Make this process be killed between the backward pass and the update of a step."""
    update, steps = Stepper._update, count(1)

    def dying(self: Stepper, skip: torch.Tensor) -> None:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        update(self, skip)

    Stepper._update = dying  # type: ignore[method-assign]


def _commands(script: Script) -> dict[str, list[str]]:
    """Return the command lines that follow training, by name."""
    folder = Path(script.folder)
    resumed, merged = str(folder / "resumed"), str(folder / "merged")
    commands = {}
    if script.mergeable:
        commands["merge"] = ["merge", "--adapter", resumed, "--out", merged]
    if script.sharded:
        (shards,) = (folder / "resumed-shards").iterdir()
        commands["convert"] = ["convert", str(shards), "--out", merged]
    made = merged if script.mergeable or script.sharded else _whole_model(folder)
    whole = ["--model_name", made]
    trained = ["--adapter", resumed] if script.adapter else whole
    answer = ["--prompt", script.prompt, "--max_new_tokens", str(ANSWER)]
    tokenizer = ["--tokenizer_name", script.tokenizer]
    commands["generate"] = ["generate", *(whole if script.mergeable else trained), *answer]
    commands["generate"] += tokenizer
    if not _why_not_evaluated(script):
        limits = ["--max_examples", "2", "--max_new_tokens", str(ANSWER)]
        commands["evaluate"] = ["evaluate", *trained, *limits, "--max_eval_step", "2"]
        commands["evaluate"] += ["--data_cache", str(folder / "cache")]
        commands["evaluate"] += ["--out", str(folder / "evaluation.json"), *tokenizer]
    page = str(folder / "report.html")
    commands["report"] = ["report", str(folder / "straight"), resumed, "--out", page]
    return commands


def _whole_model(folder: Path) -> str:
    """Return the folder of a model that was trained whole; FSDP's are apart, one an epoch."""
    saved = (folder / "resumed-shards").glob("*/*/config.json")
    newest = max(saved, key=lambda path: path.stat().st_mtime, default=None)
    return str(newest.parent if newest else folder / "resumed")


def _why_not_evaluated(script: Script) -> str:
    """Return why the result is not evaluated; "" if it is."""
    if not script.adapter and Path(script.folder, "resumed-shards").is_dir():
        return "a model that FSDP saves has no record of its data, which evaluate would need"
    missing = extras.check_installed("scipy", "evaluate", "evaluate")
    return f"{missing[0].why}; {missing[0].fix}" if missing else ""


def _command(words: list[str]) -> int:
    with first_records(RECORDS):
        return cli.main(words)


def stage(folder: Path, name: str, act: Act, ranks: int = 0, killed: bool = False) -> None:
    """Do one stage in forks of this process, and print how long it took.

    Args:
        folder: where its logs are written.
        name: of the stage, and of its log.
        act: what each process does; its result, or the code of a ``SystemExit``, is the exit code.
        ranks: how many processes do it, as ranks; 0 is one that is no rank.
        killed: whether the stage is expected to end by SIGKILL.

    Raises:
        StageError: if the stage does not end as expected.
    """
    began, port = time.monotonic(), _free_port()
    logs = [folder / f"{name.replace(' ', '-')}-{rank}.log" for rank in range(max(ranks, 1))]
    context = get_context("fork")
    processes = [
        context.Process(target=_play, args=(act, os.getpid(), log, rank, ranks, port))
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.start()
    codes = _ended(processes, began + PATIENCE, killed)
    if killed and -signal.SIGKILL in codes:
        _say(name, began, f"SIGKILL in step {KILLED_IN} of {STEPS}")
        return
    wrong = [number for number, code in enumerate(codes) if code]
    if killed or wrong:
        raise StageError(_failed(name, codes, logs[wrong[0] if wrong else 0]))
    _say(name, began)


def _ended(processes: list[Any], until: float, killed: bool) -> list[int]:
    """Wait for processes, and return their exit codes; late ones are killed.

    If one is expected to be killed, the others, which would wait for it, are killed too.
    """
    while any(process.is_alive() for process in processes):
        lost = killed and any(process.exitcode for process in processes)
        if lost or time.monotonic() > until:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return [process.exitcode or 0 for process in processes]


def _play(act: Act, parent: int, log: Path, rank: int, ranks: int, port: int) -> None:
    """Run as one of the processes of a stage."""
    end_with_parent(parent)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # what the parent had redirected is not this process's
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  # until it ends
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    if ranks:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // ranks, 1))
    code = act()
    sys.exit(code if isinstance(code, int) else 0)


def _failed(name: str, codes: list[int], log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").splitlines()[-LINES_OF_LOG:]
    ended = ", ".join(map(str, codes))
    shown = "\n".join(f"   | {line}" for line in lines)
    return f"{name}: it ended with exit code {ended}; the end of {log}:\n{shown}"


def _say(name: str, began: float, more: str = "") -> None:
    seconds = time.monotonic() - began
    print(f"--> rehearsed: {name}: {seconds:.1f} s{more and f'; {more}'}", flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
