"""What a run does if its output folder is moved or removed: it saves elsewhere, and stops."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.parallel import is_rank_zero, world_size
from llama_recipes_local.storage.watched_folder import WatchedFolder
from llama_recipes_local.training.step_sync import any_rank


class LostFolderError(TrainingError):
    """The output folder was moved or removed."""


@dataclass(frozen=True)
class Loss:
    """What happened to an output folder.

    Attributes:
        fate: that it was moved or removed, in words.
        removed: whether what was in it is gone.
        refuge: where to save instead.
    """

    fate: str
    removed: bool
    refuge: Path


class FolderGuard:
    """Watches a run's output folder, on the first rank."""

    def __init__(self, output: Path, enabled: bool) -> None:
        """Watch ``output``, which exists, if ``enabled``."""
        self._enabled = enabled
        self._folder = WatchedFolder(output) if enabled and is_rank_zero() else None

    def loss(self) -> Loss | None:
        """Return what happened to the folder, None if it is in place; all ranks call this."""
        folder = self._folder
        if not self._enabled or not any_rank(folder is not None and not folder.is_in_place()):
            return None
        shared: list[Any] = [None]
        if folder is not None:
            shared = [Loss(folder.fate(), folder.moved_to() is None, folder.refuge())]
        if world_size() > 1:
            dist.broadcast_object_list(shared, src=0)
        found: Loss = shared[0]
        return found

    def close(self) -> None:
        """Stop watching."""
        if self._folder is not None:
            self._folder.close()


def lost_folder(loss: Loss, step: int, steps: int, checkpoint: Path) -> LostFolderError:
    """Return the error that ends a run which was saved elsewhere."""
    return LostFolderError(
        f"stopped after step {step} of {steps}, saved in {checkpoint}\n"
        f"   why: the output folder {loss.fate} while the run wrote into it\n"
        f"   fix: resume with --output_dir {loss.refuge} --resume_from_checkpoint auto"
    )
