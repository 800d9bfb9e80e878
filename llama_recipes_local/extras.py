"""Packages that only some flags and commands need: whether they are there, and how to get them."""

from importlib.util import find_spec

from llama_recipes_local.errors import Problem, refuse

DISTRIBUTION = "llama-recipes-local"


def missing(module: str, what: str, extra: str) -> list[Problem]:
    """Return the problem that a package is not installed, if it is not.

    Args:
        module: the module that is imported.
        what: the flag or command that needs it.
        extra: this package's extra that installs it.
    """
    if find_spec(module) is not None:
        return []
    why = f"it needs the package {module.replace('_', '-')}, which is not installed"
    return [Problem(what, why, f"pip install '{DISTRIBUTION}[{extra}]'")]


def require(module: str, what: str, extra: str) -> None:
    """Refuse to go on without a package; see ``missing``.

    Raises:
        UsageError: if it is not installed.
    """
    refuse(missing(module, what, extra))
