"""Runs the guide's command with automatic choices on 1, 2 and 4 devices of this machine.

    python benchmarks/planned_commands.py --tokenizer DIR --work DIR --out FILE.json

LoRA of a model of Llama 2 7B's shape with random bfloat16 weights, on the grammar data, two rows
twice a step. The first two run at once, on devices of their own; the four come next. Prints and
writes the speed of each beside so many times that of one device, and what was chosen.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from runs import ROOT, WARM_UP, make_model, python_path, report, torchrun

DEVICES = {1: "0", 2: "1,2", 4: "0,1,2,3"}
"""By how many there are; the command on one runs beside that on two."""


def main() -> None:
    """Run the commands; the folder has their outputs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for the model and outputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps of each")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the command")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    shape = "tiny" if options.tiny else "llama2-7b"
    model = make_model(options.work / shape, options.tokenizer, shape=shape)
    results: list[dict[str, Any]] = []
    for together in ((1, 2), (4,)):
        for devices, process in [(each, start(each, model, options)) for each in together]:
            code = process.wait()
            results.append(result(devices, code, options.work))
            single = results[0].get("tokens_per_second")
            if "tokens_per_second" in results[-1] and single:
                share = results[-1]["tokens_per_second"] / devices / single
                results[-1]["of_one_device"] = round(share, 3)
            report(results, options.out)


def start(devices: int, model: Path, options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Start the command on some devices."""
    flags: dict[str, Any] = {
        "model_name": model,
        "use_peft": True,
        "peft_method": "lora",
        "use_fast_kernels": True,
        "dataset": "grammar_dataset",
        "batch_size_training": 2,
        "gradient_accumulation_steps": 2,
        "max_train_step": options.steps,
        "run_validation": False,
        "save_model": False,
        "data_root": ROOT,
        "data_cache": options.work / "cache",
        "output_dir": options.work / f"run-{devices}",
        "overwrite_output_dir": True,
    }
    if options.tiny:
        flags |= {"context_length": 256}
    words = []
    if devices > 1:
        words = [*torchrun(devices), "--master_port", str(29700 + devices)]
        flags["enable_fsdp"] = True
    words += ["finetuning.py", *(f"--{name}={value}" for name, value in flags.items())]
    variables = os.environ | {
        "CUDA_VISIBLE_DEVICES": DEVICES[devices],
        "OMP_NUM_THREADS": "8",
        "PYTHONPATH": python_path(),
        "HF_HUB_OFFLINE": "1",
    }
    log = options.work / f"run-{devices}.log"
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=variables, stdout=file, stderr=file
        )


def result(devices: int, code: int, work: Path) -> dict[str, Any]:
    """Return what a command measured of itself, and what it chose."""
    name = f"{devices} x the guide's command"
    printed = (work / f"run-{devices}.log").read_text(errors="replace")
    if code:
        return {"name": name, "error": printed[-600:]}
    lines = (work / f"run-{devices}" / "metrics.jsonl").read_text().splitlines()
    steps = [step for step in map(json.loads, lines) if "tokens_per_second" in step][WARM_UP:]
    chosen = re.search(r"--> Chosen.*\n((?:      .*\n)+)", printed)
    return {
        "name": name,
        "tokens_per_second": round(median(step["tokens_per_second"] for step in steps)),
        "peak_gib": round(max(step["memory_gib"] for step in steps), 2),
        "chosen": " ".join(chosen[1].split()) if chosen else "",
    }


if __name__ == "__main__":
    main()
