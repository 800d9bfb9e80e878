"""Checks a file by its own content: header, checksums, syntax. No code in it is run."""

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_recipes_local.errors import Problem, caught, door
from llama_recipes_local.model_folders.weight_files import (
    UNFINISHED,
    check_headers,
    check_pointer,
)

COPY = "copy the file again"
# fields of a SentencePiece model, and of its trainer_spec
_PIECE, _TRAINER, _NORMALIZER, _VOCABULARY = 1, 2, 3, 4
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+")


def check_own(path: Path) -> list[Problem]:
    """Return what is wrong with a file that can be known from the file alone."""
    if path.suffix in UNFINISHED:
        why = "it is of a download that did not end"
        return [Problem(f"{path} is not there in whole", why, "go on with the download")]
    if pointer := check_pointer(path):
        return pointer
    if not path.stat().st_size:
        return [Problem(f"{path} is empty", "it has 0 bytes", COPY)]
    if path.suffix == ".safetensors":
        return check_headers([path])
    check = _CHECKS.get(path.name) or _CHECKS.get(path.suffix)
    if check is None:
        return []
    with caught() as problems, door(f"{path} is corrupt or truncated", COPY):
        check(path)
    return problems


def _json(path: Path) -> None:
    json.loads(path.read_text("utf-8"))


def _template(path: Path) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    extensions = ["jinja2.ext.loopcontrols"]
    source = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", path.read_text("utf-8"))
    ImmutableSandboxedEnvironment(extensions=extensions).parse(source)


def _pickled(path: Path) -> None:
    """Compare the checksums that torch writes into a file; of its format before 1.6 it has none."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise ValueError(f"{broken} in it is not what its checksum says")


def _tokenizer(path: Path) -> None:
    """Check that all tokens are there: of SentencePiece, or of Llama 3's list in base64."""
    content = path.read_bytes()
    lines = content.split(b"\n")
    if _TIKTOKEN.fullmatch(lines[0]):
        for number, line in enumerate(lines[:-1]):
            if not _TIKTOKEN.fullmatch(line) or int(line.split()[1]) != number:
                raise ValueError(f"line {number + 1} is not token {number}")
        if lines[-1]:
            raise ValueError("its last line does not end")
        return
    fields = list(_wire_fields(content))
    pieces = sum(number == _PIECE for number, _ in fields)
    others = dict(fields)
    if not {_TRAINER, _NORMALIZER} <= others.keys():
        raise ValueError("its end is missing")
    trained = dict(_wire_fields(others[_TRAINER]))
    wanted = int.from_bytes(trained.get(_VOCABULARY, b""), "little")
    if pieces < wanted:
        raise ValueError(f"it has {pieces} of {wanted} tokens")


def _wire_fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields of a protocol buffer by number; a number's value is little-endian.

    protobuf's own module for this file comes with sentencepiece, and refuses other versions of
    protobuf than it was made with.

    Raises:
        ValueError: if the last one is not whole.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            if place >= len(content) or shift > 63:
                raise ValueError(f"it ends at byte {len(content):,}, within a field")
            byte = content[place]
            value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
            if byte < 128:
                return value

    while place < len(content):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint().to_bytes(10, "little")
            continue
        size = {1: 8, 5: 4}.get(kind, -1) if kind != 2 else varint()
        if size < 0 or place + size > len(content):
            raise ValueError(f"field {number} at byte {place:,} of {len(content):,} is not whole")
        yield number, content[place : place + size]
        place += size


_CHECKS: dict[str, Callable[[Path], None]] = {
    ".json": _json,
    ".jinja": _template,
    ".pth": _pickled,
    ".pt": _pickled,
    ".bin": _pickled,
    "tokenizer.model": _tokenizer,
}
