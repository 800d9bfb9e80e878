"""Reads a member of a 7z archive into memory; an archive that could do harm is refused.

Nothing is written to disk. An archive is refused if it has a link or another special file, a path
that leads outside, a name twice or a password, or if it unpacks to too much: by its header, and
while it is unpacked.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import py7zr
from py7zr.io import Py7zIO, WriterFactory
from py7zr.py7zr import ArchiveFile

from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.source import Source, unreadable

# The most bytes that all members of an archive may unpack to: SAMSum's are 11 MB.
LARGEST_CONTENT = 256 << 20


def members(path: Path) -> list[str]:
    """Return the names of the files that an archive holds.

    Raises:
        UsageError: if the archive is empty or corrupt, or could do harm.
    """
    with _opened(path) as archive:
        return [file.filename for file in archive.files if not file.is_directory]


def read_member(path: Path, name: str) -> bytes:
    """Return the content of a member of an archive.

    Raises:
        UsageError: if the archive is empty or corrupt, could do harm, or has no such member.
    """
    with _opened(path) as archive:
        held = [file.filename for file in archive.files if not file.is_directory]
        if name not in held:
            raise refusal(f"{path} holds no {name}", f"it holds {join_names(held)}")
        memory = _Memory(path, name)
        archive.extract(targets=[name], factory=memory)
        return bytes(memory.content)


class _Memory(WriterFactory, Py7zIO):
    """Receives the one member that is unpacked, up to the limit of an archive."""

    def __init__(self, path: Path, name: str) -> None:
        self.content = bytearray()
        self._path = path
        self._name = name

    def create(self, filename: str) -> Py7zIO:
        if filename != self._name:
            raise refusal(f"{self._path} unpacks {filename}", f"only {self._name} was asked for")
        return self

    def write(self, s: bytes | bytearray) -> int:
        if len(self.content) + len(s) > LARGEST_CONTENT:
            raise _too_large(self._path, f"{self._name} is longer than that")
        self.content += s
        return len(s)

    def read(self, size: int | None = None) -> bytes:
        return bytes(self.content[:size])

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0  # a member is written once, from its beginning

    def flush(self) -> None: ...

    def size(self) -> int:
        return len(self.content)


@contextmanager
def _opened(path: Path) -> Iterator[py7zr.SevenZipFile]:
    """Open an archive that has passed every check of its header."""
    try:
        # given a file, not a name, py7zr unpacks in this thread
        with path.open("rb") as file, py7zr.SevenZipFile(file, "r") as archive:
            _check(path, archive)
            yield archive
    except UsageError:
        raise
    except py7zr.exceptions.PasswordRequired as error:
        raise _locked(path) from error
    except Exception as error:  # on corrupt bytes the parser raises whatever error comes first
        raise unreadable(Source(path), error) from error


def _check(path: Path, archive: py7zr.SevenZipFile) -> None:
    files = list(archive.files)
    if archive.needs_password():
        raise _locked(path)
    if not any(not file.is_directory for file in files):
        raise refusal(f"{path} is empty", "the archive holds no file", "download it again")
    special = [file.filename for file in files if _is_special(file)]
    if special:
        raise _harmful(path, f"{join_names(special)} is a link or another special file")
    outside = [file.filename for file in files if _leads_outside(file.filename)]
    if outside:
        raise _harmful(path, f"{join_names(outside)} leads outside the folder it is unpacked in")
    twice = [name for name, times in Counter(file.filename for file in files).items() if times > 1]
    if twice:
        raise _harmful(path, f"{join_names(twice)} is in it more than once")
    size = sum(file.uncompressed for file in files)
    if size > LARGEST_CONTENT:
        raise _too_large(path, f"its header says {size} bytes")


def _is_special(file: ArchiveFile) -> bool:
    return file.is_symlink or file.is_junction or not (file.is_file or file.is_directory)


def _leads_outside(name: str) -> bool:
    windows = PureWindowsPath(name)
    absolute = PurePosixPath(name).is_absolute() or windows.root or windows.drive
    return bool(absolute) or ".." in windows.parts


def _harmful(path: Path, why: str) -> UsageError:
    return refusal(f"{path} is not read", why, "get the archive from where it is published")


def _too_large(path: Path, why: str) -> UsageError:
    what = f"{path} unpacks to more than {LARGEST_CONTENT} bytes"
    return refusal(what, why, "get the archive from where it is published")


def _locked(path: Path) -> UsageError:
    return refusal(f"{path} has a password", "it cannot be read without it", "unpack it yourself")
