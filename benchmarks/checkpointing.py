"""Times saving and resuming LoRA and full fine-tuning of a 7B-shaped model on one CUDA device.

Two runs each: with checkpoints that training waits for, from the last of which a short run resumes,
and with asynchronous ones. What a checkpoint costs is how much longer the steps from it to the next
took than as many of the same run before its first one; the first asynchronous one makes the memory
that the others use again. Prints a table, writes ``checkpointing.json``:

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
from statistics import mean, median
from typing import Any

from runs import environment, make_model, run

CHECKPOINTS, WARM_UP = 3, 4
# steps from one checkpoint to the next: time enough for an asynchronous one to be written
EVERY = {"LoRA": 15, "full": 48}
COMMON = {
    "dataset": "grammar_dataset",
    "run_validation": False,
    "save_model": False,
    "use_fast_kernels": True,
    "gradient_accumulation_steps": 2,
    "num_epochs": 9,
}
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"use_peft": True, "batch_size_training": 2},
    "full": {"batch_size_training": 1},
}
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
    """Run a method with checkpoints, on from one, and with asynchronous ones."""
    every, steps = EVERY[name], EVERY[name] * CHECKPOINTS
    flags = COMMON | METHODS[name] | {"model_name": model, "max_train_step": steps}
    saving = {"save_steps": every, "save_total_limit": 1}
    waiting = finetune(work / "saving", flags | saving)
    checkpoint = work / "saving" / f"checkpoint-{steps}"
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    again = {"max_train_step": steps + 2, "resume_from_checkpoint": checkpoint}
    printed = run_finetuning(work / "resumed", flags | again)
    (times,) = re.findall(r"verified in ([\d.]+) s, restored in ([\d.]+) s", printed)
    verified, restored = map(float, times)
    shutil.rmtree(work / "saving")
    aside = finetune(work / "aside", flags | saving | {"async_save": True})
    shutil.rmtree(work / "aside")
    step = undisturbed(waiting, every)
    first, *others = held_up(aside, every)
    return {
        "bytes": size,
        "step_seconds": step,
        "save_seconds": mean(held_up(waiting, every)),
        "first_async_seconds": first,
        "async_seconds": mean(others),
        "async_share_of_a_step": mean(others) / step,
        "verify_seconds": verified,
        "restore_seconds": restored,
        "steps_waiting": [round(seconds, 3) for seconds in waiting],
        "steps_async": [round(seconds, 3) for seconds in aside],
    }


def finetune(output: Path, flags: dict[str, Any]) -> list[float]:
    """Fine-tune, and return how long after the step before it each step was done, in seconds."""
    run_finetuning(output, flags)
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    done = [line["seconds"] for line in lines]
    return [later - sooner for sooner, later in pairwise([0.0, *done])]


def run_finetuning(output: Path, flags: dict[str, Any]) -> str:
    """Run ``finetuning.py`` into an empty folder, and return what it prints."""
    shutil.rmtree(output, ignore_errors=True)
    every = flags | {"output_dir": output}
    return run(["finetuning.py", *(f"--{name}={value}" for name, value in every.items())])


def undisturbed(steps: list[float], every: int) -> float:
    """Return the seconds of a step before the first checkpoint."""
    return median(steps[WARM_UP:every])


def held_up(steps: list[float], every: int) -> list[float]:
    """Return the seconds by which each checkpoint but the last put off the steps after it."""
    alone = every * undisturbed(steps, every)
    return [sum(steps[n : n + every]) - alone for n in range(every, len(steps), every)]


def report(results: list[dict[str, Any]], out: Path) -> None:
    """Write the results as JSON with the machine and versions, and print them as a table."""
    out.mkdir(parents=True, exist_ok=True)
    versions = environment()
    content = {"environment": versions, "results": results}
    (out / "checkpointing.json").write_text(json.dumps(content, indent=2) + "\n")
    print("\n" + ", ".join(f"{key} {value}" for key, value in versions.items()))
    columns = ("GB", "step s", "save s", "first s", "async s", "share", "verify s", "restore s")
    print(" " * 16 + "".join(f"{column:>10}" for column in columns))
    for each in results:
        print(
            f"{each['name']}, {each['layers']} layers".ljust(16)
            + f"{each['bytes'] / GB:10.2f}{each['step_seconds']:10.3f}{each['save_seconds']:10.3f}"
            f"{each['first_async_seconds']:10.3f}{each['async_seconds']:10.3f}"
            f"{each['async_share_of_a_step']:10.1%}"
            f"{each['verify_seconds']:10.2f}{each['restore_seconds']:10.2f}"
        )


if __name__ == "__main__":
    main()
