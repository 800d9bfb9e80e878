"""Retention: how many of a run's checkpoints are kept."""

import shutil
from pathlib import Path

from llama_recipes_local.checkpoints import layout
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError, Manifest
from llama_recipes_local.storage import publishing
from llama_recipes_local.storage.names import free_path


def remove_surplus(output: Path, limit: int, keep: Path | None = None) -> None:
    """Remove the oldest checkpoints beyond ``limit``, but never the last or the best.

    The best is the one with the lowest validation loss among those saved right after a validation
    of as many label tokens as the latest one: losses on other batches cannot be compared. A folder
    without a readable manifest is neither counted nor removed.

    Args:
        output: the run's folder.
        limit: how many to keep; 0 means all. The best is kept in addition.
        keep: one that is not removed: a run that resumes from it may have skipped newer ones.
    """
    if not limit:
        return
    manifests = _readable(output)
    best = _best(manifests)
    for folder in list(manifests)[max(limit, 1) :]:
        if folder != best and (keep is None or folder.resolve() != keep.resolve()):
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint: renamed first, so that a partly removed one is never read."""
    doomed = folder.with_name(f".{folder.name}.old")
    publishing.remove(doomed)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def set_aside_newer(output: Path, step: int) -> None:
    """Rename the checkpoints after a step that a run was resumed at, and say so.

    They were skipped as corrupt. Under their names they would count as this run's newest, and be
    kept in place of what it saves.

    Args:
        output: the run's folder.
        step: the step; -1 for a run that starts from scratch.
    """
    for folder in reversed(layout.checkpoints_in(output)):
        if (layout.step_of(folder) or 0) > step:
            aside = free_path(folder.with_name(f"skipped-{folder.name}"))
            folder.rename(aside)
            print(
                f"--> {folder.name} is not part of this run any more: renamed to {aside.name}, "
                "which you may remove"
            )


def remove_leftovers(output: Path) -> None:
    """Remove what interrupted saves and removals left."""
    for left in output.glob(".checkpoint-*"):
        if left.suffix in (".incomplete", ".old"):
            publishing.remove(left)


def _best(manifests: dict[Path, Manifest]) -> Path | None:
    """Return the checkpoint with the lowest loss on the batches that were validated on last.

    Args:
        manifests: by their folders, newest first.
    """
    validated = {
        folder: (manifest.validation_loss, manifest.validation_tokens)
        for folder, manifest in manifests.items()
        if manifest.validation_loss is not None
    }
    latest = next((tokens for _, tokens in validated.values()), None)
    losses = {folder: loss for folder, (loss, tokens) in validated.items() if tokens == latest}
    return min(losses, key=lambda folder: losses[folder], default=None)


def _readable(output: Path) -> dict[Path, Manifest]:
    """Return the manifests of a run's checkpoints, newest first."""
    found = {}
    for folder in layout.checkpoints_in(output):
        try:
            found[folder] = layout.read_manifest(folder)
        except CorruptCheckpointError:
            continue
    return found
