"""Hashes of files' contents, cached for as long as a file looks unchanged."""

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from llama_recipes_local.storage.publishing import write_text

BLOCK = 1 << 22
ENDS = 1 << 20  # bytes that ends_hash reads at either end of a file
# A file that is written within its clock's tick of being hashed looks unchanged, but is not.
SETTLED_SECONDS = 2.0


class FileHashes:
    """sha256 of files; a file with the same path, size and times is not read again.

    A file with other times is read again; its hash is the same if its content is.
    """

    def __init__(self, memory: Path) -> None:
        """Keep the cache in the file ``memory``, which may be missing or corrupt."""
        self._memory = memory
        self._known: dict[str, list[int | str]] = _read(memory)

    def of(self, paths: Iterable[Path]) -> list[str]:
        """Return the hash of each file's contents, as hexadecimal text."""
        known = dict(self._known)
        try:
            return [self._of(path) for path in paths]
        finally:  # once, also for what was hashed before an interruption
            if self._known != known:
                self._save()

    def _of(self, path: Path) -> str:
        place = str(path.resolve())
        before = _look(path)
        known = self._known.get(place)
        if known and known[:-1] == before:
            return str(known[-1])
        digest = contents_hash(path)
        if before == _look(path) and time.time() - path.stat().st_mtime > SETTLED_SECONDS:
            self._known[place] = [*before, digest]
        return digest

    def _save(self) -> None:
        with suppress(OSError):  # a hash that is not cached is computed again
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._memory, json.dumps(self._known), shared=True)


def contents_hash(path: Path) -> str:
    """Return the sha256 of a file's contents, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def ends_hash(paths: Iterable[Path]) -> str:
    """Return a sha256 of files' names, sizes, first and last bytes: large files are not read whole.

    Args:
        paths: the files, in an order that is the same everywhere.
    """
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(size - ENDS, 0))
            digest.update(file.read(ENDS))
    return digest.hexdigest()


def _look(path: Path) -> list[int | str]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(memory: Path) -> dict[str, list[int | str]]:
    try:
        known = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
