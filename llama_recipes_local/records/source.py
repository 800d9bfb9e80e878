"""A data file, or a member of an archive, and its compression by name."""

import os
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.errors import Problem, UsageError, refusal

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4")


@dataclass(frozen=True)
class Source:
    """A data file, or a member of a zip or 7z archive.

    Attributes:
        path: the file or the archive.
        member: the member's name in the archive; empty for a file.
        encoding: of its text; Python's name of it.
        split: the key of the rows in a JSON file of several splits; empty for any other.
    """

    path: Path
    member: str = ""
    encoding: str = "utf-8"
    split: str = ""

    def __str__(self) -> str:
        if self.split:
            return f"{self.split!r} in {self.path}"
        return f"{self.member} in {self.path}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The name whose suffix is that of the format."""
        return self.member or self.path.name


def compression(name: str) -> str:
    """Return the suffix of a file's compression; empty if it is not compressed."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if suffix in COMPRESSIONS else ""


def is_seven_zip(path: Path) -> bool:
    """Return whether a path's name is that of a 7z archive."""
    return path.suffix.lower() == ".7z"


class EncodingError(UsageError):
    """A file's text is in another encoding than it was read in.

    Attributes:
        guess: the encoding that it is probably in; empty if it is unknown.
    """

    def __init__(self, problem: Problem, guess: str) -> None:
        self.guess = guess
        super().__init__([problem])


def unreadable(source: Source, error: Exception) -> UsageError:
    """Return the error for a file that is truncated, corrupt or not permitted to be read."""
    what = f"{source} cannot be read"
    if isinstance(error, PermissionError):
        return refusal(what, "permission denied", "have its owner allow it to be read")
    fix = "download it again, or unpack it with the program that packed it"
    return refusal(what, str(error) or type(error).__name__, fix)
