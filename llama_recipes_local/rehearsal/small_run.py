"""Turns the flags of a rehearsed run into those of a small run on the CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_recipes_local import launch
from llama_recipes_local.configs.training import FULL, OFFLOAD, SELECTIVE
from llama_recipes_local.datasets.base import PARTS, find_split
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.kernels.registry import ATTENTION
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.rehearsal.small_model import LAYERS
from llama_recipes_local.run import Run

STEPS, SAVED_EVERY, KILLED_IN = 6, 2, 4
"""Optimiser steps, those from one checkpoint to the next, and the step that is killed."""
RANKS = 2
LOGITS = 2**25
"""Logits of a micro-batch at most: half a GiB in the backward pass."""
WHOLE, RECORDS = 50 * 10**6, 20_000
"""Bytes of files that are tokenised whole, and what is tokenised of larger ones."""
ROWS, SHORTEST, RANK, ACCUMULATED = 2, 64, 16, 2

PLACES = ("model_name", "tokenizer_name", "output_dir", "dist_checkpoint_root_folder", "data_cache")
DURATION = ("num_epochs", "max_train_step", "max_eval_step", "eval_steps", "save_steps")
"""What is replaced in each rehearsal, and so not named in the list of what differs."""
OWN = ("rehearse", "dry_run", "preset", "config")
EARLIER = ("overwrite_output_dir", "resume_from_checkpoint", "resume_despite")
OF_A_GPU = ("use_fp16", "fp8", "hsdp", "sharding_group_size", "replica_group_size")
MEASURED = ("use_profiler", "profiler_dir", "flop_counter", "flop_counter_start")
OTHERS = ("from_peft_checkpoint", "allow_other_base", "save_model")


@dataclass(frozen=True)
class SmallRun:
    """A run that is rehearsed.

    Attributes:
        flags: of the small run, by name.
        ranks: how many train; 0 is a process that is no rank.
        differs: how it differs from the run itself, a line for each flag.
    """

    flags: dict[str, Any]
    ranks: int
    differs: list[str]


def small_run(run: Run, folder: Path) -> SmallRun:
    """Return the small run of a run.

    Args:
        run: the user's, checked.
        folder: where the small model is, and what is written goes.
    """
    world = launch.world_size()
    new: dict[str, Any] = dict.fromkeys((*OWN, *EARLIER, *OF_A_GPU, *MEASURED, *OTHERS))
    new |= _places(run, folder) | _duration(run) | _sizes(run) | _parts(run) | _on_a_cpu(run)
    flags = {name: value for name, value in run.flags.items() if _name(name) not in new}
    flags |= {name: value for name, value in new.items() if value is not None}
    said = [each for name in new if (each := _difference(run, name, new[name]))]
    ranks = min(world, RANKS) if launch.launch() else 0
    return SmallRun(flags, ranks, [*said, *([f"{ranks} of {world} ranks"] * (world > RANKS))])


def _name(flag: str) -> str:
    return flag.rpartition(".")[2]


def _places(run: Run, folder: Path) -> dict[str, Any]:
    tokenizer = Path(run.train.tokenizer_name or run.train.model_name).expanduser().resolve()
    return {
        "model_name": str(folder / "model"),
        "tokenizer_name": str(tokenizer),
        "output_dir": None,  # each stage has its own
        "dist_checkpoint_root_folder": None,
        "data_cache": str(folder / "cache"),
    }


def _duration(run: Run) -> dict[str, Any]:
    train = run.train
    return {
        "num_epochs": STEPS,
        "max_train_step": STEPS,
        "max_eval_step": ROWS,
        "eval_steps": STEPS // 2 if train.eval_steps else None,
        "save_steps": SAVED_EVERY,
        "warmup_steps": min(train.warmup_steps, 1),
        "samples": min(train.samples, 1),
    }


def _sizes(run: Run) -> dict[str, Any]:
    """Return batch sizes whose logits fit into any machine's memory."""
    train = run.train
    vocabulary = int(read_config(Path(train.model_name).resolve()).get("vocab_size") or 2**15)
    rows = min(train.batch_size_training, ROWS)
    length = max(LOGITS // vocabulary // rows // 8 * 8, SHORTEST)
    if train.tokens_path:  # which were made of this length
        rows, length = 1, train.context_length
    return {
        "batch_size_training": rows,
        "val_batch_size": min(train.val_batch_size, ROWS),
        "context_length": min(train.context_length, length),
        "gradient_accumulation_steps": min(train.gradient_accumulation_steps, ACCUMULATED),
        "num_workers_dataloader": min(train.num_workers_dataloader, 1),
    }


def _parts(run: Run) -> dict[str, Any]:
    """Return flags that name more layers, or a higher rank, than the small model has."""
    train, new = run.train, dict[str, Any]()
    if train.freeze_layers:
        new["num_freeze_layers"] = min(train.num_freeze_layers, LAYERS - 1)
    if train.train_only.startswith("last:"):
        new["train_only"] = "last:1"
    if getattr(run.peft, "r", 0) > RANK:
        new["r"] = RANK
    if getattr(run.peft, "adapter_layers", 0) > LAYERS:
        new["adapter_layers"] = LAYERS
    return new


def _on_a_cpu(run: Run) -> dict[str, Any]:
    """Return replacements for flags that need a GPU."""
    new: dict[str, Any] = {}
    if run.train.dtype == "float16":
        new["dtype"] = None
    kernel = ATTENTION.get(run.train.attn_implementation)
    if kernel is not None and kernel.package:
        new["attn_implementation"] = None
    if run.train.activation_policy in (SELECTIVE, OFFLOAD):
        new["activation_policy"] = FULL if run.train.activation_policy == OFFLOAD else None
    if run.wandb.mode == "online":
        new["mode"] = None
    return new | dict.fromkeys(("id", "resume"))


def _difference(run: Run, name: str, value: object) -> str:
    """Return how a flag of the small run differs; "" if it does not, or does in every rehearsal."""
    if name in (*PLACES, *DURATION, *OWN):
        return ""
    if value is None:
        return f"without --{name}" if name in run.given else ""
    configs = (config for config in run.configurations() if hasattr(config, name))
    old = next((getattr(config, name) for config in configs), value)
    return "" if old == value else f"--{name} {value}, not {old}"


def records_tokenized(run: Run) -> int | None:
    """Return how many records of each part a rehearsal tokenises; None means all.

    Every run has read and checked all of them before.
    """
    if not run.train.rehearse:
        return None
    files = {
        path
        for source in run.sources
        for part in PARTS
        if (split := find_split(DATASETS[source.dataset], source.config, part)) is not None
        for path in split.files
    }
    return RECORDS if sum(path.stat().st_size for path in files) > WHOLE else None
