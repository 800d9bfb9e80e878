"""``custody.json``, the manifest beside a result: the steps that made it, from first to last."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import door, refusal
from llama_recipes_local.run.record import CUSTODY_FILE, SIGNATURE, find_in_run
from llama_recipes_local.storage.publishing import write_text

FORMAT = 1
"""Incremented when manifests written before can no longer be read."""
CHANGED = "its own sha256 is not that of its content"


@dataclass(frozen=True)
class Files:
    """Files of a folder.

    Attributes:
        folder: its path.
        files: the sha256 of each by its path in the folder, in the order in which they are read.
    """

    folder: str
    files: dict[str, str]


@dataclass(frozen=True)
class Step:
    """A command that made a result.

    Attributes:
        command: its name, such as "finetune" or "merge".
        directory: the working directory, from which relative paths start.
        flags: the flags that repeat it, by name, without those that name output folders.
        settings: every setting that followed from them, by configuration.
        inputs: files that were read, by what they are: a flag, or a part of the data.
        code: version and hash of this package, and its commit in a checkout.
        upstream: the lock, the patches and the hash of the patched copy of llama-recipes.
        packages: versions of the packages that were imported, by their names.
        machine: the facts about the machine that affect numbers, and the number of ranks.
        results: files that were written, by what they are; none before the end.
        resumed_from: the checkpoint that a run resumed from; "" if it began at the beginning.
        earlier: the earlier part of a resumed run, as far as its folder has a manifest.
    """

    command: str
    directory: str
    flags: dict[str, Any]
    settings: dict[str, Any]
    inputs: dict[str, Files]
    code: dict[str, str]
    upstream: dict[str, Any]
    packages: dict[str, str]
    machine: dict[str, Any]
    results: dict[str, Files] = field(default_factory=dict)
    resumed_from: str = ""
    earlier: "list[Step]" = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What ``custody.json`` holds.

    Attributes:
        path: of the file.
        steps: the commands that made the result, the last one last.
        intact: whether the file is unchanged since it was written.
    """

    path: Path
    steps: list[Step]
    intact: bool


def write_manifest(path: Path, steps: Sequence[Step]) -> None:
    """Write a manifest with its own digest, and remove the signature of an earlier one."""
    content = {"format": FORMAT, "steps": [asdict(step) for step in steps]}
    content["sha256"] = _digest(content)
    path.with_name(f"{path.name}{SIGNATURE}").unlink(missing_ok=True)
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(path: Path) -> Manifest:
    """Return what a manifest holds.

    Raises:
        UsageError: if the file is not a manifest.
    """
    fix = "copy it again from where the result was made"
    with door(f"{path} is not the manifest of a result", fix):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it is {content!r:.60}, not an object")
        digest, format_ = content.pop("sha256", ""), content["format"]
        if format_ != FORMAT:
            raise refusal(f"{path} has format {format_}", f"this version reads {FORMAT}", fix)
        steps = [_step(each) for each in content["steps"]]
        if not steps:
            raise ValueError("it has no steps")
        return Manifest(path, steps, digest == _digest(content))


def find_manifest(folder: Path) -> Path | None:
    """Return the manifest of a result's folder; of a checkpoint it is in the folder above."""
    return find_in_run(folder, CUSTODY_FILE)


def with_results(step: Step, results: Mapping[str, Files]) -> Step:
    """Return a finished step: with its results."""
    return replace(step, results=dict(results))


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _step(content: dict[str, Any]) -> Step:
    """Return a step from JSON, with values of the types that it declares.

    Raises:
        ValueError: if it is not a step.
    """
    inputs, results = (
        {str(key): _files(each) for key, each in content[name].items()}
        for name in ("inputs", "results")
    )
    earlier = [_step(each) for each in content["earlier"]]
    step = Step(**content | {"inputs": inputs, "results": results, "earlier": earlier})
    texts = (step.command, step.directory, step.resumed_from)
    tables = (step.flags, step.settings, step.code, step.upstream, step.packages, step.machine)
    if not all(isinstance(each, str) for each in texts):
        raise ValueError("a command or folder in it is not text")
    if not all(isinstance(each, dict) for each in tables):
        raise ValueError("what should be a table is none")
    return step


def _files(content: dict[str, Any]) -> Files:
    found = Files(**content)
    if not all(isinstance(each, str) for each in (found.folder, *found.files.values())):
        raise ValueError("a hash in it is not text")
    return found
