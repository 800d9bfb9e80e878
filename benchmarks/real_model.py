"""Fine-tunes a pretrained model with this package and with TRL, and judges both by ``evaluate``.

    python benchmarks/real_model.py --model DIR --work DIR --out results/FILE.json

One epoch of the grammar data, LoRA with r=16 on all linear layers, float32 weights computed in
bfloat16, 32 rows a step padded to the longest, a rate of 5e-4 that falls linearly to 0, a fresh
order and adapter for each seed. TRL is given each row twice over: as text (``trl``), of which it
makes the ids itself, and as the ids that this package trains (``trl-ids``). ``default`` is what
``make finetune`` trains where no model is named: ``--config first_run``. Every adapter, and the
model without one, is judged alike: the loss of the validation part's answers, and its prompts
completed greedily.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

from runs import ROOT, call, environment

VERSIONS = ("torch", "transformers", "peft", "trl", "datasets")
DATASET = ["--dataset", "grammar_dataset"]
ROWS, RATE, RANK = 32, 5e-4, 16
LONGEST = 1024
FORK = [*DATASET, "--use_peft", "--r", RANK, "--lora_alpha", 2 * RANK, "--lora_dropout", 0.05]
FORK += ["--target_modules", "all-linear", "--batching_strategy", "padding", "--dtype", "float32"]
FORK += ["--batch_size_training", ROWS, "--context_length", LONGEST, "--num_epochs", 1]
FORK += ["--lr", RATE, "--scheduler", "linear", "--run_validation", "False"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the adapters")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tools", nargs="*", default=["base", "fork", "trl", "trl-ids"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--devices", type=int, default=1, help="each has one run at a time")
    parser.add_argument("--train-with-trl", nargs=3, metavar=("TOOL", "SEED", "OUT"))
    args = parser.parse_args()
    if args.train_with_trl:
        tool, seed, out = args.train_with_trl
        train_with_trl(args.model, tool, int(seed), out)
        return
    runs = [
        (tool, seed)
        for tool in args.tools
        for seed in (args.seeds[:1] if tool == "base" else args.seeds)
    ]
    free: Queue[int] = Queue()
    for device in range(args.devices):
        free.put(device)
    with ThreadPoolExecutor(args.devices) as pool:
        judged = list(pool.map(lambda run: on_a_free_device(args, run[0], run[1], free), runs))
    for each in judged:
        print(json.dumps(each), flush=True)
    if args.out:
        args.out.write_text(
            json.dumps({"environment": environment(VERSIONS), "runs": judged}, indent=2) + "\n"
        )


def on_a_free_device(
    args: argparse.Namespace, tool: str, seed: int, free: "Queue[int]"
) -> dict[str, Any]:
    device = free.get()
    try:
        return train_and_judge(args, tool, seed, device)
    finally:
        free.put(device)


def train_and_judge(args: argparse.Namespace, tool: str, seed: int, device: int) -> dict[str, Any]:
    """Train one adapter, and return what ``evaluate`` says of it."""
    adapter = args.work / f"{tool}-{seed}"
    log = args.work / f"{tool}-{seed}.log"
    if tool == "fork":
        flags = [*FORK, "--seed", seed, "--model_name", args.model, "--output_dir", adapter]
        call([ROOT / "finetuning.py", *flags], log, device)
    elif tool == "default":
        own = ["--config", "first_run", "--seed", seed, "--model_name", args.model]
        call([ROOT / "finetuning.py", *DATASET, *own, "--output_dir", adapter], log, device)
    elif tool != "base":
        task = ["--train-with-trl", tool, seed, adapter]
        call([__file__, "--model", args.model, "--work", args.work, *task], log, device)
    result = args.work / f"{tool}-{seed}.json"
    judge = ["-m", "llama_recipes_local", "evaluate", *DATASET, "--model_name", args.model]
    judge += ["--metrics", "loss,gleu", "--batch_size", 64, "--dtype", "float32", "--out", result]
    call([*judge, *([] if tool == "base" else ["--adapter", adapter])], log, device)
    return {"tool": tool, "seed": seed, **judged_by(result)}


def judged_by(result: Path) -> dict[str, Any]:
    """Return the measures in a file of ``evaluate``, and the share of answers that ended."""
    found = json.loads(result.read_text())
    ended = [answer["ended"] for answer in found["answers"]]
    return {"stopped": sum(ended) / len(ended), "prompts": len(ended), **found["metrics"]}


def train_with_trl(model: Path, tool: str, seed: int, out: str) -> None:
    """Train the same adapter with TRL, on the texts or on the ids of the same rows."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = texts() if tool == "trl" else ids(model)
    if tool == "trl":
        rows = [row | {"completion": row["completion"] + tokenizer.eos_token} for row in rows]
    config = SFTConfig(
        output_dir=f"{out}.state",
        per_device_train_batch_size=ROWS,
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="linear",
        bf16=torch.cuda.is_available(),
        max_length=LONGEST,
        max_grad_norm=1e9,
        completion_only_loss=True,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        seed=seed,
    )
    device = {"": 0} if torch.cuda.is_available() else None
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, device_map=device)
    lora = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.05,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    data = Dataset.from_list(rows)
    trainer = SFTTrainer(
        weights, config, train_dataset=data, processing_class=tokenizer, peft_config=lora
    )
    trainer.train()
    trainer.save_model(out)


def texts() -> list[dict[str, str]]:
    """Return the training part as prompts and completions, as a user of TRL would write them."""
    import csv

    with (ROOT / "datasets/grammar/gtrain_10k.csv").open(encoding="utf-8-sig") as file:
        return [
            {
                "prompt": f"Correct this to standard English: {row['input']}\n---\nCorrected: ",
                "completion": row["target"],
            }
            for row in csv.DictReader(file)
        ]


def ids(model: Path) -> list[dict[str, list[int]]]:
    """Return the rows that this package trains, with the mask of what is an answer."""
    from transformers import AutoTokenizer

    from llama_recipes_local.configs import grammar_dataset
    from llama_recipes_local.utils import get_preprocessed_dataset

    rows = get_preprocessed_dataset(
        AutoTokenizer.from_pretrained(model), grammar_dataset(), split="train"
    )
    return [
        {
            "input_ids": list(row["input_ids"]),
            "completion_mask": [int(label != -100) for label in row["labels"]],
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()
