"""Measures settings of ``planning`` in one process, beside what is predicted for each.

``planned_step`` says how. A cell takes some seconds. Prints a table, writes JSON:

    python benchmarks/planned_runs.py --out FILE.json [--only REGEX] [--max_seconds 90]
"""

import argparse
import gc
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from planned_step import measure
from runs import report

from llama_recipes_local.kernels.registry import register_attention
from llama_recipes_local.planning.cards import of_device
from llama_recipes_local.planning.memory import memory
from llama_recipes_local.planning.setting import (
    FULL,
    FUSED,
    KEEP,
    OFFLOAD,
    Adapter,
    Batch,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR
from llama_recipes_local.planning.speed import tokens_a_second

ALL_16 = Adapter(rank=16, targets=frozenset(LINEAR))
NF4 = Weights(bits=4, double=True)


def works() -> dict[str, Setting]:
    """Return the settings by name, the most telling first."""
    one, three, seven = (KNOWN[name] for name in ("llama-3.2-1b", "llama-3.2-3b", "llama-2-7b"))
    eight, thirteen = KNOWN["llama-3.1-8b"], KNOWN["llama-2-13b"]
    batch = Batch(rows=2, length=4096, accumulation=2, document=60, labelled=0.4)
    short, long = replace(batch, rows=8, length=1024), replace(batch, rows=1, length=16384)
    whole = replace(batch, rows=1, accumulation=1, document=4096)
    lora = Setting(one, adapter=ALL_16, batch=batch)
    of_8b = replace(lora, shape=eight)
    return {
        "1B, LoRA r=16": lora,
        "1B, LoRA r=16, 8 x 1,024": replace(lora, batch=short),
        "1B, full": _full(replace(lora, batch=batch)),
        "1B, full, recomputation": _full(replace(lora, batch=batch, policy=FULL)),
        "3B, LoRA r=16": replace(lora, shape=three),
        "3B, LoRA r=16, offload": replace(lora, shape=three, policy=OFFLOAD),
        "3B, LoRA r=16, 1 x 16,384": replace(lora, shape=three, batch=long),
        "3B, full": _full(replace(lora, shape=three, batch=replace(batch, rows=1))),
        "3B, LoRA r=16, documents of 4,096": replace(lora, shape=three, batch=whole),
        "8B, LoRA r=16": of_8b,
        "8B, LoRA r=16, offload": replace(of_8b, policy=OFFLOAD),
        "8B, LoRA r=16, recomputation": replace(of_8b, policy=FULL),
        "8B, LoRA r=16, fp8": replace(of_8b, weights=Weights(fp8=True)),
        "8B, LoRA r=16, 1 row": replace(of_8b, batch=replace(batch, rows=1)),
        "8B, LoRA r=16, 1 x 16,384, offload": replace(of_8b, batch=long, policy=OFFLOAD),
        "7B, LoRA r=8 q,v": replace(lora, shape=seven, adapter=Adapter()),
        "13B, LoRA r=16, offload": replace(lora, shape=thirteen, policy=OFFLOAD),
        "13B, LoRA r=16, 1 row": replace(
            lora, shape=thirteen, batch=replace(batch, rows=1), policy=KEEP
        ),
        "3B, QLoRA r=16, offload": replace(lora, shape=three, weights=NF4, policy=OFFLOAD),
        "8B, QLoRA r=16, offload": replace(of_8b, weights=NF4, policy=OFFLOAD),
    }


def _full(setting: Setting) -> Setting:
    weights = Weights(trained=setting.shape.weights)
    return replace(setting, adapter=None, weights=weights, kernels=FUSED)


def main() -> None:
    """Measure each setting, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--only", default="", help="regular expression of names to run")
    parser.add_argument("--steps", type=int, default=5, help="optimiser steps a cell")
    parser.add_argument("--max_seconds", type=float, default=1e9, help="no cell begins after them")
    parser.add_argument("--layers", type=int, help="decoder layers, for a quick try")
    options = parser.parse_args()
    register_attention()
    began, results = time.perf_counter(), list[dict[str, Any]]()
    for name, setting in works().items():
        late = time.perf_counter() - began > options.max_seconds
        if late or not re.search(options.only, name):
            continue
        if options.layers:
            setting = replace(setting, shape=replace(setting.shape, layers=options.layers))
        try:
            results.append({"name": name, **measured(setting, options.steps)})
        except (RuntimeError, ImportError) as error:  # out of memory, a kernel, a package
            results.append({"name": name, "error": str(error).partition("\n")[0][:200]})
        report(results, options.out)
        gc.collect()
        torch.cuda.empty_cache()
    for each in results:
        if "error" not in each:
            gib, speed = each["predicted_gib"], each["predicted_speed"]
            print(
                f"{each['name']:<40} {each['peak_gib']:>6} GiB {gib / each['peak_gib'] - 1:+.1%}"
                f" {each['tokens_per_second']:>8,} tok/s"
                f" {speed / each['tokens_per_second'] - 1:+.1%}"
            )


def measured(setting: Setting, steps: int) -> dict[str, Any]:
    """Return a setting's speed and peak, and both as predicted."""
    device = torch.cuda.get_device_properties(0)
    return measure(setting, steps) | {
        "predicted_gib": round(memory(setting).gib, 2),
        "predicted_speed": round(
            tokens_a_second(setting, of_device(device.name, device.total_memory))
        ),
    }


if __name__ == "__main__":
    main()
