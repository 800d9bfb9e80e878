"""Optional packages that some flags and commands need: are they installed, and how to install.

A fix names this Python and this package's own source tree or the packages themselves: this package
is on no index, and a stranger may register its name.
"""

import importlib.metadata
import inspect
import shlex
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.program import python

DISTRIBUTION = "llama-recipes-local"
SOURCE = Path(__file__).resolve().parents[1]


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
    return [Problem(what, why, install_extra(extra))]


def require(module: str, what: str, extra: str) -> None:
    """Raise an error if a package is not installed; see ``check_installed``.

    Raises:
        UsageError: if it is not installed.
    """
    refuse(check_installed(module, what, extra))


def install_extra(extra: str) -> str:
    """Return the command that installs an extra of this package for this Python."""
    if (SOURCE / "pyproject.toml").is_file():
        place = "." if Path.cwd() == SOURCE else str(SOURCE)
        return f"{_pip()} -e {shlex.quote(f'{place}[{extra}]')}"
    return install(*_requirements(extra))


def install(*requirements: str) -> str:
    """Return the command that installs packages for this Python."""
    return " ".join([_pip(), *map(shlex.quote, requirements)])


def _pip() -> str:
    return f"{shlex.quote(python())} -m pip install"


def _requirements(extra: str) -> list[str]:
    """Return the packages of an extra, as the installed package names them."""
    of_extra = f'extra == "{extra}"'
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # a copy of the package's folder
        return ["PACKAGE"]
    split = (line.replace("'", '"').partition(";") for line in lines)
    return [name.strip() for name, _, marker in split if of_extra in marker]


@cache
def distributions_of() -> dict[str, list[str]]:
    """Return the names of the packages that provide each module.

    This is ``importlib.metadata.packages_distributions`` without its check that each file of each
    package exists, which takes most of a second from Python 3.12 on.
    """
    found = defaultdict(list)
    for package in importlib.metadata.distributions():
        for module in _modules_of(package):
            found[module].append(str(package.metadata["Name"]))
    return dict(found)


def _modules_of(package: importlib.metadata.Distribution) -> set[str]:
    """Return the modules and folders at the top of a package, by its own files."""
    if declared := (package.read_text("top_level.txt") or "").split():
        return set(declared)
    modules = set()
    for line in (package.read_text("RECORD") or "").splitlines():
        top, slash, _ = line.strip('"').partition(",")[0].partition("/")
        modules.add(top if slash else inspect.getmodulename(top) or top)
    return {module for module in modules - {"__pycache__"} if module and "." not in module}
