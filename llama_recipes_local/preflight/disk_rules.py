"""Refuses a run whose files certainly do not fit on the disk, judged by the model's shape."""

import resource
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.model_checkpointing import checkpoint_folder
from llama_recipes_local.planning.host import GB, checkpoint_gb, saved_gb
from llama_recipes_local.planning.setting import Setting
from llama_recipes_local.preflight.memory_rules import asked_setting
from llama_recipes_local.run import Run
from llama_recipes_local.storage.disk import free_bytes, nearest_existing

MB = 10**6
FIXES = {
    "--output_dir": "free space there, or name a folder on another disk: --output_dir DIR",
    "--dist_checkpoint_root_folder": "free space there, or name a folder on another disk: "
    "--dist_checkpoint_root_folder DIR",
}


def check_disk(run: Run) -> list[Problem]:
    """Find a disk too small for the result and one checkpoint, or for the size of a file."""
    asked = asked_setting(run)
    if asked is None or not run.train.output_dir:
        return []
    return _check_space(run, asked) + _check_file_size(run, asked)


def _check_space(run: Run, asked: Setting) -> list[Problem]:
    train, problems = run.train, []
    saved = saved_gb(asked) if train.save_model else 0.0
    checkpoint = checkpoint_gb(asked) if train.save_steps else 0.0
    apart = train.enable_fsdp and not train.use_peft  # a model that is saved in shards
    needed = {"--output_dir": (Path(train.output_dir), checkpoint + (0.0 if apart else saved))}
    if apart:
        needed["--dist_checkpoint_root_folder"] = (checkpoint_folder(train), saved)
    for flag, (folder, size) in needed.items():
        free = free_bytes(nearest_existing(folder.resolve()))
        if free is not None and free < size * GB:
            parts = f"what is saved takes {saved * GB / MB:,.0f} MB"
            parts += f", a checkpoint {checkpoint * GB / MB:,.0f} MB" if checkpoint else ""
            what = f"{flag} {folder.resolve()}: {free / MB:,.0f} MB are free on its disk"
            problems.append(Problem(what, f"{parts}, at least", FIXES[flag]))
    return problems


def _check_file_size(run: Run, asked: Setting) -> list[Problem]:
    """Find a limit on file sizes that an adapter's file exceeds; models are saved in parts."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = saved_gb(asked) * GB if run.train.use_peft and run.train.save_model else 0.0
    if limit == resource.RLIM_INFINITY or size <= limit:
        return []
    why = f"the adapter is a file of {size / MB:,.0f} MB, and a file may have {limit / MB:,.1f} MB"
    fix = "raise the limit, which `ulimit -f` shows, in blocks of 1,024 bytes"
    return [Problem(f"--output_dir {Path(run.train.output_dir).resolve()}", why, fix)]
