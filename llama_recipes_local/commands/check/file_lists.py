"""Lists of files with their hashes that were copied along with a folder, in any known format."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from llama_recipes_local.errors import Problem, door

BROUGHT = "what-to-bring.json"
SUMS_COMMAND = (
    "find . -type f -not -path '*/.*' -not -name SHA256SUMS -exec sha256sum {} + > SHA256SUMS"
)
"""What is run in a folder so that its copy can be checked."""

_NAMES = ("SHA256SUMS", "SHA256SUMS.txt", "*.sha256", "*.chk")
_LINE = re.compile(r"\\?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{64}) [ *](.+)")
_HF = Path(".cache/huggingface/download")
_HEX = re.compile("[0-9a-f]+")
_BY_LENGTH = {32: "md5", 40: "git", 64: "sha256"}


@dataclass(frozen=True)
class Expected:
    """A file as a list has it.

    Attributes:
        name: its path from the folder, with slashes.
        source: the list, for messages.
        bytes: its size; None if the list does not say.
        algorithm: "sha256", "md5" or "git" (the sha1 that git gives a file); "" without a hash.
        digest: the hash in hexadecimal.
    """

    name: str
    source: str
    bytes: int | None = None
    algorithm: str = ""
    digest: str = ""


def find_lists(folder: Path) -> list[Path]:
    """Return the lists that lie in a folder."""
    found = [path for pattern in _NAMES for path in sorted(folder.glob(pattern))]
    found += [folder / BROUGHT]
    return [path for path in found if path.is_file()]


def read_list(path: Path, folder: Path) -> list[Expected]:
    """Return what a list says of a folder's files.

    Raises:
        UsageError: if it is not a list, or names a file outside the folder.
    """
    fix = "write it again where the files came from, with sha256sum"
    with door(f"{path} cannot be read as a list of hashes", fix):
        text = path.read_text("utf-8")
        found = list(_of_json(text, path, folder) if text.lstrip()[:1] == "{" else _of_sums(text))
        if not found:
            raise ValueError("it names no file")
        for each in found:
            _check_inside(each.name)
        return [replace(each, source=path.name) for each in found if folder / each.name != path]


def _check_inside(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"it names {name!r}, outside the folder")


def _of_sums(text: str) -> Iterator[Expected]:
    """Read lines of sha256sum and md5sum: the hash, then the name."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is not a hash and a name: {line!r:.80}")
        digest = match[1].lower()
        name = match[2].removeprefix("./")
        yield Expected(name, "", None, _BY_LENGTH[len(digest)], digest)


def _of_json(text: str, path: Path, folder: Path) -> Iterator[Expected]:
    """Read what ``what-to-bring --json`` printed: the part whose folder has this one's name."""
    content = json.loads(text)
    parts = [part for part in content.values() if isinstance(part, dict) and part.get("folder")]
    own = [part for part in parts if PurePosixPath(part["folder"]).name == folder.name]
    if not own and path.parent == folder and len(parts) == 1:
        own = parts
    if not own:
        folders = ", ".join(str(part["folder"]) for part in parts)
        raise ValueError(f"it is about the folders {folders or 'of nothing'}, not {folder.name}")
    for each in own[0]["files"]:
        if each.get("needed", True) and "*" not in each["name"]:
            digest = str(each.get("sha256", ""))
            size = each.get("bytes") if each.get("exact") else None
            yield Expected(str(each["name"]), "", size, "sha256" if digest else "", digest)


def noted_by_hf(folder: Path) -> list[Expected]:
    """Return the hashes that ``hf download`` noted: beside the files, or as names of its cache.

    A large file's is its sha256, another one's that of git.
    """
    notes = folder / _HF
    found = []
    for path in sorted(notes.rglob("*.metadata")):
        lines = path.read_text("utf-8", errors="replace").split()
        if len(lines) >= 2 and _HEX.fullmatch(lines[1]) and len(lines[1]) in (40, 64):
            name = path.relative_to(notes).as_posix().removesuffix(".metadata")
            found.append(Expected(name, "hf download", None, _BY_LENGTH[len(lines[1])], lines[1]))
    for path in sorted(folder.iterdir()):
        blob = Path(path.resolve())
        digest = blob.name
        cached = path.is_symlink() and blob.parent.name == "blobs" and _HEX.fullmatch(digest)
        if cached and len(digest) in (40, 64):
            known = _BY_LENGTH[len(digest)]
            found.append(Expected(path.name, "the Hub's cache", None, known, digest))
    return found


def no_list(folder: Path) -> Problem:
    """Return that nothing is said of a folder's files, as what a list would be made with."""
    return Problem(
        f"no list of hashes came along with {folder}",
        "files are checked by what they say of themselves: an altered weight, or a file that "
        "a model need not have, is not seen so",
        f"where the folder came from run: {SUMS_COMMAND}; then copy SHA256SUMS here too",
    )
