"""The files of a checkpoint, and the manifest that shows whether it is complete.

::

    checkpoint-STEP/
        manifest.json               size and sha256 of every other file
        trainer.json                how far the run has come: steps, history, schedule, scaler, data
        identity.json               what a run that resumes from here must share
        run_config.json             every setting, versions, patches
        adapter_model.safetensors   with --use_peft, and adapter_config.json: PEFT's own format
        model/*.safetensors         trained weights, by their names in the model; config.json
        optimizer/*.safetensors     the optimiser's tensors, as NAME/KEY
        random/rank-N.json          a rank's RNG state

The files of tensors are what ``torch.distributed.checkpoint.HuggingFaceStorageReader`` reads: each
rank's shards, with their offsets in the whole tensor.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import Problem, TrainingError, UsageError
from llama_recipes_local.program import command

MANIFEST = "manifest.json"
TRAINER = "trainer.json"
IDENTITY = "identity.json"
RUN_CONFIG = "run_config.json"
WEIGHTS = "model"
MODEL_CONFIG = f"{WEIGHTS}/config.json"
OPTIMIZER = "optimizer"
RANDOM = "random"

FORMAT = 1
"""Incremented when checkpoints written before can no longer be read."""

_NAME = re.compile(r"checkpoint-(\d+)")


class CorruptCheckpointError(TrainingError):
    """A checkpoint does not match its manifest, or holds impossible values; nothing was trained."""

    EXIT_CODE = UsageError.EXIT_CODE


@dataclass(frozen=True)
class FileEntry:
    """A file as it was written: its size in bytes, and its sha256 as hexadecimal text."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        step: optimiser steps done.
        ranks: how many ranks wrote it.
        validation_loss: of a validation at this step; None if there was none.
        files: every other file, by its path in the folder.
        validation_tokens: label tokens of that validation; None if there was none, or it is
            unknown, and then it is not written: earlier versions wrote no such number.
        format: see ``FORMAT``.
    """

    step: int
    ranks: int
    validation_loss: float | None
    files: Mapping[str, FileEntry]
    validation_tokens: int | None = None
    format: int = FORMAT

    def text(self) -> str:
        """Return the manifest as JSON, with its own digest."""
        content = asdict(self)
        if self.validation_tokens is None:
            del content["validation_tokens"]
        digest = hashlib.sha256(_json(content).encode()).hexdigest()
        return _json(content | {"sha256": digest})


def parse_manifest(text: str) -> Manifest:
    """Parse a manifest, which must be byte for byte what ``Manifest.text`` returns.

    Raises:
        ValueError: if it is not a manifest, or was changed.
    """
    try:
        content = json.loads(text)
        entries = {name: FileEntry(**entry) for name, entry in content.pop("files").items()}
        content.pop("sha256")
        manifest = Manifest(files=entries, **content)
        unchanged = manifest.text() == text
        entries_fit = all(map(_fits, entries, entries.values()))
        counted = type(manifest.step) is int and type(manifest.ranks) is int
        fits = entries_fit and counted and manifest.step >= 0 and manifest.ranks > 0
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"is not a manifest ({error})") from error
    if not unchanged:
        raise ValueError("was changed after it was written")
    if manifest.format != FORMAT:
        raise ValueError(f"has format {manifest.format}; this version reads {FORMAT}")
    if not fits:
        raise ValueError("lists what no checkpoint holds")
    return manifest


def _fits(name: str, entry: FileEntry) -> bool:
    """Whether a manifest's entry is of a file in the checkpoint's folder."""
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name
    return inside and type(entry.size) is int and isinstance(entry.sha256, str)


def read_manifest(folder: Path) -> Manifest:
    """Return a checkpoint's manifest.

    Raises:
        CorruptCheckpointError: if it is missing or corrupt, or of another step than the folder.
    """
    path = folder / MANIFEST
    try:
        manifest = parse_manifest(_read(path))
    except FileNotFoundError:
        raise CorruptCheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CorruptCheckpointError(f"{path} {error}") from error
    if step_of(folder) not in (None, manifest.step):
        raise CorruptCheckpointError(f"{path} is of step {manifest.step}: the folder was renamed")
    return manifest


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of a checkpoint, which may be of any type.

    Raises:
        CorruptCheckpointError: if it cannot be read.
    """
    try:
        return json.loads(_read(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"{path} cannot be read: {error}") from error


def _read(path: Path) -> str:
    """Return a file's text; a pipe in its place would be waited for."""
    if path.exists() and not path.is_file():
        raise OSError("is not a file")
    return path.read_text("utf-8")


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint, whatever its name, complete or not."""
    return (folder / MANIFEST).is_file()


def check_converted(folder: Path, flag: str) -> list[Problem]:
    """Return a problem if a checkpoint of full weights was named where a model's folder is needed.

    Args:
        folder: the folder that was named.
        flag: the flag that named it.
    """
    weights = folder / WEIGHTS
    if not is_checkpoint(folder) or not any(weights.glob("*.safetensors")):
        return []
    made = command("convert", folder, "--out", "DIR")
    return [
        Problem(
            f"{flag} {folder} is a checkpoint, not a model's folder",
            f"its weights are in {weights}, in the shards that a run is resumed from",
            f"{made} makes a model of it, which is named instead: {flag} DIR",
        )
    ]


def folder_of(output: Path, step: int) -> Path:
    """Return the folder of the checkpoint after ``step`` steps."""
    return output / f"checkpoint-{step}"


def step_of(folder: Path) -> int | None:
    """Return the step that a checkpoint's folder is named for; None if it is not a checkpoint's."""
    matched = _NAME.fullmatch(folder.name)
    return int(matched[1]) if matched else None


def checkpoints_in(output: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, complete or not, newest first."""
    found = [path for path in output.glob("checkpoint-*") if step_of(path) is not None]
    return sorted((path for path in found if path.is_dir()), key=lambda path: -(step_of(path) or 0))


def _json(content: object) -> str:
    return json.dumps(content, indent=1, sort_keys=True)
