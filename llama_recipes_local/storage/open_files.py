"""How many files this process may have open: workers pass the data they prepare in files."""

import contextlib
import resource


def most() -> int:
    """Return how many files this process may have open once ``raise_limit`` was called."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 2**20


def raise_limit() -> None:
    """Raise the limit of open files as far as this process may: 1,024 is a common default."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # macOS has none, and takes no such limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
