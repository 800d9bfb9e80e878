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
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_recipes_local.errors import Problem, TrainingError

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
    """A checkpoint does not match its manifest."""


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
        format: see ``FORMAT``.
    """

    step: int
    ranks: int
    validation_loss: float | None
    files: Mapping[str, FileEntry]
    format: int = FORMAT

    def text(self) -> str:
        """Return the manifest as JSON, with its own digest."""
        content = asdict(self)
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"is not a manifest ({error})") from error
    if not unchanged:
        raise ValueError("was changed after it was written")
    if manifest.format != FORMAT:
        raise ValueError(f"has format {manifest.format}; this version reads {FORMAT}")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return a checkpoint's manifest.

    Raises:
        CorruptCheckpointError: if it is missing or corrupt.
    """
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CorruptCheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CorruptCheckpointError(f"{path} {error}") from error


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
    command = f"llama-recipes-local convert {shlex.quote(str(folder))} --out DIR"
    return [
        Problem(
            f"{flag} {folder} is a checkpoint, not a model's folder",
            f"its weights are in {weights}, in the shards that a run is resumed from",
            f"{command} makes a model of it, which is named instead: {flag} DIR",
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
