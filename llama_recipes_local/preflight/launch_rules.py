"""Rules for how a run is started: torchrun and its ranks."""

import os

import torch

from llama_recipes_local import launch
from llama_recipes_local.configs.model_types import VISION
from llama_recipes_local.errors import Problem
from llama_recipes_local.parallel import launched_by_torchrun
from llama_recipes_local.preflight.group_sizes import group_sizes
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run


def check_environment(run: Run) -> list[Problem]:
    """Find torchrun's variables where they are incomplete, or contradict each other."""
    return launch.find_problems()


def check_torchrun(run: Run) -> list[Problem]:
    """Find FSDP without torchrun, and several ranks of torchrun without FSDP."""
    if launch.find_problems():
        return []  # reported
    if run.train.enable_fsdp and not launched_by_torchrun():
        return [
            Problem(
                "--enable_fsdp in a process that torchrun did not start",
                "FSDP trains with several processes, which torchrun starts and numbers",
                "start it with: torchrun --nproc_per_node 2 finetuning.py --enable_fsdp ...",
            )
        ]
    if launch.world_size() > 1 and not run.train.enable_fsdp:
        return [
            Problem(
                "torchrun without --enable_fsdp",
                "each process would train its own copy of the model on the same data",
                "add --enable_fsdp, or start it with: python finetuning.py ...",
            )
        ]
    return []


def check_rehearsal(run: Run) -> list[Problem]:
    """Find settings that cannot be rehearsed."""
    if not run.train.rehearse:
        return []
    problems = []
    if run.train.dry_run:
        why, fix = "the one ends before the other begins", "leave one of them out"
        problems.append(Problem("--rehearse with --dry_run", why, fix))
    if model_config(run).get("model_type") == VISION:
        why = "the small model that is rehearsed with has text alone"
        fix = "leave --rehearse out; --dry_run checks the run and its data"
        problems.append(Problem("--rehearse with a vision model", why, fix))
    return problems


def check_group_sizes(run: Run) -> list[Problem]:
    """Find group sizes of HSDP whose product is not the number of ranks."""
    return group_sizes(run, launch.world_size())


def check_devices(run: Run) -> list[Problem]:
    """Find more processes on this host than it has CUDA devices."""
    local, devices = os.environ.get("LOCAL_WORLD_SIZE", "1"), torch.cuda.device_count()
    processes = int(local) if local.isdigit() else 1
    if not torch.cuda.is_available() or processes <= devices:
        return []
    return [
        Problem(
            f"{processes} processes on this host",
            f"it has {devices} CUDA device(s), one process needs one",
            f"use --nproc_per_node {devices}",
        )
    ]
