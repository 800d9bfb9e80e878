"""A pytest plugin: a test that starts a Python process carries a marker that says so.

``make check`` runs the tests without one of these markers, nor ``slow`` or ``cuda``:

- ``ranks`` starts several processes that work together: torchrun, or forks with ranks,
- ``command`` starts a command line, or another program, in a process of its own,
- ``install`` builds the package or installs it.

A test gets its marker from the fixtures that it uses, or names it itself; one that starts Python
without a marker fails.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

MARKERS = ("install", "ranks", "command")
# fixtures that start processes, and the environment that every subprocess is given
MARKER_OF_FIXTURE = {"launch": "ranks", "runs": "ranks", "environment": "command"}
LAUNCHERS = ("torchrun", "torch.distributed.run")
PROGRAMS = ("python", "torchrun", "pip", "make", "llama-recipes-local")


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark each test that has no marker of its own by the fixtures that it uses."""
    for item in items:
        used = getattr(item, "fixturenames", ())
        found = [marker for name, marker in MARKER_OF_FIXTURE.items() if name in used]
        if found and not _markers(item):
            item.add_marker(found[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note which test runs, with the fixtures that it is the first to use."""
    _guard.item = item
    try:
        return (yield)
    finally:
        _guard.item = None


class _Guard:
    """Fails the test that is running if it starts a process that its markers do not announce."""

    def __init__(self) -> None:
        self.item: pytest.Item | None = None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "subprocess.Popen" or self.item is None:
            return
        command = arguments[1]
        words = [command] if isinstance(command, (str, os.PathLike)) else command
        words = [os.fspath(word) for word in words]
        if not os.path.basename(words[0]).startswith(PROGRAMS):
            return
        wanted = ("ranks",) if set(LAUNCHERS) & {os.path.basename(w) for w in words} else MARKERS
        if not set(wanted) & _markers(self.item):
            pytest.fail(f"{self.item.nodeid} starts {words[:4]}: mark it {' or '.join(wanted)}")


def _markers(item: pytest.Item) -> set[str]:
    return {marker.name for marker in item.iter_markers()} & set(MARKERS)


_guard = _Guard()
sys.addaudithook(_guard)
