"""Retention: how many checkpoints of a run are kept."""

import shutil
from pathlib import Path

from llama_recipes_local.checkpoints import layout
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError, Manifest
from llama_recipes_local.storage import publishing


def remove_surplus(output: Path, limit: int, keep: Path | None = None) -> None:
    """Remove the oldest checkpoints beyond ``limit``, but never the last or the best.

    The best is the one with the lowest validation loss among those saved right after a
    validation. A folder without a readable manifest is neither counted nor removed.

    Args:
        output: the run's folder.
        limit: how many to keep; 0 means all. The best is kept in addition.
        keep: one that is not removed: a run that resumes from it may have skipped newer ones.
    """
    if not limit:
        return
    manifests = _readable(output)
    losses = {
        folder: manifest.validation_loss
        for folder, manifest in manifests.items()
        if manifest.validation_loss is not None
    }
    best = min(losses, key=lambda folder: losses[folder], default=None)
    for folder in list(manifests)[max(limit, 1) :]:
        if folder != best and (keep is None or folder.resolve() != keep.resolve()):
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint: renamed first, so that a partly removed one is never read."""
    doomed = folder.with_name(f".{folder.name}.old")
    publishing.remove(doomed)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(output: Path) -> None:
    """Remove what interrupted saves and removals left."""
    for left in output.glob(".checkpoint-*"):
        if left.suffix in (".incomplete", ".old"):
            publishing.remove(left)


def _readable(output: Path) -> dict[Path, Manifest]:
    """Return the manifests of a run's checkpoints, newest first."""
    found = {}
    for folder in layout.checkpoints_in(output):
        try:
            found[folder] = layout.read_manifest(folder)
        except CorruptCheckpointError:
            continue
    return found
