"""Names that a package has from a module of its own which takes long to import."""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any


def lazy_names(
    package: str,
    module: str,
    names: Collection[str],
    otherwise: Callable[[str], Any] | None = None,
) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``, which imports a module of it on first use of a name.

    Args:
        package: the package's name.
        module: the module's, in it.
        names: what the module has.
        otherwise: returns other names; None if there are none.
    """

    def __getattr__(name: str) -> Any:
        if name in names:
            return getattr(import_module(f"{package}.{module}"), name)
        if otherwise is not None:
            return otherwise(name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
