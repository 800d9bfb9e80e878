"""Whether this machine can do the run: the output folder, the processes, optional packages."""

import os
from pathlib import Path

import torch

from llama_recipes_local import extras
from llama_recipes_local.errors import Problem
from llama_recipes_local.kernels.registry import ATTENTION
from llama_recipes_local.models.quantization import quantized_bits
from llama_recipes_local.run.resolution import Run
from llama_recipes_local.storage.disk import nearest_existing
from llama_recipes_local.storage.names import check_name


def check_output(run: Run) -> list[Problem]:
    """Return why the output folder cannot be written; nothing is written to find out."""
    if not run.train.output_dir:
        why = "the run's files would lie among those of the working directory"
        return [Problem("--output_dir is empty", why, "name a folder: --output_dir DIR")]
    output = Path(run.train.output_dir).resolve()
    if run.train.model_name and output == Path(run.train.model_name).resolve():
        why = "it is the model's own folder, whose files would be written over"
        fix = "name another folder: --output_dir DIR"
        return [Problem(f"--output_dir {output}", why, fix)]
    if unwritable := check_name(output, "--output_dir"):
        return unwritable
    existing = nearest_existing(output)
    if not existing.is_dir():
        return [_output(output, f"{existing} is a file")]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [_output(output, f"{existing} cannot be written by this user")]
    return []


def _output(output: Path, why: str) -> Problem:
    return Problem(f"--output_dir {output}", why, "name a folder you may write: --output_dir DIR")


def check_processes() -> list[Problem]:
    """Return a problem if there are more processes on this host than CUDA devices."""
    processes, devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if not torch.cuda.is_available() or processes <= devices:
        return []
    return [
        Problem(
            f"{processes} processes on this host",
            f"it has {devices} CUDA device(s), one process needs one",
            f"use --nproc_per_node {devices}",
        )
    ]


def check_packages(run: Run) -> list[Problem]:
    """Return a problem for each package that a run's flags ask for and that is not installed."""
    train, problems = run.train, []
    if quantized_bits(train) in ("4bit", "8bit"):
        what = f"--quantization {train.quantization}"
        problems += extras.missing("bitsandbytes", what, "quantization")
    if train.use_wandb:
        problems += extras.missing("wandb", "--use_wandb", "wandb")
    kernel = ATTENTION.get(train.attn_implementation)
    if kernel is not None and kernel.package:
        what = f"--attn_implementation {kernel.name}"
        problems += extras.missing(kernel.package, what, kernel.extra)
    return problems
