"""Tokens on disk, so that they are made only once: by one process, completely or not at all.

An entry is a folder named by its key, with ``rows.arrow`` (see ``data.token_rows``) and
``about.json``: the audit, and the size and checksum that show whether the file is corrupt. Ranks
and runs that need an entry at the same time wait for the one that makes it. On a file system
without locks, each makes it and the last one's stays. A read-only cache is used as far as it goes.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]

from llama_recipes_local.data.audit import Counts, SplitAudit, audit_split
from llama_recipes_local.data.token_rows import SCHEMA, Chunk, TokenRows
from llama_recipes_local.storage.names import hidden_beside
from llama_recipes_local.storage.publishing import published_folder
from llama_recipes_local.storage.waiting_lock import waited_for

ROWS = "rows.arrow"
ABOUT = "about.json"
ENVIRONMENT_VARIABLE = "LLAMA_RECIPES_CACHE"
BLOCK = 1 << 22

Built = Iterator[tuple[Chunk, Counts]]


def cache_folder(flag: str = "") -> Path:
    """Return the cache's folder, absolute.

    It is ``flag`` if given, else the environment variable ``LLAMA_RECIPES_CACHE``, else
    ``llama-recipes-local`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    chosen = flag or os.environ.get(ENVIRONMENT_VARIABLE) or f"{home}/llama-recipes-local"
    return Path(chosen).expanduser().resolve()


def cached(entry: Path, build: Callable[[], Built]) -> tuple[TokenRows, SplitAudit, str]:
    """Return the rows of an entry and their audit; made first if missing or corrupt.

    Args:
        entry: the entry's folder.
        build: makes the rows, chunk by chunk, with what was found in each.

    Returns:
        The rows, their audit, and what was done, in words: "from cache", "made", or "made again"
        with the reason.

    Raises:
        OSError: if the entry cannot be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    what = f"the tokens of {entry.name}, which another process makes"
    with waited_for(hidden_beside(entry, ".lock"), what) as locked:
        if not entry.exists():
            return *_make(entry, build, locked), "made"
        reason = _corruption(entry)
        if not reason:
            return *_open(entry), "from cache"
        return *_make(entry, build, locked), f"made again: in the cache, {reason}"


def _make(entry: Path, build: Callable[[], Built], locked: bool) -> tuple[TokenRows, SplitAudit]:
    with published_folder(entry, shared=not locked) as draft:
        counts = _write(draft / ROWS, build())
        audit = audit_split(TokenRows.open(draft / ROWS), counts)
        about = {"size": (draft / ROWS).stat().st_size, "crc32": _checksum(draft / ROWS)}
        (draft / ABOUT).write_text(json.dumps(about | {"audit": asdict(audit)}), "utf-8")
    return _open(entry)


def _write(path: Path, chunks: Built) -> Counts:
    total = Counts()
    with path.open("wb") as file:
        with pa.ipc.new_file(file, SCHEMA) as writer:
            for chunk, counts in chunks:
                writer.write_batch(chunk.batch())
                total.add(counts)
        file.flush()
        os.fsync(file.fileno())
    return total


def _open(entry: Path) -> tuple[TokenRows, SplitAudit]:
    audit = json.loads((entry / ABOUT).read_text("utf-8"))["audit"]
    return TokenRows.open(entry / ROWS), SplitAudit.from_json(audit)


def _corruption(entry: Path) -> str:
    """Return what is wrong with an entry; empty if nothing is."""
    try:
        about = json.loads((entry / ABOUT).read_text("utf-8"))
        if (entry / ROWS).stat().st_size != about["size"]:
            return f"{ROWS} has another size than it was written with"
        if _checksum(entry / ROWS) != about["crc32"]:
            return f"{ROWS} has another checksum than it was written with"
        _open(entry)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        return f"an entry is unreadable ({error})"
    return ""


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
