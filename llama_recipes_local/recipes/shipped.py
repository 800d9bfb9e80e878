"""The recipes in the package: a YAML file each, with a first comment line that says its purpose."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Return the names of the recipes, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def path_of(name: str) -> Path:
    """Return a recipe's file."""
    return _FOLDER / f"{name}.yaml"


def summary(name: str) -> str:
    """Return what a recipe is for, in a line."""
    first, _, _ = path_of(name).read_text("utf-8").partition("\n")
    return first.removeprefix("# ")
