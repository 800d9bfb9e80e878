"""Ranks that hang, fail, or were given something else than the others."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from forked_runs import wait
from kills import write_rows
from transformers import LlamaForCausalLM

from attacks.lab import Found, Lab, change_json, processes_left, unclean, unexpected, until_said

AT_FORWARD = 4  # two of the first validation, then the second step's


def that_hang(lab: Lab, found: Found) -> None:
    """Stop rank 1: rank 0 must name it, and end at a signal within 5 seconds."""
    for names, code in (("SIGTERM", 75), ("SIGINT SIGINT", 130)) * 3:
        with lab.output() as output:
            runs = lab.start(lab.flags(output, max_train_step=600, num_epochs=99), ranks=2)
            until_said(runs[0], lab.folder / "log.0", "first step")
            os.kill(runs[1], signal.SIGSTOP)
            named = until_said(runs[0], lab.folder / "log.0", "waiting for rank 1", 45)
            began = time.monotonic()
            for name in names.split():
                os.kill(runs[0], signal.Signals[name])
                time.sleep(0.5)
            wrong = unexpected(wait(runs[0], 30), (code,))
            seconds = time.monotonic() - began
            os.kill(runs[1], signal.SIGKILL)
            wait(runs[1])
            wrong = wrong or ("" if named else "rank 1 is not named")
            wrong = wrong or ("" if seconds < 5.5 else f"it took {seconds:.1f} s")
            found.add(names, wrong or unclean(lab.said()), lab.said())


def that_differ(lab: Lab, found: Found) -> None:
    """Give the last rank another flag, data set, model or output folder: it must be named."""
    slowest = 0.0
    for name, (last, named) in ways_to_differ(lab).items():
        with lab.output() as output:
            began = time.monotonic()
            runs = lab.start(lab.flags(output), ranks=2, last=last)
            codes = [wait(run) for run in runs]
            slowest = max(slowest, time.monotonic() - began)
            wrong = unclean(lab.said()) or "".join(unexpected(code, (2,)) for code in codes)
            if f"ranks differ in {named}" not in lab.said():
                wrong = wrong or "it is not named"
            found.add(name, wrong, lab.said())
    found.notes["slowest, seconds"] = round(slowest, 1)


def ways_to_differ(lab: Lab) -> dict[str, tuple[dict[str, Any], str]]:
    """Return flags of the last rank, and what the message must name, by the way's name."""
    other = write_rows(lab.folder / "others.jsonl", 301)
    same_rows = lab.folder / "same-number.jsonl"
    same_rows.write_text(
        lab.data.read_text("utf-8").replace("Count to 7", "Count up to 7"), "utf-8"
    )
    model = lab.folder / "other-model"
    shutil.copytree(lab.model, model)
    change_json(model / "config.json", rms_norm_eps=1e-3)
    ways: dict[str, tuple[dict[str, Any], str]] = {
        "data": ({"local_dataset.data_path": str(other)}, "the training data"),
        "a row": ({"local_dataset.data_path": str(same_rows)}, "the training data"),
        "model": ({"model_name": str(model)}, "config.json of --model_name"),
        "output": ({"output_dir": str(lab.folder / "elsewhere")}, "--output_dir"),
    }
    numbers = {"seed": 7, "lr": 0.5, "context_length": 32, "save_steps": 3, "max_train_step": 3}
    numbers |= {"batch_size_training": 1, "lora_config.r": 4, "eval_steps": 3, "num_epochs": 2}
    return ways | {name: ({name: value}, f"--{name}") for name, value in numbers.items()}


def that_fail(lab: Lab, found: Found) -> None:
    """Fail on one rank at the second step: all must end, nobody hangs, the run can go on."""
    for rank in (0, 1):
        for name, fails in FAILURES.items():
            with lab.output() as output:
                runs = lab.start(lab.flags(output), ranks=2, prepare=partial(arm, rank, fails))
                codes = [wait(run, 60) for run in runs]
                wrong = processes_left(runs) or ("a rank hangs" if None in codes else "")
                if 0 in codes:
                    wrong = wrong or f"exit codes {codes}"
                if name != "an exception":  # a programming error has a traceback
                    wrong = wrong or unclean(lab.said())
                found.add(f"{name} on rank {rank}", wrong or lab.again(output, ranks=2), lab.said())


def arm(rank: int, fails: Callable[[LlamaForCausalLM], None]) -> None:
    """Have this process fail in its model's second step, if it is of the rank."""
    if os.environ["RANK"] != str(rank):
        return
    forward, calls = LlamaForCausalLM.forward, 0

    def failing(self: LlamaForCausalLM, *arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == AT_FORWARD:
            fails(self)
        return forward(self, *arguments, **keywords)

    LlamaForCausalLM.forward = failing  # type: ignore[method-assign]


def raise_exception(model: LlamaForCausalLM) -> None:
    raise RuntimeError("a mistake")


def raise_io_error(model: LlamaForCausalLM) -> None:
    raise OSError(errno.EIO, "Input/output error", "/a/file")


def leave(model: LlamaForCausalLM) -> None:
    os._exit(9)


def crash(model: LlamaForCausalLM) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def lose_memory(model: LlamaForCausalLM) -> None:
    raise MemoryError


def spoil_loss(model: LlamaForCausalLM) -> None:
    """Make this step's loss not a number; the next step's is one again."""
    original = torch.nn.functional.embedding

    def spoiled(*arguments: Any, **keywords: Any) -> torch.Tensor:
        torch.nn.functional.embedding = original
        return original(*arguments, **keywords) * float("nan")

    torch.nn.functional.embedding = spoiled


FAILURES: dict[str, Callable[[LlamaForCausalLM], None]] = {
    "an exception": raise_exception,
    "EIO": raise_io_error,
    "exit": leave,
    "a crash": crash,
    "no memory": lose_memory,
    "a loss that is not a number": spoil_loss,
}
