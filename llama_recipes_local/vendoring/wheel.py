"""Reads the files of upstream's wheel, without letting any of them name a place outside."""

import io
import zipfile

from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.lock import Lock

UPSTREAM_PACKAGE = "llama_recipes"
DIST_INFO = "dist-info"
"""Folder of the copy for upstream's metadata and licence. Its name is not ``*.dist-info``, so that
no tool takes the copy for an installed distribution."""

_INSTALLER_FILES = frozenset({"RECORD", "WHEEL"})


def is_plain_path(path: str) -> bool:
    """Say whether ``path`` is relative, with plain parts only, on every operating system."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not set(path) & set("\\:\0")


def read_wheel(content: bytes, lock: Lock) -> dict[str, bytes]:
    """Return the files of the wheel by their path in the copy, in order.

    The package keeps its paths; metadata and licences go to ``dist-info``.

    Raises:
        VendoringError: if the wheel holds a path outside these two folders, or one twice.
    """
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            path = _path_in_copy(entry.filename, lock)
            if path in files:
                raise VendoringError(f"the wheel of {lock.name} holds {entry.filename} twice")
            if path.removeprefix(f"{DIST_INFO}/") not in _INSTALLER_FILES:
                files[path] = archive.read(entry)
    return dict(sorted(files.items()))


def _path_in_copy(name: str, lock: Lock) -> str:
    folder, _, rest = name.partition("/")
    if is_plain_path(name) and rest:
        if folder == UPSTREAM_PACKAGE:
            return name
        if folder == lock.dist_info:
            return f"{DIST_INFO}/{rest}"
    raise VendoringError(
        f"the wheel of {lock.name} holds {name!r}, which is in neither {UPSTREAM_PACKAGE}/ nor "
        f"{lock.dist_info}/; it is not upstream's release: look at where it came from"
    )
