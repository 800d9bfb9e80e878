"""Lazy names of a package: a module that takes long to import is imported on first use."""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any


def lazy_names(
    package: str,
    module: str,
    names: Collection[str],
    otherwise: Callable[[str], Any] | None = None,
) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package, which imports a module on first use of a name.

    Args:
        package: name of the package.
        module: name of the module, which is in the package.
        names: the names that the module defines.
        otherwise: looks up every other name; None if there are none.
    """

    def __getattr__(name: str) -> Any:
        if name in names:
            return getattr(import_module(f"{package}.{module}"), name)
        if otherwise is not None:
            return otherwise(name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
