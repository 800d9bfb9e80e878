"""``llama-recipes-local what-to-bring``: prints the list as text or JSON."""

import argparse
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from llama_recipes_local.bundling.targets import (
    CPU,
    Target,
    constraints_command,
    in_bash,
    pip_commands,
)
from llama_recipes_local.commands.check.file_lists import SUMS_COMMAND
from llama_recipes_local.commands.what_to_bring.brought import METHODS, Brought, File
from llama_recipes_local.commands.what_to_bring.data_files import bring_data
from llama_recipes_local.commands.what_to_bring.model_files import bring_default_model, bring_model
from llama_recipes_local.errors import Problem, caught, refuse
from llama_recipes_local.messages import amount

_SIZES = {  # GB of all wheels, as they were fetched
    CPU: 0.5,
    "cuda": 4.0,
}


def what_to_bring(args: argparse.Namespace) -> None:
    """Print what to bring.

    Raises:
        UsageError: with all problems, if a name is not known.
    """
    parts: dict[str, Brought] = {}
    problems: list[Problem] = []
    with caught() as found:
        parts["model"] = bring_model(args.model) if args.model else bring_default_model()
    problems += found
    with caught() as found:
        for number, data in enumerate(bring_data(args.dataset) if args.dataset else [], 1):
            parts["dataset" if number == 1 else f"dataset-{number}"] = data
    problems += found
    refuse(problems)
    parts["packages"] = _packages(Target(args.cuda, args.python), METHODS[args.method])
    if args.json:
        print(json.dumps({name: asdict(part) for name, part in parts.items()}, indent=2))
        return
    print("\n".join(_text(parts, args)))


def _packages(target: Target, extra: str) -> Brought:
    extras = [*([extra] if extra else []), *([] if target.cuda == CPU else ["fast"])]
    lines = [in_bash(words) for words in pip_commands(target, extras)]
    size = _SIZES[CPU if target.cuda == CPU else "cuda"]
    notes = [
        "run in a checkout of this package, on Linux with that Python: pip judges conditions by "
        "the Python that runs it",
        f"or all of it in one folder that installs itself: make bundle TARGET={target.name}",
    ]
    if target.driver:
        notes.insert(1, f"the machine needs NVIDIA's driver {target.driver} or newer")
        notes[-1] += "; with TORCH_INDEX=pip where the package index alone is reached"
    there = "cp wheels/constraints.txt . && PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheels make install"
    return Brought(
        f"packages for Python {target.python}, {target.torch}",
        "wheels",
        [File("*.whl")],
        int(size * 1e9),
        {"pip": [constraints_command(target), *lines], "there": [there]},
        notes,
    )


def _text(parts: dict[str, Brought], args: argparse.Namespace) -> Iterator[str]:
    for part in parts.values():
        size = f", about {amount(part.bytes)}" if part.bytes else ""
        yield f"{part.name}: folder {part.folder}{size}"
        yield from _table(part.files)
        for note in part.notes:
            yield f"  note: {note}"
        for where, lines in part.commands.items():
            yield f"  {where}:"
            yield from (f"    {line}" for line in lines)
        yield ""
    yield "then, in each folder, so that the copy can be checked file by file:"
    yield f"    {SUMS_COMMAND}"
    yield "and on the machine without a network:"
    for name, part in parts.items():
        if name != "packages" and part.files:
            yield f"    llama-recipes-local check {shlex.quote(part.folder)}"
    flags = [word for part in parts.values() for word in part.flags]
    method = {"qlora": ["--config", "qlora"], "lora": ["--use_peft"]}.get(args.method, [])
    flags += [] if "dataset" in parts else ["--dataset", "PATH"]
    if args.method != "sft":
        yield f"    llama-recipes-local finetune {shlex.join([*flags, *method])}"


def _table(files: Sequence[File]) -> Iterator[str]:
    """Yield a line for each file, and one for all shards."""
    for _, group in groupby(files, lambda file: re.sub(r"-\d+-of-", "-of-", file.name)):
        first, *rest = group
        many = f" ... {rest[-1].name}, {len(rest) + 1} files" if rest else ""
        size = f", {amount(first.bytes)}" if first.bytes is not None and not rest else ""
        note = first.note or ("" if first.needed else "not needed")
        yield f"  {first.name}{many}{size}{f' ({note})' if note else ''}"
