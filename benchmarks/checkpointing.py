"""Times saving and resuming LoRA and full fine-tuning of a 7B-shaped model on one CUDA device.

Three runs each: without checkpoints, with some that training waits for and that one run then goes
on from, and with asynchronous ones. Prints a table, writes ``checkpointing.json``:

    python benchmarks/checkpointing.py --tokenizer DIR --work DIR --out DIR [--layers N]

A full checkpoint has weights and AdamW's two moments in bfloat16: 40 GB at 32 layers, and two of
them are on the disk at once. ``--layers`` makes the model for full fine-tuning smaller where there
is less room; the table says how large it was.
"""

import argparse
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from runs import environment, make_model, run

STEPS, EVERY, WARM_UP = 50, 20, 4
COMMON = {
    "dataset": "grammar_dataset",
    "run_validation": False,
    "save_model": False,
    "gradient_accumulation_steps": 2,
    "num_epochs": 9,
}
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"use_peft": True, "batch_size_training": 2},
    "full": {"batch_size_training": 1},
}
SAVING = {"save_steps": EVERY, "save_total_limit": 1}
GB = 1e9


def main() -> None:
    """Make the models, time each method, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and outputs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--layers", type=int, default=32, help="of the model that is wholly trained"
    )
    parser.add_argument("--only", choices=METHODS, help="time one method alone")
    options = parser.parse_args()
    results = []
    for name in [options.only] if options.only else METHODS:
        layers = options.layers if name == "full" else 32
        model = make_model(options.work / f"llama-{layers}-layers", options.tokenizer, layers)
        results.append({"name": name, "layers": layers} | time_method(name, model, options.work))
    report(results, options.out)


def time_method(name: str, model: Path, work: Path) -> dict[str, Any]:
    """Run a method without checkpoints, with them, on from one, and with asynchronous ones."""
    flags = COMMON | METHODS[name] | {"model_name": model, "max_train_step": STEPS}
    plain = finetune(work / "plain", flags)
    waited = finetune(work / "saving", flags | SAVING)
    checkpoint = work / "saving" / f"checkpoint-{STEPS}"
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    again = {"max_train_step": STEPS + 2, "resume_from_checkpoint": checkpoint}
    printed = run_finetuning(work / "resumed", flags | again)
    (times,) = re.findall(r"verified in ([\d.]+) s, restored in ([\d.]+) s", printed)
    verified, restored = map(float, times)
    shutil.rmtree(work / "saving")
    aside = finetune(work / "aside", flags | SAVING | {"async_save": True})
    shutil.rmtree(work / "aside")
    step = median(later - sooner for sooner, later in pairwise(plain))
    return {
        "bytes": size,
        "step_seconds": step,
        "save_seconds": held_up(waited, plain),
        "async_seconds": held_up(aside, plain),
        "async_share_of_a_step": held_up(aside, plain) / step,
        "verify_seconds": verified,
        "restore_seconds": restored,
    }


def finetune(output: Path, flags: dict[str, Any]) -> list[float]:
    """Fine-tune, and return when each step after warm-up was done, in seconds."""
    run_finetuning(output, flags)
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [line["seconds"] for line in lines][WARM_UP:]


def run_finetuning(output: Path, flags: dict[str, Any]) -> str:
    """Run ``finetuning.py`` into an empty folder, and return what it prints."""
    shutil.rmtree(output, ignore_errors=True)
    every = flags | {"output_dir": output}
    return run(["finetuning.py", *(f"--{name}={value}" for name, value in every.items())])


def held_up(saving: list[float], plain: list[float]) -> float:
    """Return the seconds by which a checkpoint put off the steps after it."""
    checkpoints = len(range(EVERY, STEPS, EVERY))
    return ((saving[-1] - saving[0]) - (plain[-1] - plain[0])) / checkpoints


def report(results: list[dict[str, Any]], out: Path) -> None:
    """Write the results as JSON with the machine and versions, and print them as a table."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "results": results}
    (out / "checkpointing.json").write_text(json.dumps(content, indent=2) + "\n")
    print("\n" + ", ".join(f"{key} {value}" for key, value in content["environment"].items()))
    columns = ("GB", "step s", "save s", "async s", "share", "verify s", "restore s")
    print(" " * 16 + "".join(f"{column:>10}" for column in columns))
    for each in results:
        print(
            f"{each['name']}, {each['layers']} layers".ljust(16)
            + f"{each['bytes'] / GB:10.2f}{each['step_seconds']:10.3f}{each['save_seconds']:10.3f}"
            f"{each['async_seconds']:10.3f}{each['async_share_of_a_step']:10.1%}"
            f"{each['verify_seconds']:10.2f}{each['restore_seconds']:10.2f}"
        )


if __name__ == "__main__":
    main()
