"""How much memory this host has left."""

import os
from pathlib import Path

_FIGURES = Path("/proc/meminfo")
_LIMITS = (  # of a container: what it may use, and what it uses
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_bytes() -> int | None:
    """Return how much memory a process can take without swapping; None if unknown."""
    found = [_of_host(), *(_of_container(limit, used) for limit, used in _LIMITS)]
    return min((each for each in found if each is not None), default=None)


def total_bytes() -> int | None:
    """Return how much memory all processes can take together; None if unknown."""
    found = [_of_host("MemTotal:") or _physical(), *(_number(limit) for limit, _ in _LIMITS)]
    return min((each for each in found if each is not None), default=None)


def _physical() -> int | None:
    """Return the bytes of this host's memory where there is no /proc, as on macOS."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None


def _of_host(figure: str = "MemAvailable:") -> int | None:
    try:
        lines = _FIGURES.read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(figure))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None


def _of_container(limit: Path, used: Path) -> int | None:
    try:  # "max" is no limit
        return max(int(limit.read_text()) - int(used.read_text()) + _cached(used.parent), 0)
    except (OSError, ValueError):
        return None


def _cached(container: Path) -> int:
    """Return the bytes of files that a container has read and that can be dropped at once."""
    try:
        lines = (container / "memory.stat").read_text().splitlines()
        figures = dict(line.split() for line in lines)
    except (OSError, ValueError):
        return 0
    return int(figures.get("total_inactive_file", figures.get("inactive_file", 0)))
