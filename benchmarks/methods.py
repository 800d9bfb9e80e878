"""Times each way to fine-tune a 7B-shaped model on one CUDA device.

The model has Llama-2-7B's shape and random bfloat16 weights (speed does not depend on the values);
the data are the real grammar CSVs. Each run is a process of its own; one that fails is reported and
the rest go on. Prints a table, writes JSON:

    python benchmarks/methods.py --tokenizer DIR --work DIR --out FILE.json [--only REGEX]
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from runs import TORCHRUN, make_model, report, time_finetuning

COMMON = [
    *("--dataset", "grammar_dataset", "--run_validation", "False", "--save_model", "False"),
    *("--use_fast_kernels", "--gradient_accumulation_steps", "2"),
]
PEFT = ["--use_peft", "--batch_size_training", "2", "--peft_method"]
METHODS = {
    "LoRA": [*PEFT, "lora"],
    "LoRA, all linear layers": [*PEFT, "lora", "--target_modules", "all-linear"],
    "4-bit LoRA": [*PEFT, "lora", "--quantization", "4bit"],
    "QLoRA (--preset qlora)": ["--preset", "qlora", "--batch_size_training", "2"],
    "LLaMA-Adapter": [*PEFT, "llama_adapter"],
    "prefix": [*PEFT, "prefix"],
    # what fits beside weights, gradients and moments in bfloat16 without checkpointing
    "full": ["--batch_size_training", "1"],
}


def main() -> None:
    """Make the model, run each method without and with FSDP, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for the model and outputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--steps", type=int, default=14, help="optimiser steps a run")
    parser.add_argument("--only", default="", help="regular expression of names to run")
    options = parser.parse_args()
    model = make_model(options.work / "llama-7b-shaped", options.tokenizer)
    results = []
    for name, command in commands():
        if not re.search(options.only, name):
            continue
        output = options.work / f"run-{len(results)}"
        flags = {"model_name": model, "max_train_step": options.steps}
        try:
            results.append(time_finetuning(name, [*command, *COMMON], output, flags))
        except RuntimeError as error:
            results.append({"name": name, "error": str(error)[:60]})
        report(results, options.out)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each run's name and what Python runs."""
    for method, flags in METHODS.items():
        yield f"{method}, python", ["finetuning.py", *flags]
        yield (
            f"{method}, torchrun --enable_fsdp",
            [*TORCHRUN, "finetuning.py", "--enable_fsdp", *flags],
        )


if __name__ == "__main__":
    main()
