"""Reads the lines of text files one at a time, also of compressed files and members of archives.

Nothing is unpacked to disk, and no more than one line is held in memory, or the member of a 7z
archive. What cannot be read is a ``UsageError`` that names the file and the line or byte.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import IO, Any

from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.records.encodings import SAMPLE, UTF_8, as_utf_8, guess
from llama_recipes_local.records.source import (
    EncodingError,
    Source,
    compression,
    is_seven_zip,
    unreadable,
)

BYTE_ORDER_MARK = "\ufeff"
# A file without line ends must not be read into memory at once. A sentence has some hundred bytes;
# a record to train on may be a book.
LONGEST_LINE = 1 << 20
LONGEST_RECORD = 1 << 26

BUFFER = 1 << 17  # a small one halves the speed for compressed files

_UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    RuntimeError,  # a zip member with a password
    NotImplementedError,  # a zip member with a compression that zipfile does not support
)


def text_lines(source: Source, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """Yield each line's number, from 1, and its text with its line end; UTF-8, BOM or not.

    Args:
        source: what to read.
        longest: the most bytes of a line.

    Raises:
        UsageError: at the first line that is too long or not UTF-8, or if the file is corrupt.
    """
    offset = 0
    with opened(source) as file:
        readline = file.readline
        for number in count(1):
            line = readline(longest + 1)
            if not line:
                return
            if len(line) > longest:
                raise refusal(
                    f"line {number} of {source} is longer than {longest} bytes",
                    "a line is a record, so this is not the format of its name",
                    "name a file of another format, or break its lines",
                )
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _not_utf_8(error, offset, number, source) from error
            yield number, text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text
            offset += len(line)


def whole_text(source: Source) -> str:
    """Return all of a file's text; UTF-8, BOM or not.

    Raises:
        UsageError: if it is not UTF-8, or the file is corrupt.
    """
    with opened(source) as file:
        content = file.read()
    try:
        return content.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _not_utf_8(error, 0, line, source) from error


def without_end(line: str) -> str:
    """Return a line without its line end."""
    return line.removesuffix("\n").removesuffix("\r")


def zip_members(path: Path) -> list[str]:
    """Return the names of a zip archive's members."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _UNREADABLE as error:
        raise unreadable(Source(path), error) from error


def _not_utf_8(error: UnicodeDecodeError, offset: int, number: int, source: Source) -> UsageError:
    """Return the error for a byte; ``offset`` is where in the file the decoded part begins."""
    unpacked = " when unpacked" if source.member or compression(source.name) else ""
    why = f"it is 0x{error.object[error.start]:02x}: {error.reason}"
    sample = beginning(source)
    if offset + error.start >= len(sample):
        sample += error.object[:SAMPLE]
    found = "" if _is_mostly_utf_8(sample) else guess(sample)
    if found:
        text = sample[:SAMPLE].decode(found, "replace").removeprefix(BYTE_ORDER_MARK)
        why += f"; read as {found} the file begins {text[:40]!r}"
    return EncodingError(
        Problem(
            f"byte {offset + error.start}{unpacked} of {source}, in line {number}, is not UTF-8",
            why,
            f"save it as UTF-8, for example with iconv -f {found or 'ENCODING'} -t UTF-8",
        ),
        found,
    )


def _is_mostly_utf_8(sample: bytes) -> bool:
    text = sample.decode(errors="replace")
    wrong = text.count("\ufffd")
    return sum(not letter.isascii() for letter in text) - wrong > wrong


def beginning(source: Source) -> bytes:
    """Return the first bytes of a file or member, uncompressed, in whatever encoding."""
    with opened(replace(source, encoding=UTF_8)) as file:
        return file.read(SAMPLE)


@contextmanager
def opened(source: Source) -> Iterator[IO[bytes]]:
    """Open a file or a member of an archive, uncompressed, and in UTF-8, while it is read.

    Raises:
        UsageError: if it is missing, corrupt or not permitted to be read, also while it is read.
    """
    with ExitStack() as stack:
        try:
            packed = _compressed(source, stack)
            unpacked = stack.enter_context(_unpacked(packed, compression(source.name)))
            if source.encoding != UTF_8:
                unpacked = as_utf_8(io.BufferedReader(unpacked, BUFFER), source.encoding, source)
            yield stack.enter_context(io.BufferedReader(unpacked, BUFFER))
        except _UNREADABLE as error:
            raise unreadable(source, error) from error


def _compressed(source: Source, stack: ExitStack) -> IO[bytes]:
    if source.member and is_seven_zip(source.path):
        from llama_recipes_local.records.seven_zip import read_member

        return io.BytesIO(read_member(source.path, source.member))
    if source.member:
        archive = stack.enter_context(zipfile.ZipFile(source.path))
        return stack.enter_context(archive.open(source.member))
    return stack.enter_context(source.path.open("rb"))


def _unpacked(packed: IO[bytes], suffix: str) -> Any:
    """Return a stream of the uncompressed bytes."""
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
