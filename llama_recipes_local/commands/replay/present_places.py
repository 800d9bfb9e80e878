"""Where a step's inputs are now: at the recorded path, or where flags say."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_recipes_local.custody.custody_file import Step
from llama_recipes_local.custody.run_inputs import (
    OF_MODELS,
    PATTERNS,
    Place,
    Places,
    file_place,
    folder_place,
    run_inputs,
    source_places,
)
from llama_recipes_local.datasets.base import PARTS
from llama_recipes_local.datasets.local import local_dataset
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.errors import Problem, caught
from llama_recipes_local.field_values import update_config
from llama_recipes_local.run import Source
from llama_recipes_local.run.resolution import resolve

CODE_OF_USER = "custom_dataset.file"
MADE = ("adapter", "checkpoint")
"""Inputs that a run made, which later commands read."""


def present_places(step: Step, given: Mapping[str, Any]) -> tuple[Places, list[Problem]]:
    """Return the files that a step would read now, by what they are, and what is missing.

    Args:
        step: the step.
        given: flags that say where inputs are now, by name.
    """
    with in_directory(step.directory):
        if step.command == "finetune":
            return _of_finetune(step, given)
        if step.command == "sft":
            return _of_sft(step, given)
        return {what: _folder(step, what, given) for what in step.inputs}, []


@contextlib.contextmanager
def in_directory(directory: str) -> Iterator[None]:
    """Make a directory the working one in the block, if it is there: relative paths begin there."""
    before = Path.cwd()
    if Path(directory).is_dir():
        os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def flags_now(step: Step, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of a run, with those that say where inputs are now."""
    named = {flag: value for flag, value in given.items() if flag not in ("config", *MADE)}
    return step.flags | with_data_path(named)[0]


def given_to_sft(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags for a run of ``sft.py`` among those for all steps of a result."""
    renamed = {"model_name": "model_name_or_path"}
    others = (*MADE, "tokenizer_name")
    return {renamed.get(flag, flag): value for flag, value in given.items() if flag not in others}


def _of_finetune(step: Step, given: Mapping[str, Any]) -> tuple[Places, list[Problem]]:
    problems = []
    if CODE_OF_USER in step.inputs and not {CODE_OF_USER, "file"} & given.keys():
        path = Path(step.inputs[CODE_OF_USER].folder, *step.inputs[CODE_OF_USER].files)
        why = f"it is code, which is run only if a flag names it; the run used {path}"
        fix = f"--{CODE_OF_USER} FILE.py, with :FUNCTION as the run had it"
        problems.append(Problem(f"--{CODE_OF_USER} is not given", why, fix))
    places, missing = run_inputs(resolve(flags_now(step, given)))
    if "config" in step.inputs:
        was = step.inputs["config"]
        path = given.get("config") or Path(was.folder, *was.files)
        places["config"] = file_place(Path(str(path)))
    return places, problems + missing


def _of_sft(step: Step, given: Mapping[str, Any]) -> tuple[Places, list[Problem]]:
    given = given_to_sft(given)
    config = local_dataset()
    update_config(config, **step.settings["local_dataset"])
    if "dataset_name" in given:
        config.data_path = str(given["dataset_name"])
    places = {
        what: _folder(step, what, given) for what in step.inputs if not what.endswith(" data")
    }
    parts = [part for part in PARTS if part == "train" or "validation data" in step.inputs]
    with caught() as problems:
        places |= source_places(Source("", "local_dataset", 1, config), parts=parts)
    return places, problems


def _folder(step: Step, what: str, given: Mapping[str, Any]) -> Place:
    was = step.inputs[what]
    path = Path(str(given.get(what) or was.folder))
    if path.is_file() or (len(was.files) == 1 and (path / next(iter(was.files))).is_file()):
        return file_place(path if path.is_file() else path / next(iter(was.files)))
    return folder_place(path, PATTERNS.get(what, OF_MODELS))
