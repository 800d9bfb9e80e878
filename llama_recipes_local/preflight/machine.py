"""Whether this machine can do the run: the output folder, the processes, optional packages."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch

from llama_recipes_local.errors import Problem
from llama_recipes_local.files.disk import nearest_existing
from llama_recipes_local.run import Run

INSTALL = {"bitsandbytes": 'pip install "llama-recipes-local[quantization]"'}


def check_output(run: Run) -> list[Problem]:
    """Return why the output folder cannot be written; nothing is written to find out."""
    if not run.train.output_dir:
        why = "the run's files would lie among those of the working directory"
        return [Problem("--output_dir is empty", why, "name a folder: --output_dir DIR")]
    output = Path(run.train.output_dir).expanduser().resolve()
    if run.train.model_name and output == Path(run.train.model_name).expanduser().resolve():
        why = "it is the model's own folder, whose files would be written over"
        mend = "name another folder: --output_dir DIR"
        return [Problem(f"--output_dir {output}", why, mend)]
    existing = nearest_existing(output)
    if not existing.is_dir():
        return [_output(output, f"{existing} is a file")]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [_output(output, f"{existing} cannot be written by this user")]
    return []


def _output(output: Path, why: str) -> Problem:
    return Problem(f"--output_dir {output}", why, "name a folder you may write: --output_dir DIR")


def check_processes(run: Run) -> list[Problem]:
    """Return a problem if there are more processes than CUDA devices, or a package is missing."""
    problems = []
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        problems.append(
            Problem(
                f"{processes} processes on this host",
                f"it has {torch.cuda.device_count()} CUDA device(s), one process needs one",
                f"use --nproc_per_node {torch.cuda.device_count()}",
            )
        )
    quantization = run.train.quantization
    wanted = [
        ("bitsandbytes", f"quantization {quantization}", quantization in ("4bit", "8bit", True))
    ]
    wanted += [("wandb", "use_wandb", run.train.use_wandb)]
    kernel = run.train.attn_implementation
    wanted += [("flash_attn", f"attn_implementation {kernel}", kernel == "flash_attention_2")]
    for module, flag, asked in wanted:
        if asked and find_spec(module) is None:
            package = module.replace("_", "-")
            problems.append(
                Problem(
                    f"--{flag}",
                    f"it needs the package {package}, which is not installed",
                    INSTALL.get(module, f"pip install {package}"),
                )
            )
    return problems
