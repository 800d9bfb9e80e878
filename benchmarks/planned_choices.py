"""Measures what ``plan`` chooses beside its neighbours: settings that differ from it in one thing.

    python benchmarks/planned_choices.py --work DIR --out FILE.json [--only REGEX]

Each work is flags of ``plan``. Its choice and those neighbours that are predicted to fit are
measured by ``planned_step``, in processes that share nothing with other works; works of one device
run at once, each on its own. A line is printed for each setting, and the file grows by it, so that
a run that is cut keeps what it has; what is there already is not measured again. ``--tiny`` tries
it with a tiny shape on CPUs.
"""

import argparse
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from runs import environment, python_path, torchrun

from llama_recipes_local.commands.plan.making_plan import Plan, make_plan
from llama_recipes_local.kernels.registry import register_attention
from llama_recipes_local.parallel import setup
from llama_recipes_local.planning.cards import NODES
from llama_recipes_local.planning.search import Outcome, outcome, ranked, variants
from llama_recipes_local.planning.setting import PLAIN, Setting
from llama_recipes_local.planning.shapes import Shape
from llama_recipes_local.planning.wording import describe

QV = {"use_peft": "True"}
LORA = {**QV, "r": "16", "target_modules": "all-linear"}
QLORA = {**LORA, "quantization": "4bit", "quant_type": "nf4", "use_double_quant": "True"}
ALL: dict[str, str] = {"use_peft": "False"}
TWO, ONE_ROW = (2, 2), (1, 2)
TINY = Shape(64, 128, 2, 4, 2, 320)
MAKES = 6.0
"""Seconds that a setting takes beside its steps."""


@dataclass(frozen=True)
class Work:
    """What is planned for.

    Attributes:
        name: what is trained.
        model: one of ``shapes.KNOWN``.
        devices: of one host.
        flags: of the method.
        rows: of a micro-batch, and micro-batches of a step, as they are asked for.
        steps: optimiser steps of each setting.
        memory: GB that each device is taken to have; None means its own.
        neighbours: how many are measured at most, the fastest first.
    """

    name: str
    model: str
    devices: int
    flags: dict[str, str]
    rows: tuple[int, int] = TWO
    steps: int = 5
    memory: int | None = None
    neighbours: int = 6


WORKS = (  # of worth
    Work("7B, LoRA r=8 q,v", "llama-2-7b", 4, QV, steps=6, neighbours=4),
    Work("13B, full", "llama-2-13b", 4, ALL),
    Work("70B, LoRA r=16", "llama-3.1-70b", 4, LORA, ONE_ROW, steps=4, neighbours=3),
    Work("70B, QLoRA r=16", "llama-3.1-70b", 1, QLORA, ONE_ROW, 4, 80, 2),
    Work("7B, LoRA r=8 q,v", "llama-2-7b", 1, QV, steps=8),
    Work("1B, full", "llama-3.2-1b", 1, ALL, steps=12),
    Work("1B, LoRA r=16", "llama-3.2-1b", 1, LORA, steps=12),
    Work("7B, full", "llama-2-7b", 4, ALL, neighbours=5),
    Work("70B, LoRA r=16, cards of 80 GB", "llama-3.1-70b", 4, LORA, ONE_ROW, 4, 80, 2),
    Work("7B, LoRA r=8 q,v", "llama-2-7b", 2, QV, steps=6, neighbours=1),
)


def main() -> None:
    """Measure the works that are asked for, or be one of the ranks that do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--work", type=Path, required=True, help="folder for logs, and each work's")
    parser.add_argument("--only", default="", help='regular expression of "DEVICES x WORK"')
    parser.add_argument("--max_seconds", type=float, default=1e9, help="of all works together")
    parser.add_argument("--gpu", default="H200", help="which card plan is asked about")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, to try the command")
    parser.add_argument("--rank_of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of is not None:
        be_rank(WORKS[options.rank_of], options)
        return
    until = time.time() + options.max_seconds
    wanted = [n for n, work in enumerate(WORKS) if re.search(options.only, title(work))]
    several = [number for number in wanted if WORKS[number].devices > 1]
    alone = [number for number in wanted if WORKS[number].devices == 1]
    for number in several[:2]:
        run([number], options, until)
    run(alone, options, until)
    for number in several[2:]:
        run([number], options, until)


def title(work: Work) -> str:
    """Return what a work is called."""
    return f"{work.devices} x {work.name}"


def run(numbers: list[int], options: argparse.Namespace, until: float) -> None:
    """Measure works at once, each on devices of its own, until all have ended or time is up.

    One whose processes end before all is measured, as when memory is out, is started again for the
    rest.
    """
    measured: dict[int, int] = dict.fromkeys(numbers, -1)  # when it was started last
    running: dict[int, subprocess.Popen[bytes]] = {}
    shown = {row["name"] for row in rows(options.out)}
    while measured and time.time() < until:
        for number in [number for number in measured if number not in running]:
            has = len(rows(part(options, number)))
            if has in (measured[number], len(cells(WORKS[number], options))):
                del measured[number]
            else:
                measured[number] = has
                running[number] = start(number, numbers.index(number), options, until)
        for number in [number for number, each in running.items() if each.poll() is not None]:
            if running.pop(number).returncode:
                print(f"{title(WORKS[number])}: {why(log_of(options, number))}", flush=True)
        merge(options, shown)
        time.sleep(0.2)
    for process in running.values():
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    merge(options, shown)


def start(
    number: int, device: int, options: argparse.Namespace, until: float
) -> "subprocess.Popen[bytes]":
    """Start the ranks of a work."""
    work = WORKS[number]
    words = [*torchrun(work.devices), "--master_port", str(29600 + number), __file__]
    words += ["--rank_of", str(number), "--until", str(until), "--out", str(options.out)]
    words += [
        "--work",
        str(options.work),
        "--gpu",
        options.gpu,
        *(["--tiny"] if options.tiny else []),
    ]
    variables = os.environ | {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "4"}
    if work.devices == 1:
        variables["CUDA_VISIBLE_DEVICES"] = str(device)
    with log_of(options, number).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *words], env=variables, stdout=log, stderr=log, start_new_session=True
        )


def part(options: argparse.Namespace, number: int) -> Path:
    """Return the file of a work's own results."""
    options.work.mkdir(parents=True, exist_ok=True)
    return Path(options.work) / f"{number}.json"


def log_of(options: argparse.Namespace, number: int) -> Path:
    """Return the file of what a work's processes print."""
    return part(options, number).with_suffix(".log")


def why(log: Path) -> str:
    """Return the last error that a log names."""
    found = re.findall(r".*(?<!ChildFailed)Error\b.*", log.read_text(errors="replace"))
    return str(found[-1]) if found else "no error"


def rows(file: Path) -> list[dict[str, Any]]:
    """Return what a file of results has."""
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    return list(found["results"] if isinstance(found, dict) else found)


BEGUN = "did not end"


def merge(options: argparse.Namespace, shown: set[str]) -> None:
    """Put all works' results into one file, and print what is new."""
    results = [row for number in range(len(WORKS)) for row in rows(part(options, number))]
    for row in results:
        if row["name"] in shown or row.get("error") == BEGUN:
            continue
        shown.add(row["name"])
        print(line(row), flush=True)
    if results:
        draft = options.out.with_suffix(".draft")
        found = {"environment": environment(), "results": results}
        draft.write_text(json.dumps(found, indent=2) + "\n")
        draft.rename(options.out)


def line(row: dict[str, Any]) -> str:
    """Return a result in words: what was measured, and how far the prediction is from it."""
    if "error" in row:
        return f"{row['name']:<88} {row['error']} ({row['predicted_gib']} GiB predicted)"
    gib = row["predicted_gib"] / row["peak_gib"] - 1 if row["peak_gib"] else 0.0
    speed = row["predicted_speed"] / row["tokens_per_second"] - 1
    return (
        f"{row['name']:<88} {row['peak_gib']:>6} GiB {gib:+.1%}"
        f" {row['tokens_per_second']:>8,} tok/s {speed:+.1%}"
    )


def cells(work: Work, options: argparse.Namespace) -> dict[str, Outcome]:
    """Return the settings of a work by name: the choice, then its neighbours, the fastest first."""
    flags = {
        "model_name": work.model,
        "use_fast_kernels": "True",
        "run_validation": "False",
        "batch_size_training": str(work.rows[0]),
        "gradient_accumulation_steps": str(work.rows[1]),
        **work.flags,
    }
    args = argparse.Namespace(
        gpus=work.devices,
        nodes=1,
        gpu=options.gpu,
        gpu_memory=work.memory,
        probe=False,
        node_link=NODES,
        tokens=None,
    )
    made = make_plan(flags, args)
    choice = ranked(made.asked, made.target.card)[0]
    near = [each for each in neighbours(made, choice.setting) if each.fits]
    near.sort(key=lambda each: -each.tokens)
    return {
        f"{title(work)}: {'chosen: ' if each is choice else ''}{describe(each.setting)}": each
        for each in [choice, *near[: work.neighbours]]
    }


def neighbours(made: Plan, chosen: Setting) -> Iterator[Outcome]:
    """Yield what differs from a setting in sharding, activations or rows alone."""
    for each in variants(made.asked):
        differences = (
            each.ranks.sharding != chosen.ranks.sharding,
            each.policy != chosen.policy,
            each.batch.rows != chosen.batch.rows,
        )
        if sum(differences) == 1:
            yield outcome(each, made.target.card)


def be_rank(work: Work, options: argparse.Namespace) -> None:
    """Measure the settings of a work that are not yet measured, on all of its ranks together."""
    setup()
    register_attention()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if work.memory is not None:
            has = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(work.memory * 1e9 / has)
    from planned_step import measure  # after the process group, as a run has it

    file, is_first = part(options, options.rank_of), os.environ["RANK"] == "0"
    done = rows(file)
    for name, found in cells(work, options).items():
        seconds = MAKES + found.seconds.step * (work.steps + 2)
        if name in [each["name"] for each in done] or not _has_time(options.until - seconds):
            continue
        row: dict[str, Any] = {
            "name": name,
            "predicted_gib": round(found.memory.gib, 2),
            "needs_gib": round(found.needs, 2),
            "predicted_speed": round(found.tokens),
        }
        if is_first:
            save(file, [*done, {**row, "error": BEGUN}])
        began = time.perf_counter()
        try:
            row |= measure(tried(found.setting, options.tiny), work.steps)
        except (
            RuntimeError,
            ImportError,
        ) as error:  # out of memory: the other ranks may wait for this one
            save(file, [*done, {**row, "error": str(error).partition("\n")[0][:200]}])
            print(f"{name}: {error}", flush=True)
            os._exit(1)
        done.append(row | {"seconds": round(time.perf_counter() - began, 1)})
        if is_first:
            save(file, done)
        free_memory()
    os._exit(0)


def tried(setting: Setting, tiny: bool) -> Setting:
    """Return a setting, or a tiny one that differs in the same things."""
    if not tiny:
        return setting
    batch = replace(setting.batch, length=64, document=16)
    weights = replace(
        setting.weights, bits=0, trained=TINY.weights if setting.adapter is None else 0
    )
    return replace(setting, shape=TINY, batch=batch, weights=weights, kernels=PLAIN)


def _has_time(until: float) -> bool:
    """Return whether it is not too late by the first rank's clock, the same on all ranks."""
    found = torch.tensor([float(time.time() < until)])
    if torch.cuda.is_available():
        found = found.cuda()
    torch.distributed.broadcast(found, 0)
    return bool(found.item())


def save(file: Path, results: list[dict[str, Any]]) -> None:
    """Write a work's results, whole."""
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(results))
    draft.rename(file)


def free_memory() -> None:
    """Let go of a model that was measured."""
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
