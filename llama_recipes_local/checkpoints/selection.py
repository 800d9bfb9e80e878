"""Which checkpoint a run goes on from."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from llama_recipes_local.checkpoints import layout, verifying
from llama_recipes_local.checkpoints.layout import DamagedError
from llama_recipes_local.parallel import world_size

AUTO = "auto"


def choose(train_config: Any) -> Path | None:
    """Return the checkpoint that ``resume_from_checkpoint`` means, whole; None to start afresh.

    What "auto" passes over is said, and so is that there is none. All ranks call this together.

    Raises:
        DamagedError: if the one that was named is damaged.
    """
    asked = train_config.resume_from_checkpoint
    if not asked:
        return None
    if asked != AUTO:
        return _named(Path(asked))
    output = Path(train_config.output_dir)
    for folder in _first_ranks(layout.checkpoints_in(output)):
        try:
            verifying.check_together(folder)
        except DamagedError as error:
            print(f"--> {folder.name} is passed over, for it is damaged: {error}")
            continue
        return folder
    print(f"--> there is no checkpoint in {output.resolve()}: training starts afresh")
    return None


def likely(train_config: Any) -> Path | None:
    """Return the checkpoint that ``choose`` will most likely return, without reading it."""
    asked = train_config.resume_from_checkpoint
    if not asked or asked != AUTO:
        return Path(asked) if asked else None
    for folder in layout.checkpoints_in(Path(train_config.output_dir)):
        try:
            verifying.check_sizes(folder)
        except DamagedError:
            continue
        return folder
    return None


def is_in(output: Path, folder: Path) -> bool:
    """Whether a checkpoint is in a run's own folder, so that the run there goes on."""
    return folder.resolve().parent == output.resolve()


def last_whole(output: Path) -> Path | None:
    """Return the newest checkpoint of a folder that is whole; it is read to find out."""
    for folder in layout.checkpoints_in(output):
        try:
            verifying.check(folder)
        except DamagedError:
            continue
        return folder
    return None


def instead(folder: Path) -> str:
    """Tell what to give in place of a damaged checkpoint, or of a run's folder with some in it."""
    whole = last_whole(folder) or last_whole(folder.resolve().parent)
    return f"--resume_from_checkpoint {whole}" if whole else "start afresh in another --output_dir"


def _named(folder: Path) -> Path:
    try:
        verifying.check_together(folder)
    except DamagedError as error:
        raise DamagedError(
            f"{folder} cannot be gone on from: {error}\n   fix: {instead(folder)}"
        ) from error
    return folder


def _first_ranks(folders: list[Path]) -> list[Path]:
    """Return what the first rank found, for ranks may look at different moments."""
    if world_size() == 1:
        return folders
    said: list[Any] = [folders]
    dist.broadcast_object_list(said, src=0)
    return said[0]
