"""The host: memory, shared memory, disks, open files."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.storage.disk import free_bytes, nearest_existing
from llama_recipes_local.storage.host_memory import available_bytes
from llama_recipes_local.storage.open_files import most

_GIB = 2**30
_SHARED = Path("/dev/shm")
_ENOUGH_SHARED = 2**30
_ENOUGH_DISK = 10 * _GIB
_LEAST_DISK = 2**27
_ENOUGH_FILES = 4096


def examine() -> Iterator[Finding]:
    """Measure what the host has left."""
    available = available_bytes()
    memory = "not known" if available is None else f"{available / _GIB:.0f} GiB free"
    yield Finding("host", State.WORKS, f"{len(os.sched_getaffinity(0))} cores, {memory}")
    yield _shared_memory(shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else None)
    yield _disk("disk", Path.cwd(), "run where there is more, or set --output_dir")
    yield _disk("cache's disk", cache_folder(), "set LLAMA_RECIPES_CACHE, or use --clean_cache")
    files = most()
    few = files < _ENOUGH_FILES
    fix = "raise the hard limit: ulimit -Hn, or LimitNOFILE of the service" if few else ""
    state = State.DOUBTFUL if few else State.WORKS
    yield Finding("open files", state, f"{files:,} at most", fix)


def _shared_memory(free: int | None) -> Finding:
    """Judge /dev/shm, which ranks of one host and the workers of data loaders pass data in."""
    text = f"no {_SHARED}" if free is None else f"{free / _GIB:.1f} GiB free in {_SHARED}"
    if free is None:
        fix = f"mount -t tmpfs tmpfs {_SHARED}, as root; until then --num_workers_dataloader 0"
        return Finding("shared memory", State.BROKEN, f"{text}: nccl and data workers need it", fix)
    if free >= _ENOUGH_SHARED:
        return Finding("shared memory", State.WORKS, text)
    fix = "docker run --shm-size 8g, or --ipc host"
    return Finding("shared memory", State.DOUBTFUL, f"{text}: nccl and data workers use it", fix)


def _disk(name: str, folder: Path, fix: str) -> Finding:
    """Judge the disk of a folder, which may not exist yet."""
    free = free_bytes(nearest_existing(folder))
    if free is None:
        return Finding(name, State.DOUBTFUL, f"what is free at {folder} is not known")
    if free < _LEAST_DISK:
        text = f"{free / 2**20:.0f} MiB free at {folder}: not even a small adapter can be saved"
        return Finding(name, State.BROKEN, text, fix)
    text = f"{free / _GIB:.0f} GiB free at {folder}"
    if free < _ENOUGH_DISK:
        return Finding(name, State.DOUBTFUL, f"{text}: a 7B model with checkpoints needs more", fix)
    return Finding(name, State.WORKS, text)
