"""A complete checkpoint of what a run says of itself, without weights, made by hand."""

import json
from pathlib import Path
from typing import Any

from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.checkpoints.files import write_file
from llama_recipes_local.checkpoints.layout import MANIFEST, RANDOM, TRAINER, Manifest, folder_of
from llama_recipes_local.checkpoints.plausibility import LOSSES, SECONDS


def progress(step: int) -> dict[str, Any]:
    """Return what the trainer of a run that never validated would save."""
    empty: dict[str, Any] = {name: [] for name in (*LOSSES, *SECONDS, "epoch_steps")}
    unknown = dict.fromkeys(("initial_eval_loss", "tflops"))
    took = {"file": "", "seconds_of_epoch": 1.0, "train_step_loss": [1.0] * step}
    return {
        "ranks": 1,
        "seconds": 1.0,
        "state": {"step": step, "epoch": 0, "validated": -1, "best_value": None},
        "history": empty | unknown | took,
        "feed": {"taken": 0, "ended": False, "position": None},
        "optimizer": {"numbers": {}, "groups": [{"lr": 1e-3, "params": []}]},
        "stepper": {"overflows": 0, "scaler": {}},
        "schedule": {},
    }


def checkpoint(output: Path, step: int) -> Path:
    """Make a complete checkpoint of what a run says of itself, without weights."""
    folder = folder_of(output, step)
    (folder / RANDOM).mkdir(parents=True)
    said = {TRAINER: progress(step), f"{RANDOM}/rank-0.json": rng_state.state_dict()}
    files = {
        name: write_file(folder / name, [json.dumps(content).encode()])
        for name, content in said.items()
    }
    manifest = Manifest(step, ranks=1, validation_loss=None, files=files)
    (folder / MANIFEST).write_text(manifest.text())
    return folder
