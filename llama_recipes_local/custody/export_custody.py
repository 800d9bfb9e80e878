"""Adds a step to the manifest of a model that is merged or exported."""

from collections.abc import Callable
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
from llama_recipes_local.custody.run_inputs import (
    PATTERNS,
    absolute,
    folder_place,
    hashed,
)
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
    places = {
        what: folder_place(folder, PATTERNS[what])
        for what, folder in folders.items()
        if folder is not None
    }
    flags = {each.name: _plain(getattr(asked, each.name)) for each in fields(asked)}
    named = {"adapter": adapter, "model": model, "tokenizer": tokenizer}
    del flags["out"]
    flags |= {name: str(absolute(path)) for name, path in named.items() if path is not None}
    out, before = str(absolute(asked.out)), _before(adapter or model)

    def write(draft: Path) -> None:
        step = new_step(command, flags, {}, str(flags.get("dtype") or ""))
        inputs = hashed(places, cache_folder() / HASHES)
        step = replace(step, inputs=inputs, packages=packages())
        result = replace(folder_results(draft), folder=out)
        steps = [*before, with_results(step, {"out": result})]
        write_manifest(draft / CUSTODY_FILE, steps)

    return write


def _before(folder: Path) -> list[Step]:
    """Return the steps that made an adapter or a model; none without a manifest."""
    path = find_manifest(folder)
    if path is None:
        return []
    manifest = read_manifest(path)
    if not manifest.intact:
        fix = "copy it again from where the result was made, or remove it to begin a new one"
        raise refusal(f"{path} was changed after it was written", CHANGED, fix)
    return manifest.steps


def _plain(value: object) -> object:
    if isinstance(value, (str, int, float, type(None))):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return sorted(map(str, value))
    return str(value).removeprefix("torch.")
