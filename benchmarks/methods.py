"""Times each way to fine-tune a 7B-shaped model on CUDA, and the guide's ``sft.py``.

The model has Llama-2-7B's shape and random bfloat16 weights (speed does not depend on the values);
the data are the real grammar CSVs, for ``sft.py`` put together to the lengths of a conversation.
Each run is a process of its own; one that fails is reported and the rest go on. Prints a table,
writes JSON:

    python benchmarks/methods.py --tokenizer DIR --work DIR --out FILE.json [--only REGEX]

With ``--devices N`` each method runs on N devices, sharded and replicated.
"""

import argparse
import csv
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runs import ROOT, make_model, report, run, time_finetuning, torchrun

COMMON = [
    *("--dataset", "grammar_dataset", "--run_validation", "False", "--save_model", "False"),
    *("--use_fast_kernels", "--gradient_accumulation_steps", "2"),
]
PEFT = ["--use_peft", "--batch_size_training", "2", "--peft_method"]
METHODS = {
    "LoRA": [*PEFT, "lora"],
    "LoRA, all linear layers": [*PEFT, "lora", "--target_modules", "all-linear"],
    "4-bit LoRA": [*PEFT, "lora", "--quantization", "4bit"],
    "QLoRA (--config qlora)": ["--config", "qlora", "--batch_size_training", "2"],
    "LLaMA-Adapter": [*PEFT, "llama_adapter"],
    # the model takes 4,096 positions, 30 of them are the prefix's
    "prefix": [*PEFT, "prefix", "--context_length", "4066"],
    # what fits next to weights, gradients and moments in bfloat16 without checkpointing
    "full": ["--batch_size_training", "1"],
}
SFT = "4-bit LoRA, sft.py"
SFT_FLAGS = [
    *("--learning_rate=1.41e-5", "--per_device_train_batch_size=64"),
    *("--gradient_accumulation_steps=2", "--logging_steps=1", "--max_steps=4"),
    *("--gradient_checkpointing", "--use_peft", "--lora_r=64", "--lora_alpha=16"),
    *("--batch_size=4", "--load_in_4bit"),
]


def main() -> None:
    """Make the model, run each method without and with FSDP, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for the model and outputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--steps", type=int, default=14, help="optimiser steps a run")
    parser.add_argument("--devices", type=int, default=1, help="CUDA devices a run")
    parser.add_argument("--only", default="", help="regular expression of names to run")
    options = parser.parse_args()
    model = make_model(options.work / "llama-7b-shaped", options.tokenizer)
    results: list[dict[str, Any]] = []
    for name, command in commands(options.devices):
        if not re.search(options.only, name):
            continue
        output = options.work / f"run-{len(results)}"
        flags = {"model_name": model, "max_train_step": options.steps}
        try:
            if name == SFT:
                results.append(time_sft(command, model, options.work))
            else:
                results.append(time_finetuning(name, [*command, *COMMON], output, flags))
        except RuntimeError as error:
            results.append({"name": name, "error": str(error).partition(":")[0]})
        report(results, options.out)


def commands(devices: int) -> Iterator[tuple[str, list[str]]]:
    """Yield each run's name and what Python runs."""
    recomputed = ("--fsdp_activation_checkpointing", "True")
    fsdp = [*torchrun(devices), "finetuning.py", "--enable_fsdp", *recomputed]
    sharded = ["--sharding_strategy", "FULL_SHARD"]
    for method, flags in METHODS.items():
        if devices > 1:
            yield f"{method}, {devices} devices, FULL_SHARD", [*fsdp, *sharded, *flags]
            replicated = ["--sharding_strategy", "NO_SHARD"]
            yield f"{method}, {devices} devices, NO_SHARD", [*fsdp, *replicated, *flags]
        else:
            yield f"{method}, python", ["finetuning.py", *flags]
            yield f"{method}, torchrun --enable_fsdp", [*fsdp, *sharded, *flags]
    yield SFT, [*torchrun(devices), "sft.py", *SFT_FLAGS]


def time_sft(command: list[str], model: Path, work: Path) -> dict[str, Any]:
    """Run the guide's second script for some steps; its speed counts the first one too."""
    data, output = work / "openassistant-guanaco", work / "sft"
    write_conversations(data)
    where = {"model_name": model, "dataset_name": data, "output_dir": output}
    printed = run([*command, *(f"--{flag}={value}" for flag, value in where.items())])
    speed = re.findall(r"([\d,]+) tok/s", printed)[-1]
    losses = re.findall(r"^step .*?loss +([\d.]+)", printed, re.MULTILINE)
    return {
        "name": SFT,
        "tokens_per_second": int(speed.replace(",", "")),
        "peak_gib": float(re.findall(r"peak memory of rank 0: ([\d.]+) GiB", printed)[-1]),
        "first_loss": float(losses[0]) if losses else None,
        "last_loss": float(losses[-1]) if losses else None,
    }


def write_conversations(folder: Path) -> None:
    """Write a clone's training file: 1,024 texts of 2 to 20 of the grammar data's pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (ROOT / "datasets/grammar/gtrain_10k.csv").open(encoding="utf-8-sig") as file:
        pairs = itertools.cycle(list(csv.DictReader(file)))
    lines = []
    for number in range(1024):
        texts = [
            f"### Human: {pair['input']}### Assistant: {pair['target']}"
            for pair in itertools.islice(pairs, 2 + number % 19)
        ]
        lines.append(json.dumps({"text": "".join(texts)}))
    text = "\n".join(lines) + "\n"
    (folder / "openassistant_best_replies_train.jsonl").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
