"""Rooms import what is below them, files import in no circle, and a file name means one thing.

The order of the rooms is the table under "Layers" in ``docs/architecture.md``.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "llama_recipes_local"
PAGE = PROJECT / "docs" / "architecture.md"

SHARED_NAMES = {
    "__init__.py": "Python's name",
    "__main__.py": "Python's name",
    "base.py": "what each module of the room must declare or share",
    "command.py": "what a command does",
    "errors.py": "vendoring is standard library only and stands alone",
    "flags.py": "the flags of a command, or of all runs",
    "prefix.py": "a method, and the kernel that computes it",
    "quantization.py": "a configuration, and what loads a model with it",
    "registry.py": "one line for each module of the room",
}

SOURCES = [path for path in PACKAGE.rglob("*.py") if "_vendor" not in path.parts]


def dotted(path: Path) -> str:
    """Return a file's module below the package; the package's own file is the package."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return without_package(name)


def without_package(module: str) -> str:
    return module.removeprefix(f"{PACKAGE.name}.")


MODULES = {dotted(path): path for path in SOURCES}


def import_statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run, also those in functions; not those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for each in child.orelse:
                yield from import_statements(ast.Module([each], []))
        else:
            yield from import_statements(child)


def imported(path: Path) -> set[str]:
    """Return the modules of this package that a file imports."""
    found = set()
    for statement in import_statements(ast.parse(path.read_text("utf-8"))):
        outer = getattr(statement, "module", None)
        for each in statement.names:
            module = f"{outer}.{each.name}" if outer else each.name
            found.add(module if without_package(module) in MODULES else str(outer))
    ours = (module for module in found if module.split(".")[0] == PACKAGE.name)
    return {without_package(module) for module in ours} & set(MODULES)


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def layers() -> list[list[str]]:
    """Return the rooms of the page's table, the highest first; those of a row are together."""
    table = PAGE.read_text("utf-8").split("<!-- layers -->")[1].split("<!-- /layers -->")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [re.findall("`([^`]+)`", row) for row in rows]


def room_of(module: str, rooms: set[str]) -> str | None:
    """Return the room that a module is in: the longest that its name begins with."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in rooms), None)


def test_every_room_is_in_the_table_once() -> None:
    rooms = [room for row in layers() for room in row]
    assert len(rooms) == len(set(rooms)) > 20
    assert [module for module in MODULES if room_of(module, set(rooms)) is None] == []
    assert {room_of(module, set(rooms)) for module in MODULES} == set(rooms)


def test_a_room_imports_only_what_is_below_it() -> None:
    height = {room: -row for row, rooms in enumerate(layers()) for room in rooms}
    upwards = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if (here := room_of(module, set(height))) != (there := room_of(other, set(height)))
        and height[here or ""] <= height[there or ""]
    ]
    assert sum(map(len, IMPORTS.values())) > 500
    assert upwards == []


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_module_imports_the_copy_but_through_upstream() -> None:
    direct = [
        name
        for name, path in MODULES.items()
        for statement in import_statements(ast.parse(path.read_text("utf-8")))
        if "_vendor" in ast.unparse(statement)
    ]
    assert direct == []


def test_a_file_name_means_one_thing() -> None:
    named = defaultdict(list)
    for path in SOURCES:
        named[path.name].append(str(path.relative_to(PACKAGE)))
    twice = {name: paths for name, paths in named.items() if len(paths) > 1}
    assert {name: twice[name] for name in twice.keys() - SHARED_NAMES.keys()} == {}
    assert SHARED_NAMES.keys() <= twice.keys()
