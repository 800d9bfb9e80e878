"""Finds what a run does not read: flags, because of its other flags, and a model's own code."""

from pathlib import Path

from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem, caught
from llama_recipes_local.preflight.flags import reached_by
from llama_recipes_local.run import Run

OF_SHARDS = (
    "dist_checkpoint_root_folder",
    "dist_checkpoint_folder",
    "checkpoint_type",
    "save_optimizer",
)
"""How FSDP saves a model that it trains whole."""


def check_data_settings(run: Run) -> list[Problem]:
    """Find settings of data sets that the run does not read."""
    return [
        Problem(
            f"--{flag} with --dataset {run.train.dataset}",
            f"it would be ignored: it is a setting of {' and '.join(owners)}",
            f"leave it out, or use --dataset {owners[0]}",
        )
        for flag, owners in settings_of_other_data(run).items()
    ]


def settings_of_other_data(run: Run) -> dict[str, list[str]]:
    """Return the flags that only data sets have which the run does not read, with these."""
    used = {type(config) for config in run.configurations()}
    if run.dataset is None:  # its name is unknown, which is reported
        return {}
    reached = {flag: [cls for cls, _ in reached_by(flag)] for flag in run.flags}
    return {
        flag: [cls.__name__ for cls in classes]
        for flag, classes in reached.items()
        if classes and not used & {*classes} and {cls.__name__ for cls in classes} <= {*DATASETS}
    }


def unread(run: Run) -> str:
    """Return the lines that name what has no effect in this run; "" if all has.

    Flags are not refused: scripts give all of upstream's to every run. Nor is code in a model's
    folder: it is loaded without it.
    """
    train = run.train
    whole_in_shards = train.enable_fsdp and train.save_model and not train.use_peft
    unread = {
        "FSDP saves no whole model here": () if whole_in_shards else OF_SHARDS,
        "nothing is validated": () if train.run_validation else ("val_batch_size", "max_eval_step"),
        "there is one process": () if train.enable_fsdp else ("process_group_timeout",),
        "kept for upstream's scripts": ("one_gpu",),
    }
    named = run.given - run.chosen
    lines = [
        f"--> without effect: {' '.join(f'--{name}' for name in names if name in named)} ({why})"
        for why, names in unread.items()
        if named.intersection(names)
    ]
    from llama_recipes_local.adapters.unread_keys import unread_keys  # which imports torch

    adapter = train.from_peft_checkpoint
    with caught():  # an adapter that cannot be read is reported
        lines += unread_keys(
            Path(train.model_name), Path(adapter).expanduser() if adapter else None
        )
    return "\n".join(lines)
