"""Packages that only some commands need: whether they are there, and how they are installed."""

from importlib.util import find_spec

from llama_recipes_local.errors import Problem, UsageError

DISTRIBUTION = "llama-recipes-local"


def require(module: str, what: str, extra: str) -> None:
    """Refuse to go on without a package.

    Args:
        module: the module that is imported.
        what: the flag or command that needs it.
        extra: this package's extra that installs it.

    Raises:
        UsageError: if it is not installed.
    """
    if find_spec(module) is None:
        why = f"it needs the package {module}, which is not installed"
        raise UsageError([Problem(what, why, f"pip install '{DISTRIBUTION}[{extra}]'")])
