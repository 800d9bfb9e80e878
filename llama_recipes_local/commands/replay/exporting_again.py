"""Repeats a merge, export or conversion, on what the step before has reproduced."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.commands.convert.command import Conversion, convert
from llama_recipes_local.commands.export.command import Export, export
from llama_recipes_local.commands.merge.command import Merge, merge
from llama_recipes_local.custody.custody_file import Step
from llama_recipes_local.errors import refusal

_FLAGS = {
    "adapter": "adapter",
    "checkpoint": "checkpoint",
    "model": "model_name",
    "tokenizer": "tokenizer_name",
}
"""What the commands' own classes call the inputs, and their flags."""


def export_again(
    step: Step, given: Mapping[str, Any], out: Path, before: Path | None, previous: Step
) -> None:
    """Do a step again.

    Args:
        step: of merge, export or convert.
        given: flags that say where inputs are now, by name.
        out: the new folder.
        before: the folder that the step before was made in again; None for the first step.
        previous: that step.

    Raises:
        UsageError: if it is of another command.
    """
    values = dict(step.flags) | {"out": out}
    values |= {name: given[flag] for name, flag in _FLAGS.items() if flag in given}
    if before is not None:
        source = next(each for each in _FLAGS if values.get(each))
        old = str(values[source])
        values[source] = before / _inside(Path(old), previous)
        if values.get("tokenizer") == old:
            values["tokenizer"] = values[source]
    for name in _FLAGS:
        values[name] = Path(values[name]) if values.get(name) else None
    if values.get("dtype"):
        values["dtype"] = getattr(torch, str(values["dtype"]))
    torch.set_num_threads(int(step.machine.get("threads", 1)))
    if step.command == "merge":
        merge(Merge(**_known(Merge, values)))
    elif step.command == "export":
        export(Export(**_known(Export, values)))
    elif step.command == "convert":
        convert(Conversion(**_known(Conversion, values)))
    else:
        why = "only finetune, sft, merge, export and convert can be repeated"
        raise refusal(f"a step of {step.command}", why, "compare only: --check")


def _inside(folder: Path, previous: Step) -> Path:
    """Return where in the folder of the step before an input was, such as a checkpoint."""
    tops = [Path(each.folder) for each in previous.results.values()]
    inside = [folder.relative_to(top) for top in tops if folder.is_relative_to(top)]
    return inside[0] if inside else Path()


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(cls)}
    return {name: value for name, value in values.items() if name in names}
