"""What a run needs of this machine: a writable folder, and optional packages."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from llama_recipes_local import extras
from llama_recipes_local.configs.optimizer_names import BITSANDBYTES
from llama_recipes_local.configs.training import REPORTERS
from llama_recipes_local.errors import Problem
from llama_recipes_local.kernels.registry import ATTENTION
from llama_recipes_local.model_checkpointing import checkpoint_folder
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import quantized_bits, quantized_by
from llama_recipes_local.storage import open_files
from llama_recipes_local.storage.disk import nearest_existing
from llama_recipes_local.storage.names import check_new_name, check_path

WORKERS = 16
WORKERS_PER_CPU = 4
"""Processes of a rank that prepare batches, at most: this for each CPU, or ``WORKERS``."""
FILES = 32
FILES_PER_WORKER = 32
"""Files that a rank has open: of its own, and for the batches that a worker prepares ahead."""


def check_output(run: Run) -> list[Problem]:
    """Return why the output folder cannot be written to; what the check creates is removed."""
    if not run.train.output_dir:
        why = "the run's files would mix with those of the working directory"
        return [Problem("--output_dir is empty", why, "name a folder: --output_dir DIR")]
    output = Path(run.train.output_dir).resolve()
    if run.train.model_name and output == Path(run.train.model_name).resolve():
        why = "it is the model's own folder, whose files would be overwritten"
        fix = "name another folder: --output_dir DIR"
        return [Problem(f"--output_dir {output}", why, fix)]
    named = check_new_name(run.train.output_dir, "--output_dir")
    if unwritable := check_path(output, "--output_dir") or named:
        return unwritable
    return _unwritable(Path(run.train.output_dir), "--output_dir")


def check_sharded_output(run: Run) -> list[Problem]:
    """Return why FSDP's full fine-tuning cannot write to the folder that it saves models in."""
    train = run.train
    if not train.enable_fsdp or train.use_peft or not train.save_model:
        return []
    folder = checkpoint_folder(train)
    if too_long := check_path(folder, "--dist_checkpoint_root_folder"):
        fix = "name another: --dist_checkpoint_root_folder DIR --dist_checkpoint_folder PREFIX"
        return [replace(too_long[0], fix=fix)]
    return _unwritable(folder, "--dist_checkpoint_root_folder")


def _unwritable(folder: Path, flag: str) -> list[Problem]:
    """Return why a folder, which may not exist yet, cannot be written to."""
    resolved = shown = folder.resolve()
    existing = nearest_existing(resolved)
    why = ""
    if existing != resolved and os.path.lexists(folder):
        shown, why = folder, f"it is a link to {resolved}, which is not there"
    elif not existing.is_dir():
        why = f"{existing} is a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        why = f"{existing} cannot be written by this user"
    else:
        try:
            os.rmdir(tempfile.mkdtemp(prefix=".llama-recipes-", dir=existing))
        except OSError as error:  # as below /proc, where permissions allow it
            why = f"no folder can be made in {existing}: {error.strerror}"
    fix = f"name a folder that you can write to: {flag} DIR"
    return [Problem(f"{flag} {shown}", why, fix)] if why else []


def check_workers(run: Run) -> list[Problem]:
    """Refuse far more processes that prepare batches than this machine has CPUs or files for."""
    asked, cpus = run.train.num_workers_dataloader, len(os.sched_getaffinity(0))
    most = max(WORKERS, WORKERS_PER_CPU * cpus)
    if asked <= most:
        return _check_open_files(asked)
    return [
        Problem(
            f"--num_workers_dataloader {asked}",
            f"this process has {cpus} CPUs, and each of its {asked:,} processes would hold a copy "
            f"of Python; at most {most} are started",
            f"--num_workers_dataloader {min(cpus, 8)}",
        )
    ]


def _check_open_files(workers: int) -> list[Problem]:
    allowed, needed = open_files.most(), FILES + FILES_PER_WORKER * workers
    if not workers or allowed >= needed:
        return []
    return [
        Problem(
            f"--num_workers_dataloader {workers}",
            f"this process may have {allowed} files open (`ulimit -n`), and {workers} processes "
            f"that prepare batches need {needed}",
            "--num_workers_dataloader 0, or have the limit raised",
        )
    ]


def check_packages(run: Run) -> list[Problem]:
    """Return a problem for each package that a run's flags need and that is not installed."""
    train, optimizer = run.train, run.fsdp.optimizer.lower()
    is_quantized = quantized_bits(train) in ("4bit", "8bit")
    kernel = ATTENTION.get(train.attn_implementation)
    needs = [
        ("bitsandbytes", "quantization", quantized_by(run), is_quantized),
        ("bitsandbytes", "quantization", f"--optimizer {optimizer}", optimizer in BITSANDBYTES),
        ("wandb", "wandb", "--use_wandb", train.use_wandb),
        ("swanboard", "swanlab", "--report_to swanlab", "swanlab" in train.report_to),
    ]
    if kernel is not None and kernel.package:
        needs.append((kernel.package, kernel.extra, f"--attn_implementation {kernel.name}", True))
    needs += [
        (name, name, f"--report_to {name}", True)
        for name in train.report_to
        if name in REPORTERS.values
    ]
    return [
        problem
        for package, extra, what, is_needed in needs
        if is_needed
        for problem in extras.check_installed(package, what, extra)
    ]
