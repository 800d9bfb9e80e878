"""The only module that imports the vendored copy of llama-recipes.

Our modules take the place of upstream's where both exist. A public module of upstream's that has
no counterpart here is still importable under this package's name: ``install_aliases`` puts a finder
on ``sys.meta_path`` that returns the vendored module itself. Where a module of ours replaces only
some of upstream's names, ``fall_back`` supplies the rest.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from llama_recipes_local.vendoring.checkout import MAKE_COMMAND, PACKAGE

VENDORED = f"{PACKAGE}._vendor.llama_recipes"
VENDORED_DIR = Path(__file__).parent / "_vendor" / "llama_recipes"
PUBLIC = frozenset(
    {
        "configs",
        "data",
        "datasets",
        "finetuning",
        "inference",
        "model_checkpointing",
        "policies",
        "tools",
        "utils",
    }
)


def load(name: str) -> ModuleType:
    """Import a module of the vendored copy.

    Args:
        name: its path below ``llama_recipes``, such as ``"utils.train_utils"``.

    Raises:
        ImportError: if the copy has not been made; the message names the command that makes it.
    """
    _require_copy()
    # Upstream imports what torch and transformers are about to remove. They may override the filter
    # to warn about it, hence the recording.
    with warnings.catch_warnings(record=True) as caught:
        module = importlib.import_module(f"{VENDORED}.{name}")
    for said in caught:
        if not issubclass(said.category, (DeprecationWarning, FutureWarning)):
            warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
    return module


def load_alone(name: str) -> ModuleType:
    """Import a module of the copy without the package that it is in, which imports torch.

    Whoever imports it afterwards, upstream's package too, gets the same module.

    Args:
        name: its path below ``llama_recipes``, such as ``"configs.training"``.

    Raises:
        ImportError: if the copy has not been made; the message names the command that makes it.
    """
    full = f"{VENDORED}.{name}"
    if full in sys.modules:
        return sys.modules[full]
    _require_copy()
    path = VENDORED_DIR.joinpath(*name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(full, path)
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = sys.modules[full] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _require_copy() -> None:
    if not VENDORED_DIR.is_dir():
        raise ImportError(
            f"the vendored copy of llama-recipes is missing in {VENDORED_DIR.parent}; "
            f"make it with: {MAKE_COMMAND}"
        )


def fall_back(name: str) -> Callable[[str], Any]:
    """Return a module ``__getattr__`` that looks missing names up in upstream's module ``name``."""

    def __getattr__(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(load(name), attribute)

    return __getattr__


class _AliasLoader(importlib.abc.Loader):
    """Loads a vendored module and leaves it in ``sys.modules`` under both names."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = load(self._name)
        # The import system writes the alias's spec onto the module: keep its own.
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code that ``python -m`` runs."""
        spec = importlib.util.find_spec(f"{VENDORED}.{self._name}")
        assert spec is not None and isinstance(spec.loader, importlib.abc.InspectLoader)
        return spec.loader.get_code(spec.name)


def _is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


class _AliasFinder(importlib.abc.MetaPathFinder):
    """Finds ``llama_recipes_local.X`` in the vendored copy where no module of ours is ``X``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != PACKAGE or name.split(".")[0] not in PUBLIC:
            return None
        parts = name.split(".")
        vendored = VENDORED_DIR.joinpath(*parts)
        if _is_module(Path(__file__).parent.joinpath(*parts)):
            return None
        _require_copy()
        if not _is_module(vendored):
            return None
        spec = importlib.util.spec_from_loader(
            fullname, _AliasLoader(name), is_package=vendored.is_dir()
        )
        if spec is not None and not vendored.is_dir():
            spec.origin, spec.has_location = str(vendored.with_suffix(".py")), True
        return spec


def install_aliases() -> None:
    """Make upstream's public modules importable under this package's name; idempotent.

    The finder goes first: below an aliased package, the ordinary one would load a vendored file a
    second time, as another module.
    """
    if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder())
