"""Finds where a name of the package is defined, through re-exports, without importing anything."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.vendoring.checkout import PACKAGE
from llama_recipes_local.vendoring.errors import VendoringError

_UPSTREAM = f"{PACKAGE}._vendor.llama_recipes"


@dataclass(frozen=True)
class Definition:
    """Where a class, function or value is defined.

    Attributes:
        module: dotted name of the module.
        name: its name there; CLASS.METHOD for a method.
        path: the file, relative to the package's folder; empty if a library defines it.
        line: number of its ``class``, ``def`` or assignment, from 1; 0 if a library defines it.
        summary: first sentence of its docstring; empty if there is none.
    """

    module: str
    name: str
    path: str = ""
    line: int = 0
    summary: str = ""


class Definitions:
    """Looks names up in the source files of a package."""

    def __init__(self, package: Path) -> None:
        """Look in ``package``, the folder of ``llama_recipes_local``."""
        self._package = package
        self._trees: dict[Path, ast.Module] = {}

    def find(self, module: str, name: str) -> Definition:
        """Return the definition of what ``module`` calls ``name``, which may be CLASS.METHOD.

        A method that a class inherits from a library or a generic class is found as the class.

        Raises:
            VendoringError: if the module does not exist or has no such name.
        """
        name, _, method = name.partition(".")
        module, name, node = self._resolve(module, name)
        if isinstance(node, ast.ClassDef) and method:
            module, name, node = self._method(module, name, node, method) or (module, name, node)
        if node is None:
            return Definition(module, f"{name}.{method}" if method else name)
        path = self._path(module).relative_to(self._package).as_posix()
        return Definition(module, name, path, node.lineno, summary(node))

    def tree(self, module: str) -> ast.Module:
        """Return the syntax tree of a module of the package.

        Raises:
            VendoringError: if the module does not exist.
        """
        path = self._path(module)
        if path not in self._trees:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # upstream has invalid escapes
                self._trees[path] = ast.parse(path.read_bytes())
        return self._trees[path]

    def _path(self, module: str) -> Path:
        path = self._package.joinpath(*module.split(".")[1:])
        found = next(
            (p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None
        )
        if found is None:
            raise VendoringError(f"there is no module {module} in {self._package}")
        return found

    def _resolve(self, module: str, name: str) -> tuple[str, str, ast.stmt | None]:
        """Return the module, name and statement that define a name; no statement in a library."""
        if module.split(".")[0] != PACKAGE:
            return module, name, None
        fallback = None
        for node in _statements(self.tree(module).body):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._resolve(node.module, alias.name)
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
                return module, name, node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if node.targets[0].id == name:
                    loaded = _loaded(node.value)
                    return self._resolve(*loaded) if loaded else (module, name, node)
                if node.targets[0].id == "__getattr__":
                    fallback = _upstream_module(node.value, "fall_back")
        if fallback:
            return self._resolve(fallback, name)
        raise VendoringError(f"{self._path(module)} does not define {name}")

    def _method(
        self, module: str, name: str, node: ast.ClassDef, method: str
    ) -> tuple[str, str, ast.stmt | None] | None:
        """Return the module, name and statement of a method, of the class or of one it inherits."""
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == method:
                return module, f"{name}.{method}", statement
        for base in node.bases:
            if isinstance(base, ast.Name):
                owner, base_name, found = self._resolve(module, base.id)
                if isinstance(found, ast.ClassDef):
                    inherited = self._method(owner, base_name, found, method)
                    if inherited:
                        return inherited
        return None


def summary(node: ast.stmt) -> str:
    """Return the first sentence of a definition's docstring, on one line."""
    if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return ""
    paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield a module's statements, and those of both branches of an ``if TYPE_CHECKING``."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.orelse + node.body)  # what holds at run time first
        else:
            yield node


def _loaded(value: ast.expr) -> tuple[str, str] | None:
    """Return the module and name of ``load("module").name``, or None for another expression."""
    if isinstance(value, ast.Attribute):
        module = _upstream_module(value.value, "load")
        return (module, value.attr) if module else None
    return None


def _upstream_module(value: ast.expr, function: str) -> str | None:
    """Return the module of the copy that ``function("module")`` names, or None."""
    if (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id == function
        and isinstance(value.args[0], ast.Constant)
        and isinstance(value.args[0].value, str)
    ):
        return f"{_UPSTREAM}.{value.args[0].value}"
    return None
