"""Reads the lines of text files one at a time, compressed ones and members of zip archives too.

Nothing is unpacked to disk or held in memory but the line at hand. What cannot be read is a
``UsageError`` that names the file and the line or byte.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from llama_recipes_local.errors import Problem, UsageError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4")
# A sentence has some hundred bytes. A file without line ends must not be read into memory whole.
LONGEST_LINE = 1 << 20

_UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    RuntimeError,  # a zip member with a password
    NotImplementedError,  # a zip member packed in a way that zipfile does not know
)


@dataclass(frozen=True)
class Source:
    """A data file, or a member of a zip archive.

    Attributes:
        path: the file or the archive.
        member: the member's name in the archive; empty for a file.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.member} in {self.path}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The name that tells the format."""
        return self.member or self.path.name


def text_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Yield each line's number, from 1, and its text with its line end; UTF-8, BOM or not."""
    offset = 0
    number = 0
    with _opened(source) as file:
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise refusal(
                    f"line {number} of {source} is longer than {LONGEST_LINE} bytes",
                    "a record is a sentence or two, so this is not the format its name tells",
                    "name a file of another format, or break its lines",
                )
            yield number, _decoded(line, offset, number, source)
            offset += len(line)


def without_end(line: str) -> str:
    """Return a line without its line end."""
    return line.removesuffix("\n").removesuffix("\r")


def compression(name: str) -> str:
    """Return the suffix that tells how a file is compressed; empty if it is not."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in COMPRESSIONS else ""


def zip_members(path: Path) -> list[str]:
    """Return the names of what a zip archive holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _UNREADABLE as error:
        raise unreadable(Source(path), error) from error


def refusal(what: str, why: str, mend: str = "mend it") -> UsageError:
    """Return the error for one thing that cannot be used."""
    return UsageError([Problem(what, why, mend)])


def unreadable(source: Source, error: Exception) -> UsageError:
    """Return the error for a file that is cut off, damaged or not allowed to be read."""
    return refusal(
        f"{source} cannot be read",
        str(error) or type(error).__name__,
        "download it again, or unpack it with the program that packed it",
    )


def _decoded(line: bytes, offset: int, number: int, source: Source) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        unpacked = " when unpacked" if source.member or compression(source.name) else ""
        raise refusal(
            f"byte {offset + error.start}{unpacked} of {source}, in line {number}, is not UTF-8",
            f"it is 0x{line[error.start]:02x}: {error.reason}",
            "save it as UTF-8, for example with iconv -f ENCODING -t UTF-8",
        ) from error
    return text.removeprefix("\ufeff") if number == 1 else text


@contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    """Open a file or a member of an archive, unpacked as it is read."""
    with ExitStack() as stack:
        try:
            if source.member:
                archive = stack.enter_context(zipfile.ZipFile(source.path))
                packed: IO[bytes] = stack.enter_context(archive.open(source.member))
            else:
                packed = stack.enter_context(source.path.open("rb"))
            unpacked = stack.enter_context(_unpacked(packed, compression(source.name)))
            yield stack.enter_context(io.BufferedReader(unpacked))
        except _UNREADABLE as error:
            raise unreadable(source, error) from error


def _unpacked(packed: IO[bytes], suffix: str) -> Any:
    """Return a raw stream of what a compressed stream holds."""
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=packed)
    if suffix == ".bz2":
        return bz2.BZ2File(packed)
    if suffix == ".xz":
        return lzma.LZMAFile(packed)
    if suffix:
        import pyarrow as pa  # type: ignore[import-untyped]

        codec = {".zst": "zstd", ".lz4": "lz4"}[suffix]
        return pa.CompressedInputStream(pa.PythonFile(packed), codec)
    return packed
