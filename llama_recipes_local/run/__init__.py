"""The run at hand: ``resolution`` builds it from flags, ``record`` writes down what it was.

The collaborators of upstream's ``main`` that are not handed a configuration ask for it here; all
else is handed the run or the configuration that it needs.
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
