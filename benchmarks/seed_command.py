"""Times the guide's LoRA command on one CUDA device, and unmodified llama-recipes.

The model has Llama-2-7B's shape and random bfloat16 weights (speed does not depend on the values);
the data are the real grammar CSVs. Each run is a process of its own. Prints a table, writes JSON:

    python benchmarks/seed_command.py --tokenizer DIR --work DIR --out FILE.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from runs import ROOT, make_model, report, run, time_finetuning, torchrun

SEED_FLAGS = [
    *("--use_peft", "--peft_method", "lora", "--use_fast_kernels"),
    *("--batch_size_training", "2", "--gradient_accumulation_steps", "2"),
    *("--dataset", "grammar_dataset"),
]


def main() -> None:
    """Make the model, run each variant, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for the model and outputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps a run")
    parser.add_argument("--upstream", type=Path, help="folder of the unpacked, unmodified wheel")
    options = parser.parse_args()
    model = make_model(options.work / "llama-7b-shaped", options.tokenizer)
    results = []
    if options.upstream:
        command = [*torchrun(), str(ROOT / "benchmarks" / "upstream_baseline.py"), str(model)]
        results.append(time_upstream([*command, str(options.upstream), str(2 * options.steps)]))
    for name, command in {
        "torchrun --enable_fsdp": [*torchrun(), "finetuning.py", "--enable_fsdp", *SEED_FLAGS],
        "python": ["finetuning.py", *SEED_FLAGS],
        "python, pure bf16": ["finetuning.py", *SEED_FLAGS, "--pure_bf16"],
    }.items():
        output = options.work / name.replace(" ", "-").replace(",", "")
        flags = {"model_name": model, "max_train_step": options.steps}
        results.append(time_finetuning(f"llama_recipes_local, {name}", command, output, flags))
    report(results, options.out)


def time_upstream(command: list[str]) -> dict[str, Any]:
    """Run the baseline, which prints its result as the last line of JSON."""
    printed = run(command)
    line = next(line for line in reversed(printed.splitlines()) if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


if __name__ == "__main__":
    main()
