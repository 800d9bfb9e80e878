"""Measures the memory and speed of LoRA, QLoRA and full fine-tuning at the shapes of Llamas.

Each run is ``finetuning.py`` on one CUDA device, with random bfloat16 weights and the grammar CSVs
packed to rows of 4,096 tokens, one row a micro-batch: with activation checkpointing, which needs
the least, and without. One that fails is recorded with its reason and the rest go on:

    python benchmarks/sizes.py --tokenizer DIR --work DIR --out FILE.json [--shapes llama2-13b ...]
"""

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from runs import SHAPES, make_model, report, time_finetuning

COMMON = [
    *("finetuning.py", "--dataset", "grammar_dataset", "--run_validation", "False"),
    *("--save_model", "False", "--use_fast_kernels", "--batch_size_training", "1"),
]
ALL_LINEAR = ["--use_peft", "--lora_config.r", "16", "--target_modules", "all-linear"]
METHODS = {
    "LoRA": ALL_LINEAR,
    "QLoRA": [*ALL_LINEAR, "--quantization", "4bit", "--quant_type", "nf4", "--use_double_quant"],
    "full": [],
}
RECOMPUTED = "--gradient_checkpointing"


def main() -> None:
    """Make each model, run each method on it with and without recomputation, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and outputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["llama3-8b", "llama2-13b"])
    parser.add_argument("--steps", type=int, default=10, help="optimiser steps a run")
    parser.add_argument("--only", default="", help="regular expression of names to run")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for shape in options.shapes:
        model = make_model(options.work / shape, options.tokenizer, shape=shape)
        for name, flags in commands(shape):
            if re.search(options.only, name):
                results.append(measure(name, [*COMMON, *flags], model, options))
                report(results, options.out)
        shutil.rmtree(model)


def commands(shape: str) -> list[tuple[str, list[str]]]:
    """Return each run's name and flags: those that need the least memory first."""
    return [
        (f"{shape}, {method}{', recomputation' if again else ''}", [*flags, RECOMPUTED, str(again)])
        for again in (True, False)
        for method, flags in METHODS.items()
    ]


def measure(
    name: str, command: list[str], model: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the figures of a run, or why there are none."""
    output = options.work / "run"
    flags = {"model_name": model, "max_train_step": options.steps}
    try:
        return time_finetuning(name, command, output, flags)
    except RuntimeError as error:
        return {"name": name, "error": str(error).partition(":")[0]}
    finally:
        shutil.rmtree(output, ignore_errors=True)


if __name__ == "__main__":
    main()
