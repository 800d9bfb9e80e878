"""The record in each copy of what it was made from and what it holds, by SHA-256."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a copy was made from and what it holds; hashes are SHA-256, in hexadecimal.

    Attributes:
        lock: the line of the lock that names the release and the hash.
        wheel: hash of upstream's wheel.
        series: hash of the file ``patches/series``; of no bytes where there is none.
        patches: hash of each patch by file name, in the order they were applied in.
        tool: hash of the code that shapes the copy.
        files: hash of each file by its path in the copy; the manifest itself is not among them.
    """

    lock: str
    wheel: str
    series: str
    patches: Mapping[str, str]
    tool: str
    files: Mapping[str, str]


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def dump(manifest: Manifest) -> bytes:
    """Return the manifest as JSON; the same manifest always gives the same bytes."""
    return (json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n").encode()


def load(vendor: Path) -> Manifest | None:
    """Return the manifest of the copy in ``vendor``, or None if it has none that can be read."""
    try:
        content = json.loads((vendor / NAME).read_bytes())
        if content.pop("format") != FORMAT:
            return None
        return Manifest(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file below ``folder`` by its path, in order.

    Not included are the manifest and what the interpreter and the system create on their own:
    ``__pycache__`` and ``.DS_Store``.
    """
    hashes = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if relative != NAME and name != ".DS_Store":
                hashes[relative] = sha256(path.read_bytes())
    return dict(sorted(hashes.items()))
