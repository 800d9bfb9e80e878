"""Protects the results of earlier runs: they are overwritten only if the user asks for it."""

import os
import time
from pathlib import Path

from llama_recipes_local import configs
from llama_recipes_local.checkpoints import layout, selection
from llama_recipes_local.checkpoints.selection import AUTO
from llama_recipes_local.datasets.prompt_template import PROMPT_TEMPLATE_FILE
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.fields import FOLDER, fields_with
from llama_recipes_local.model_checkpointing import checkpoint_folder
from llama_recipes_local.model_checkpointing.adapter_card import CARD
from llama_recipes_local.model_folders.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.auxiliary_files import OTHERS, TOKENIZER
from llama_recipes_local.model_folders.weight_files import has_weights
from llama_recipes_local.run import Run
from llama_recipes_local.run.log import LOG_FILE
from llama_recipes_local.run.record import (
    AUDIT_FILE,
    BASE_RECORD,
    CONFIGURATION_FILE,
    CUSTODY_FILE,
    SIGNATURE,
    SavedRun,
)
from llama_recipes_local.storage.folder_lock import check_lock
from llama_recipes_local.storage.publishing import remove

METRICS = "metrics.jsonl"
WEIGHTS = (
    ADAPTER_WEIGHTS,
    ADAPTER_CONFIG,
    BASE_RECORD,
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "config.json",
)
RECORDS = (
    CONFIGURATION_FILE,
    CUSTODY_FILE,
    f"{CUSTODY_FILE}{SIGNATURE}",
    PROMPT_TEMPLATE_FILE,
    AUDIT_FILE,
    METRICS,
    "evaluations.jsonl",
    "metrics_data_*.json",
    "tensorboard",
    LOG_FILE,
    "sample_answers.json",
    "report.html",
    "report.svg",
    "report.png",
)
"""What runs write into ``--output_dir`` besides checkpoints, as patterns."""
FILES = tuple(name for name in (*WEIGHTS, *RECORDS) if "*" not in name and name != "tensorboard")


def check_earlier_result(run: Run) -> list[Problem]:
    """Return a problem if a folder holds the result of a run that this one does not continue.

    So is one that another run writes to at this moment, whatever the flags.
    """
    output, asked = Path(run.train.output_dir), run.train.resume_from_checkpoint
    if not run.train.output_dir or layout.is_checkpoint(output):
        return []
    if locked := check_lock(output):
        return locked
    if run.train.overwrite_output_dir:
        return _check_overwriting(run.train, output)
    checkpoints = layout.checkpoints_in(output)
    continued = bool(checkpoints) if asked == AUTO else selection.is_in(output, Path(asked))
    if (asked and continued) or (checkpoints and asked != AUTO):  # the latter is refused elsewhere
        return []
    if asked == AUTO and is_unfinished(output):
        return []
    places = [output]
    if run.train.enable_fsdp and not run.train.use_peft and run.train.save_model:
        places.append(checkpoint_folder(run.train))  # of a sharded model
    return [problem for place in places if (problem := _result(place, run.train))]


def check_names_are_free(run: Run, *others: str) -> list[Problem]:
    """Return a problem for each folder or link in the place of a file that the run writes.

    Args:
        run: the run.
        others: names of files that the run writes in addition to ``FILES``.
    """
    if not run.train.output_dir:
        return []
    names = [*others, CARD] if run.train.use_peft else [*others]
    if not run.train.overwrite_output_dir:  # which removes these
        names += FILES
    output = Path(run.train.output_dir)
    return [problem for name in names if (problem := _taken(output.resolve() / name))]


def _taken(path: Path) -> Problem | None:
    fix = "rename it, or name another folder: --output_dir DIR"
    if path.is_symlink():
        why = "the run writes a file of this name, which would overwrite the file that it links to"
        return Problem(f"{path} is a link to {os.readlink(path)}", why, fix)
    if path.is_dir():
        return Problem(f"{path} is a folder", "the run writes a file of this name", fix)
    return None


def check_output_has_no_weights(output: Path) -> list[Problem]:
    """Return a problem if a folder holds trained weights or is written to; not of its record."""
    if locked := check_lock(output):
        return locked
    names = [name for name in (ADAPTER_WEIGHTS, "model.safetensors") if (output / name).is_file()]
    return [
        Problem(
            f"--output_dir {output.resolve()} holds {name}",
            "a new run would overwrite that result",
            "name another folder: --output_dir DIR, or remove this one",
        )
        for name in names
    ]


def remove_earlier_result(run: Run) -> None:
    """Remove what an earlier run wrote into the output folder, if the flag asks for that.

    The remains of an unfinished run without weights are replaced without the flag.
    """
    output = Path(run.train.output_dir)
    if not run.train.overwrite_output_dir:
        log = output / METRICS
        again = is_unfinished(output) and log.is_file() and log.stat().st_size
        if again and not layout.checkpoints_in(output):
            print(f"--> {log.resolve()} belongs to an unfinished run and is started again")
        return
    patterns = (*WEIGHTS, *RECORDS, *TOKENIZER, *OTHERS)
    found = [path for pattern in patterns for path in sorted(output.glob(pattern))]
    found += layout.checkpoints_in(output)
    for path in found:
        remove(path)
    if found:
        print(f"--> removed from {output.resolve()}: {', '.join(path.name for path in found)}")


def is_unfinished(output: Path) -> bool:
    """Return whether a folder holds the record of a run that has not finished."""
    try:
        saved = SavedRun(output)
    except UsageError:  # reported elsewhere
        return False
    return saved.path is not None and not saved.finished


def _result(folder: Path, train: configs.train_config) -> Problem | None:
    """Return the problem if a folder holds trained weights, or a finished run's record."""
    try:
        saved = SavedRun(folder)
    except UsageError as error:
        return error.problems[0]
    names = [ADAPTER_WEIGHTS] if (folder / ADAPTER_WEIGHTS).is_file() else []
    own = folder == Path(train.output_dir)
    is_model = has_weights(folder) if own else any(folder.rglob("*.safetensors"))
    names += ["a model's weights"] if is_model else []
    if not names and saved.finished:
        names = [CONFIGURATION_FILE]
    if not names:
        return None
    flag = "--output_dir" if own else "--dist_checkpoint_root_folder"
    model, data = saved.get("train_config", "model_name"), saved.get("train_config", "dataset")
    trained = f": {Path(str(model)).name} on {data}, --lr {saved.get('train_config', 'lr')}"
    return Problem(
        f"{flag} {folder.resolve()} holds {' and '.join(names)} of a run of {_when(folder, saved)}",
        "a new run would overwrite that result" + (trained if model else ""),
        f"name another folder: {flag} DIR, or replace it: --overwrite_output_dir",
    )


def _when(folder: Path, saved: SavedRun) -> str:
    latest = max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
    return saved.finished or time.strftime("%F %T", time.localtime(latest))


def _check_overwriting(train: configs.train_config, output: Path) -> list[Problem]:
    """Find files that the run reads from the very folder that it is to overwrite."""
    what = f"--overwrite_output_dir with --resume_from_checkpoint {AUTO}"
    if train.resume_from_checkpoint == AUTO:
        why = "the one removes the checkpoints that the other resumes from"
        return [Problem(what, why, "leave one of them out")]
    if has_weights(output) and not (output / CONFIGURATION_FILE).is_file():
        what = f"--overwrite_output_dir with --output_dir {output.resolve()}"
        why = "the model in it was not written by a run, and is not removed"
        return [Problem(what, why, "name another folder: --output_dir DIR")]
    inside = [
        (name, value)
        for name in fields_with(configs.train_config, FOLDER)
        if name != "output_dir" and (value := getattr(train, name))
        if output.resolve() in (Path(value).resolve(), *Path(value).resolve().parents)
    ]
    return [
        Problem(
            f"--overwrite_output_dir with --{name} {value}",
            "it is in --output_dir, whose earlier result is removed",
            "leave --overwrite_output_dir out, or name another folder: --output_dir DIR",
        )
        for name, value in inside
        if name in ("from_peft_checkpoint", "resume_from_checkpoint", "tokenizer_name")
    ]
