"""Trains the same work with this package and with its peers, each in a process of its own.

    python benchmarks/peers.py --tokenizer DIR --work DIR --out results/FILE.json [--only REGEX]

The models have the shapes of Llama 2 7B and Llama 3 8B and random bfloat16 weights (speed does not
depend on the values); they are made once in ``--work``. All tools train the same packed rows of
the real grammar data with the same adapter, dropout, recomputation and bits, and are timed by one
clock, see ``step_clock.py``: the median over the steps after 4, and the peak of torch's allocations
after the first step. This package runs through ``finetuning.py --use_fast_kernels``. Peers that
are not installed are named. Cells come in the order of their worth. The file grows by each, and
what it has of the same machine, versions and commit is not measured again.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from runs import PACKAGES, ROOT, WARM_UP, environment, last_line, make_model, python_path

PEERS = {"trl": ("trl", "liger_kernel"), "unsloth": ("unsloth",)}
VERSIONS = (*PACKAGES, "trl", "unsloth", "unsloth_zoo", "datasets", "torchao", "xformers")
CACHE = "cache"
QV, ALL = ("q_proj", "v_proj"), "all-linear"
OURS, TRL, UNSLOTH = "ours", "trl", "unsloth"


@dataclass(frozen=True)
class Work:
    """What a cell trains.

    Attributes:
        shape: of the model, one of ``runs.SHAPES``.
        rank: of the adapter; 0 trains all weights.
        targets: what gets an adapter.
        weights: how frozen weights are held, or all where no adapter is: "bf16", "nf4", "fp8".
        recomputes: activation checkpointing.
        dropout: of the adapter's input.
        tokens: of a row.
        rows: of a micro-batch.
        micro_batches: of a step.
    """

    shape: str
    rank: int
    targets: str | tuple[str, ...] = ALL
    weights: str = "bf16"
    recomputes: bool = False
    dropout: float = 0.05
    tokens: int = 4096
    rows: int = 2
    micro_batches: int = 2


B7, B8 = "llama2-7b", "llama3-8b"
WORK = {
    "7B, LoRA r=8 on q and v": Work(B7, 8, QV),
    "7B, LoRA r=8 on all linear layers": Work(B7, 8),
    "8B, LoRA r=16 on all linear layers": Work(B8, 16),
    "8B, the same, recomputation": Work(B8, 16, recomputes=True),
    "8B, QLoRA r=16, recomputation": Work(B8, 16, weights="nf4", recomputes=True),
    "8B, LoRA r=8 on q and v, rows of 8,192": Work(B8, 8, QV, tokens=8192, rows=1),
    "7B, fp8, LoRA r=8 on q and v": Work(B7, 8, QV, weights="fp8"),
    "8B, fp8, LoRA r=16 on all linear layers": Work(B8, 16, weights="fp8"),
    "7B, all weights": Work(B7, 0),
    "7B, all weights, fp8": Work(B7, 0, weights="fp8"),
    "7B, LoRA r=8 on all linear layers, no dropout": Work(B7, 8, dropout=0.0),
    "8B, QLoRA r=16, recomputation, no dropout": Work(
        B8, 16, weights="nf4", recomputes=True, dropout=0.0
    ),
}
TINY = {
    "tiny, LoRA r=8 on q and v": Work("tiny", 8, QV, tokens=256),
    "tiny, LoRA r=8 on all linear layers, recomputation": Work(
        "tiny", 8, recomputes=True, tokens=256
    ),
    "tiny, QLoRA r=8": Work("tiny", 8, weights="nf4", tokens=256),
    "tiny, fp8, LoRA r=8": Work("tiny", 8, weights="fp8", tokens=256),
    "tiny, all weights": Work("tiny", 0, tokens=256),
}
BOTH = (OURS, UNSLOTH)
ORDER: list[tuple[str, tuple[str, ...]]] = [  # of worth
    ("7B, LoRA r=8 on q and v", BOTH),
    ("7B, LoRA r=8 on all linear layers", BOTH),
    ("8B, LoRA r=16 on all linear layers", BOTH),
    ("8B, the same, recomputation", BOTH),
    ("8B, QLoRA r=16, recomputation", BOTH),
    ("7B, fp8, LoRA r=8 on q and v", (OURS,)),
    ("8B, fp8, LoRA r=16 on all linear layers", (OURS,)),
    ("7B, all weights", (OURS, TRL)),
    ("7B, all weights, fp8", (OURS,)),
    ("8B, LoRA r=8 on q and v, rows of 8,192", BOTH),
    ("7B, LoRA r=8 on q and v", (TRL,)),
    ("7B, LoRA r=8 on all linear layers", (TRL,)),
    ("7B, LoRA r=8 on all linear layers, no dropout", BOTH),
    ("8B, QLoRA r=16, recomputation, no dropout", BOTH),
]


def main() -> None:
    """Run the cells that are asked for, as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and outputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--only", default="", help='regular expression of cells, "WORK: TOOL"')
    parser.add_argument("--steps", type=int, default=WARM_UP + 20, help="optimiser steps a cell")
    parser.add_argument("--max_seconds", type=float, default=3600.0, help="of all cells together")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the command")
    options = parser.parse_args()
    if options.steps <= WARM_UP:
        parser.error(f"--steps {options.steps}: the first {WARM_UP} are not counted")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the cell too
    began = time.monotonic()
    for peer, modules in PEERS.items():
        if missing := [module for module in modules if find_spec(module) is None]:
            print(f"--> without {peer}: {' and '.join(missing)} not installed")
    options.work.mkdir(parents=True, exist_ok=True)
    results = earlier(options.out)
    for name, tool in cells(options.only, options.tiny):
        if any((each["name"], each["tool"]) == (name, tool) for each in results):
            continue
        left = options.max_seconds - (time.monotonic() - began)
        if left <= 0:
            results.append({"name": name, "tool": tool, "error": "no time left"})
        else:
            work = (TINY if options.tiny else WORK)[name]
            results.append(
                {"name": name, "tool": tool} | run_cell(work, tool, options, len(results), left)
            )
        save(results, options.out)
    print(table(results))


def earlier(out: Path) -> list[dict[str, Any]]:
    """Return what was measured before in the same environment."""
    if not out.exists():
        return []
    found = json.loads(out.read_text())
    if found["environment"] != environment(VERSIONS):
        raise SystemExit(f"{out} is of another machine, versions or commit: name another file")
    return [each for each in found["results"] if "error" not in each]


def cells(only: str, tiny: bool) -> list[tuple[str, str]]:
    """Return the work and tool of each cell that is asked for and whose tool is installed."""
    every = [(name, (OURS, *PEERS)) for name in TINY] if tiny else ORDER
    return [
        (name, tool)
        for name, tools in every
        for tool in tools
        if re.search(only, f"{name}: {tool}")
        and all(find_spec(module) is not None for module in PEERS.get(tool, ()))
    ]


def run_cell(
    work: Work, tool: str, options: argparse.Namespace, number: int, limit: float
) -> dict[str, Any]:
    """Train one cell, for some seconds at most, and return what the clock read.

    A cell that fails, or takes longer, gives the last line that it printed.
    """
    output = options.work / f"cell-{number}"
    output.mkdir(exist_ok=True)
    began = time.monotonic()
    try:
        model = make_model(options.work / work.shape, options.tokenizer, shape=work.shape)
        data, used = make_rows(options.work, model, work.tokens)
        made = time.monotonic() - began
        read, log = output / "clock.json", output / "log"
        read.unlink(missing_ok=True)
        cell = asdict(work) | {
            "tool": tool,
            "steps": options.steps,
            "model": str(model),
            "data": str(data),
            "cache": str(options.work / CACHE),
            "output": str(output / "run"),
            "out": str(read),
        }
        run_limited(cell, output / "cell.json", log, limit - made)
        found = json.loads(read.read_text())
    except RuntimeError as error:
        return {"error": str(error)}
    seconds = found.pop("step_seconds")[WARM_UP - 1 :]
    tokens = work.tokens * work.rows * work.micro_batches * used
    step = median(seconds)
    measured = {
        "tokens_per_second": round(tokens / step),
        "step_seconds": round(step, 4),
        "steps": len(seconds),
    }
    print(f"{tokens / step:,.0f} tok/s, {found['peak_gib']} GiB", flush=True)
    return measured | found | {"cell_seconds": round(time.monotonic() - began, 1)}


def make_rows(work: Path, model: Path, tokens: int) -> tuple[Path, float]:
    """Write the packed rows that this package trains, and fill its cache of tokens.

    Returns:
        The file, and the share of the positions that hold a token; the others are not trained.
    """
    path = work / f"rows-{tokens}.npz"
    if not path.exists():
        from llama_recipes_local.data.concatenator import ConcatDataset
        from llama_recipes_local.datasets.run_data import prepare_data
        from llama_recipes_local.run.resolution import resolve

        flags = {"model_name": str(model), "dataset": "grammar_dataset", "context_length": tokens}
        folders = {"data_root": str(ROOT), "data_cache": str(work / CACHE)}
        packed = ConcatDataset(prepare_data(resolve(flags | folders)).splits["train"], tokens)
        ids = np.zeros((len(packed), tokens), dtype=np.int64)
        labels = np.full_like(ids, -100)
        for place, index in enumerate(np.random.default_rng(0).permutation(len(packed))):
            row = packed.row(int(index))
            ids[place, : len(row["input_ids"])] = row["input_ids"]
            labels[place, : len(row["labels"])] = row["labels"]
        np.savez(path, input_ids=ids, labels=labels, used=packed.used)
    with np.load(path) as rows:
        return path, float(rows["used"])


def run_limited(cell: dict[str, Any], file: Path, log: Path, limit: float) -> None:
    """Run a cell's process until its clock is written, and end it with all that it started.

    Raises:
        RuntimeError: with the last line that it printed, if it fails or takes too many seconds.
    """
    print(f"$ {cell['tool']}: {cell['shape']} {cell['weights']} r={cell['rank']}", flush=True)
    file.write_text(json.dumps(cell | {"started": time.time()}))
    variables = os.environ | {
        "PYTHONPATH": python_path(),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with log.open("w") as printed:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks/peers_cell.py"), str(file.resolve())],
            cwd=file.parent,
            env=variables,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = wait(process, Path(cell["out"]), limit)
        finally:
            with contextlib.suppress(ProcessLookupError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
    if ended:
        print(f"{ended}, see {log}", flush=True)
        raise RuntimeError(f"{ended}: {last_line(log)}")


def wait(process: "subprocess.Popen[bytes]", out: Path, limit: float) -> str:
    """Wait for a process or for its file; return why there is none."""
    until = time.monotonic() + limit
    while not out.exists():
        if process.poll() is not None:
            return "" if out.exists() else f"exit code {process.returncode}"
        if time.monotonic() > until:
            return f"ended after {limit:.0f} s"
        time.sleep(0.1)
    return ""


def save(results: list[dict[str, Any]], out: Path) -> None:
    """Write what there is so far, with the machine, the versions and the commit."""
    where = environment(VERSIONS)
    out.write_text(json.dumps({"environment": where, "results": results}, indent=2) + "\n")


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table in Markdown: a row of it is work, a column a tool."""
    tools = [tool for tool in (OURS, *PEERS) if any(each["tool"] == tool for each in results)]
    found = {(each["name"], each["tool"]): each for each in results}
    lines = [f"| work | {' | '.join(tools)} |", "|---|" + "---|" * len(tools)]
    for name in dict.fromkeys(each["name"] for each in results):
        shown = [shown_cell(found.get((name, tool))) for tool in tools]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    where = environment(VERSIONS)
    known = ", ".join(f"{key} {value}" for key, value in where.items() if value)
    return "\n".join(["tok/s at peak GiB; seconds to the first step", "", *lines, "", known])


def shown_cell(result: dict[str, Any] | None) -> str:
    """Return what a cell of the table says."""
    if result is None:
        return ""
    if "error" in result:
        return str(result["error"]).replace("|", "\\|")
    speed = f"{result['tokens_per_second']:,} at {result['peak_gib']}"
    return f"{speed}; {result['seconds_to_first_step']:.0f} s"


if __name__ == "__main__":
    main()
