"""Optional packages that some flags and commands need: are they installed, and how to install."""

from importlib.util import find_spec

from llama_recipes_local.errors import Problem, refuse

DISTRIBUTION = "llama-recipes-local"


def check_installed(module: str, what: str, extra: str) -> list[Problem]:
    """Return a problem if a package is not installed.

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
    """Raise an error if a package is not installed; see ``check_installed``.

    Raises:
        UsageError: if it is not installed.
    """
    refuse(check_installed(module, what, extra))
