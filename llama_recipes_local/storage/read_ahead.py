"""Reads a model's files into the system's page cache while imports and preflight run.

A disk with 1 GB/s needs 13 s for a 7B model, which would otherwise be added to the start. The bytes
are thrown away; the system keeps the pages. Nothing depends on this: a file that cannot be read is
reported where it is used.
"""

import contextlib
import os
import re
import threading
from pathlib import Path

BLOCK = 16 * 2**20
"""Bytes that are read at once: few calls, as each waits for the thread that imports."""
THREADS = 4


def read_ahead(folder: object) -> list[threading.Thread]:
    """Begin to read a folder's safetensors files, and return the threads that do so.

    Args:
        folder: a path as it was given, which may be none; then nothing is read.

    Returns:
        The threads, which end with the process: none for files of more than half of the memory that
        is available, of which the last would push out the first.
    """
    try:
        files = sorted(Path(str(folder)).expanduser().glob("*.safetensors"))
        sizes = {file: file.stat().st_size for file in files}
    except (OSError, RuntimeError, ValueError):
        return []
    if sum(sizes.values()) > _available() // 2:
        return []
    blocks = [(file, at) for file, size in sizes.items() for at in range(0, size, BLOCK)]
    parts = [blocks[number::THREADS] for number in range(min(THREADS, len(blocks)))]
    threads = [threading.Thread(target=_read, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    return threads


def _read(blocks: list[tuple[Path, int]]) -> None:
    buffer = bytearray(BLOCK)
    for file, at in blocks:
        with contextlib.suppress(OSError), file.open("rb", buffering=0) as opened:
            os.preadv(opened.fileno(), [buffer], at)


def _available() -> int:
    """Return the bytes of memory that programs can still get; 0 if unknown."""
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
        if found:
            return int(found[1]) * 1024
    return 0
