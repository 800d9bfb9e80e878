"""Notices if a folder is moved or removed while a run writes into it."""

import os
from pathlib import Path

from llama_recipes_local.storage.names import free_path

REMOVED = " (deleted)"
"""What Linux appends to the path of a file that is open and has no name any more."""


class WatchedFolder:
    """A folder that should stay where it is."""

    def __init__(self, folder: Path) -> None:
        """Watch ``folder``, which exists."""
        self.folder = folder.resolve()
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)

    def is_in_place(self) -> bool:
        """Return whether the folder's path still leads to it."""
        try:
            return os.path.samestat(os.stat(self.folder), os.fstat(self._descriptor))
        except OSError:
            return False

    def moved_to(self) -> Path | None:
        """Return where a missing folder is now; None if it was removed."""
        try:
            path = os.readlink(f"/proc/self/fd/{self._descriptor}")
        except OSError:
            return None
        return None if path.endswith(REMOVED) else Path(path)

    def refuge(self) -> Path:
        """Return where to write instead: where it is now, or a folder that is not there yet."""
        moved = self.moved_to()
        return free_path(self.folder) if moved is None else moved

    def fate(self) -> str:
        """Return in words what happened to a missing folder."""
        moved = self.moved_to()
        return f"{self.folder} was {'removed' if moved is None else f'moved to {moved}'}"

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
