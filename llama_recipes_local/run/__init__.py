"""The active run: ``resolution`` builds a run from flags, ``record`` writes it to a file.

The collaborators that upstream's ``main`` calls without a configuration ask for it here; everything
else is passed the run or the configuration that it needs.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_recipes_local.run.resolution import Run

_active: "Run | None" = None


def active_run() -> "Run | None":
    """Return the run that ``finetuning.main`` is in, or None in a script or notebook."""
    return _active


@contextlib.contextmanager
def activate(run: "Run") -> Iterator["Run"]:
    """Make ``run`` the active one inside the ``with`` block."""
    global _active
    _active = run
    try:
        yield run
    finally:
        _active = None
