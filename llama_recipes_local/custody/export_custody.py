"""Adds a step to the manifest of a model that is merged, exported or converted."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from llama_recipes_local.custody.custody_file import (
    CHANGED,
    Step,
    find_manifest,
    read_manifest,
    with_results,
    write_manifest,
)
from llama_recipes_local.custody.run_custody import folder_results, new_step
from llama_recipes_local.custody.run_inputs import Place, absolute, hashed, input_place
from llama_recipes_local.custody.software_facts import packages
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.datasets.tokenized_splits import HASHES
from llama_recipes_local.errors import refusal
from llama_recipes_local.run.record import CUSTODY_FILE


def exported_custody(
    command: str, asked: Any, model: Path, adapter: Path | None, tokenizer: Path | None
) -> Callable[[Path], None]:
    """Return a function that writes the manifest into the new model's folder.

    Args:
        command: "merge" or "export".
        asked: the command's own dataclass with its settings, among them ``out``.
        model: the folder that weights are read from.
        adapter: the folder of the adapter that is merged; None without one.
        tokenizer: the tokenizer's folder; None if none is read.

    Raises:
        UsageError: if the manifest of the adapter or model cannot be used.
    """
    folders = {"model_name": model, "adapter": adapter, "tokenizer_name": tokenizer}
    places = {what: input_place(each, what) for what, each in folders.items() if each is not None}
    named = {"adapter": adapter, "model": model, "tokenizer": tokenizer}
    return _added(command, asked, places, named, adapter or model)


def converted_custody(
    asked: Any, checkpoint: Path, model: Path | None, tokenizer: Path | None
) -> Callable[[Path], None]:
    """Return what writes the manifest into the folder of a converted model.

    Args:
        asked: the command's own dataclass, as for ``exported_custody``.
        checkpoint: the folder or GGUF file that is converted.
        model: the folder of the model that was trained; None if none is read.
        tokenizer: the tokenizer's folder; None if none is read.

    Raises:
        UsageError: if the manifest of the checkpoint cannot be used.
    """
    named = {"checkpoint": checkpoint, "model": model, "tokenizer": tokenizer}
    folders = {"model_name": model, "tokenizer_name": tokenizer}
    places = {"checkpoint": input_place(checkpoint, "checkpoint")}
    places |= {what: input_place(each, what) for what, each in folders.items() if each is not None}
    return _added("convert", asked, places, named, checkpoint)


def _added(
    command: str,
    asked: Any,
    places: Mapping[str, Place],
    named: Mapping[str, Path | None],
    source: Path,
) -> Callable[[Path], None]:
    """Return what writes a manifest: the one of the folder ``source`` with a step more.

    Args:
        command: its name.
        asked: its own dataclass.
        places: the files that are read.
        named: where the command found its inputs, by the names of the dataclass.
        source: the folder, or a file in it, that the result is made of.
    """
    flags = {each.name: _plain(getattr(asked, each.name)) for each in fields(asked)}
    del flags["out"]
    flags |= {name: str(absolute(path)) for name, path in named.items() if path is not None}
    out = str(absolute(asked.out))
    before = _before(source)

    def write(draft: Path) -> None:
        step = new_step(command, flags, {}, str(flags.get("dtype") or ""))
        inputs = hashed(places, cache_folder() / HASHES)
        step = replace(step, inputs=inputs, packages=packages())
        result = replace(folder_results(draft), folder=out)
        steps = [*before, with_results(step, {"out": result})]
        write_manifest(draft / CUSTODY_FILE, steps)

    return write


def _before(source: Path) -> list[Step]:
    """Return the steps that made a folder or a file in it; none if no manifest says it."""
    path = find_manifest(source.parent if source.is_file() else source)
    if path is None:
        return []
    manifest = read_manifest(path)
    if not manifest.intact:
        fix = "copy it again from where the result was made, or remove it to begin a new one"
        raise refusal(f"{path} was changed after it was written", CHANGED, fix)
    results = manifest.steps[-1].results.values()
    if source.is_file() and not any(source.name in each.files for each in results):
        return []  # it only lies beside what they made
    return manifest.steps


def _plain(value: object) -> object:
    if isinstance(value, (str, int, float, type(None))):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return sorted(map(str, value))
    return str(value).removeprefix("torch.")
