"""What is where in a checkpoint, and the manifest that tells whether it is whole.

::

    checkpoint-STEP/
        manifest.json               size and sha256 of every other file
        trainer.json                how far the run is: steps, history, schedule, scaler, data
        identity.json               what a run that goes on from here must share
        run_config.json             every setting, versions, patches
        adapter_model.safetensors   with --use_peft, and adapter_config.json: PEFT's own format
        model/*.safetensors         trained weights, by their names in the model; config.json
        optimizer/*.safetensors     the optimiser's tensors, as NAME/KEY
        random/rank-N.json          states of a rank's random generators

The files of tensors are what ``torch.distributed.checkpoint.HuggingFaceStorageReader`` reads: each
rank's pieces, with their places in the whole.
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
"""Counts up when checkpoints that were written before can no longer be read."""

_NAME = re.compile(r"checkpoint-(\d+)")


class DamagedError(TrainingError):
    """A checkpoint is not what its manifest says."""


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
        validation_loss: of a validation at this very step; None if there was none.
        files: every other file, by its path in the folder.
        format: see ``FORMAT``.
    """

    step: int
    ranks: int
    validation_loss: float | None
    files: Mapping[str, FileEntry]
    format: int = FORMAT

    def text(self) -> str:
        """Return the manifest as it is written, with a digest of itself."""
        content = asdict(self)
        digest = hashlib.sha256(_json(content).encode()).hexdigest()
        return _json(content | {"sha256": digest})


def parse_manifest(text: str) -> Manifest:
    """Return the manifest that ``text`` is, byte for byte.

    Raises:
        ValueError: if it is none, or not as it was written.
    """
    try:
        content = json.loads(text)
        entries = {name: FileEntry(**entry) for name, entry in content.pop("files").items()}
        content.pop("sha256")
        manifest = Manifest(files=entries, **content)
        unchanged = manifest.text() == text
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"is no manifest ({error})") from error
    if not unchanged:
        raise ValueError("is not as it was written")
    if manifest.format != FORMAT:
        raise ValueError(f"is of format {manifest.format}, this version reads {FORMAT}")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return a checkpoint's manifest.

    Raises:
        DamagedError: if there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} {error}") from error


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder is a ``checkpoint-STEP``, whatever it is named, whole or not."""
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
    """Return the step that a checkpoint's folder is named for; None if it is no checkpoint's."""
    matched = _NAME.fullmatch(folder.name)
    return int(matched[1]) if matched else None


def checkpoints_in(output: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, whole or not, the newest first."""
    found = [path for path in output.glob("checkpoint-*") if step_of(path) is not None]
    return sorted((path for path in found if path.is_dir()), key=lambda path: -(step_of(path) or 0))


def _json(content: object) -> str:
    return json.dumps(content, indent=1, sort_keys=True)
