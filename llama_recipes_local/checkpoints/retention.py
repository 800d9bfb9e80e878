"""How many checkpoints of a run are kept."""

import shutil
from pathlib import Path

from llama_recipes_local.checkpoints import layout
from llama_recipes_local.checkpoints.layout import DamagedError, Manifest


def remove_surplus(output: Path, limit: int) -> None:
    """Remove the oldest checkpoints beyond ``limit``, but never the last or the best.

    The best is the one with the lowest validation loss of those that were saved right after a
    validation. A folder without a readable manifest is not counted and not touched.

    Args:
        output: the run's folder.
        limit: how many to keep; 0 means all. One more is kept where that is the best.
    """
    if not limit:
        return
    whole = _readable(output)
    losses = {
        folder: manifest.validation_loss
        for folder, manifest in whole.items()
        if manifest.validation_loss is not None
    }
    best = min(losses, key=lambda folder: losses[folder], default=None)
    for folder in list(whole)[max(limit, 1) :]:
        if folder != best:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint; one that is removed in part has no name that anything reads."""
    doomed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(output: Path) -> None:
    """Remove what saves and removals left that were cut off."""
    for left in output.glob(".checkpoint-*"):
        if left.suffix in (".incomplete", ".old"):
            shutil.rmtree(left, ignore_errors=True)


def _readable(output: Path) -> dict[Path, Manifest]:
    """Return the manifests of a run's checkpoints, the newest first."""
    found = {}
    for folder in layout.checkpoints_in(output):
        try:
            found[folder] = layout.read_manifest(folder)
        except DamagedError:
            continue
    return found
