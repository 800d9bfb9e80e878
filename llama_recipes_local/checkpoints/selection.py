"""Which checkpoint a run resumes from."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from llama_recipes_local import configs
from llama_recipes_local.checkpoints import layout, verifying
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError
from llama_recipes_local.parallel import world_size

AUTO = "auto"


def select(train_config: configs.train_config) -> Path | None:
    """Return the checkpoint that ``resume_from_checkpoint`` means, or None to start from scratch.

    It prints what "auto" skips, and that there is none. All ranks call this together.

    Raises:
        CorruptCheckpointError: if the one that was named is corrupt.
    """
    asked = train_config.resume_from_checkpoint
    if not asked:
        return None
    if asked != AUTO:
        return _named(Path(asked), Path(train_config.output_dir))
    output = Path(train_config.output_dir)
    for folder in _first_ranks(layout.checkpoints_in(output)):
        try:
            verifying.verify_together(folder)
        except CorruptCheckpointError as error:
            print(f"--> {folder.name} skipped: corrupt ({error})")
            continue
        return folder
    print(f"--> no checkpoint in {output.resolve()}: starting from scratch")
    return None


def expected(train_config: configs.train_config) -> Path | None:
    """Return the checkpoint that ``select`` most likely returns, without reading its tensors."""
    asked = train_config.resume_from_checkpoint
    if not asked or asked != AUTO:
        return Path(asked) if asked else None
    for folder in layout.checkpoints_in(Path(train_config.output_dir)):
        try:
            verifying.check_quickly(folder)
        except CorruptCheckpointError:
            continue
        return folder
    return None


def is_in(output: Path, folder: Path) -> bool:
    """Whether a checkpoint is in a run's own folder, so that resuming continues that run."""
    return folder.resolve().parent == output.resolve()


def newest_intact(output: Path) -> Path | None:
    """Return the newest intact checkpoint of a folder, which is read to find out."""
    for folder in layout.checkpoints_in(output):
        try:
            verifying.verify(folder)
            verifying.check_quickly(folder)
        except CorruptCheckpointError:
            continue
        return folder
    return None


def alternative(folder: Path, output: Path) -> str:
    """Return what to do in place of a corrupt checkpoint, or of a run's folder with some in it.

    Args:
        folder: the one that was named.
        output: where the run would write.
    """
    intact = newest_intact(folder) or newest_intact(folder.resolve().parent)
    if intact is None:
        return "start from scratch in another --output_dir, without --resume_from_checkpoint"
    if is_in(output, intact):  # by its name it would be refused beside a newer one, however corrupt
        return f"--resume_from_checkpoint {AUTO}, which resumes from {intact}"
    elsewhere = " with another --output_dir" if layout.checkpoints_in(output) else ""
    return f"--resume_from_checkpoint {intact}{elsewhere}"


def _named(folder: Path, output: Path) -> Path:
    try:
        verifying.verify_together(folder)
    except CorruptCheckpointError as error:
        raise CorruptCheckpointError(
            f"{folder} cannot be resumed from: {error}\n   fix: {alternative(folder, output)}"
        ) from error
    return folder


def _first_ranks(folders: list[Path]) -> list[Path]:
    """Return what the first rank found, because ranks may look at different moments."""
    if world_size() == 1:
        return folders
    shared: list[Any] = [folders]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]
