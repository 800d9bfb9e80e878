"""Fine-tunes several times in one process, as a notebook does, and prints what each run left.

    python two_runs.py MODEL DATA_ROOT FOLDER

Prints JSON: the state of the process before, and for each run its exit code, output, losses, files
and the state of the process after it.
"""

import contextlib
import csv
import io
import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

import llama_recipes_local.finetuning_run  # noqa: F401  # what libraries set when imported stays
from llama_recipes_local.finetuning import main
from llama_recipes_local.run import active_run
from llama_recipes_local.training import display

SHARED: dict[str, Any] = {
    "dataset": "grammar_dataset",
    "context_length": 128,
    "num_epochs": 1,
    "max_train_step": 4,
    "batch_size_training": 2,
    "lr": 1e-3,
}
LORA = SHARED | {"use_peft": True, "save_metrics": True}
FULL = SHARED | {
    "batching_strategy": "padding",
    "dtype": "bfloat16",
    "gradient_checkpointing": True,
    "save_steps": 2,
    "scheduler": "cosine",
    "seed": 7,
}
REFUSED = LORA | {"no_such_flag": True}


def process_state() -> dict[str, Any]:
    """Return the settings of this process that a run could leave changed."""
    return {
        "active run": active_run() is not None,
        "csv limit": csv.field_size_limit(),
        "default dtype": str(torch.get_default_dtype()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "gradients": torch.is_grad_enabled(),
        "process group": torch.distributed.is_initialized(),
        "progress bars": logging.is_progress_bar_enabled(),
        "signal handlers": [
            str(signal.getsignal(number))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        ],
        "standard output": sys.stdout is sys.__stdout__,
        "verbosity": logging.get_verbosity(),
        "warning filters": list(map(str, warnings.filters)),
    }


def finetune(folder: Path, flags: dict[str, Any]) -> dict[str, Any]:
    """Run ``main`` once, into ``folder``."""
    code, said = 0, io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            # a cache of its own, so that no run finds another's tokens
            main(output_dir=str(folder), data_cache=f"{folder}-cache", **flags)
        except SystemExit as ended:
            code = int(ended.code or 0)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text("utf-8").splitlines() if metrics.is_file() else []
    return {
        "code": code,
        "said": said.getvalue().replace(str(folder), "OUTPUT"),
        "losses": [json.loads(line)["loss"] for line in lines],
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "state": process_state(),
    }


if __name__ == "__main__":
    display.SECONDS_BETWEEN_LINES = math.inf  # a slow step would print a line more
    model, data_root, work = sys.argv[1:]
    folders = {"model_name": model, "data_root": data_root}
    before = process_state()
    runs = [
        finetune(Path(work) / str(number), folders | flags)
        for number, flags in enumerate([LORA, LORA, FULL, REFUSED, LORA, FULL])
    ]
    print(json.dumps({"before": before, "runs": runs}))
