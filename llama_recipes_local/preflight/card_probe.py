"""Measures how fast this machine's device multiplies and copies, in under a second.

The result is kept for later runs. It is used for devices that the table of known cards does not
have, and for CPUs.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.storage.publishing import write_json
from llama_recipes_local.storage.waiting_lock import waited_for

SECONDS = 0.25
"""Of each of the two measurements."""
_FILE = "device_rates.json"


def rates(device: str) -> tuple[float, float]:
    """Return TFLOP/s of a large product and TB/s of a copy, measured now or by an earlier run.

    Ranks of a host wait for the first of them, and so plan with the same figures.

    Args:
        device: "cuda" or "cpu".
    """
    key, path = _key(device), cache_folder() / _FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with waited_for(path.with_name(f".{_FILE}.lock"), "the speed of this device"):
            known = _read(path)
            if key not in known:
                known[key] = measured(device)
                write_json(path, known)
            return known[key][0], known[key][1]
    except OSError:  # a cache that cannot be written
        return measured(device)


def measured(device: str) -> tuple[float, float]:
    """Return TFLOP/s of a product in the dtype used for training there, and TB/s of a copy."""
    found = _product(device), _copy(device)
    if device == "cuda":
        torch.cuda.empty_cache()
    return found


def _product(device: str) -> float:
    on_cuda = device == "cuda"
    size, dtype = (8192, torch.bfloat16) if on_cuda else (1024, torch.float32)
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _fastest(lambda: torch.mm(left, right), device) / 1e12


def _copy(device: str) -> float:
    source = torch.ones(1 << (28 if device == "cuda" else 24), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), device) / 1e12


def _fastest(work: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest of some calls.

    On the CPU of a rank these are CPU seconds of its thread, so that other work on the cores does
    not count.
    """
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    best, end = float("inf"), time.perf_counter() + SECONDS
    work()  # warms up
    while True:
        start = clock()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
        if time.perf_counter() > end:
            return best


def _key(device: str) -> str:
    """Return what the figures depend on: device, the part of it in use, and torch's version."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{platform.node()} {_processor()}, {threads} threads, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _read(path: Path) -> dict[str, tuple[float, float]]:
    """Return the kept figures; nothing if they are missing or damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {key: (float(rate), float(copy)) for key, (rate, copy) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
