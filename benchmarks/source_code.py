"""Measures the source of packages: sizes, docstrings, comments, ``Any``, subpackages and cycles.

    python benchmarks/source_code.py llama_recipes_local [FOLDER ...]

prints a Markdown table with a row for each package folder. Folders named ``_vendor``, ``_vendored``
and ``tests`` are left out. A function's length is from its ``def`` to its last line; methods and
nested functions are functions, and public unless their name begins with ``_``. An argument counts
as ``Any`` if that is its whole annotation; the first figure leaves out ``*args`` and ``**kwargs``.
A subpackage is a folder or module of the package itself; imports between two of them count once,
and anywhere in a file except under ``TYPE_CHECKING``. A cycle is a set of files that import each
other, directly or through others.
"""

import argparse
import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

OTHERS = {"_vendor", "_vendored", "tests"}
LONG = 60  # lines of a function
HEADER = [
    "package",
    "files",
    "lines a file",
    "file median",
    "function median / p90 / max",
    f"over {LONG} lines",
    "docstrings of public functions / classes / modules",
    "comments per 100 lines",
    "`Any` of named / all arguments",
    "subpackages",
    "imports between them",
    "cycles",
]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """A file of a package, by the dotted name that it is imported under."""

    name: str
    tree: ast.Module
    lines: int
    comments: int
    imports: set[str] = field(default_factory=set)

    @property
    def subpackage(self) -> str:
        """Its folder or module in the package itself; empty for the package's own file."""
        return self.name.split(".")[1] if "." in self.name else ""


def read(package: Path) -> list[Module]:
    """Parse every file of a package."""
    modules = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if OTHERS & set(inside.parts):
            continue
        name = ".".join([package.name, *inside.with_suffix("").parts]).removesuffix(".__init__")
        with tokenize.open(path) as file:
            text = file.read()
        with path.open("rb") as file:
            kinds = [token.type for token in tokenize.tokenize(file.readline)]
        module = Module(
            name, ast.parse(text), len(text.splitlines()), kinds.count(tokenize.COMMENT)
        )
        base = name if path.name == "__init__.py" else name.rpartition(".")[0]
        module.imports = set(_imports(module.tree, base))
        modules.append(module)
    names = {module.name for module in modules}
    for module in modules:
        # what is imported from a module may be a module or a name in it
        known = {n if n in names else n.rpartition(".")[0] for n in module.imports}
        module.imports = (known & names) - {module.name}
    return modules


def _imports(tree: ast.AST, base: str) -> Iterator[str]:
    """Yield the dotted names that a file imports; ``base`` is the package that it is in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = base.split(".")[: len(base.split(".")) - max(node.level - 1, 0)]
            start = ".".join(filter(None, [*parts * bool(node.level), node.module]))
            yield from (f"{start}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node, base)


def functions(modules: list[Module]) -> list[Function]:
    """Return every function, methods and nested ones too."""
    return [
        node
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def share(hits: int, total: int) -> float:
    """Return a percentage; of nothing it is 0."""
    return 100 * hits / max(total, 1)


def documented(nodes: list[ast.Module] | list[Function] | list[ast.ClassDef]) -> float:
    """Return how many of the definitions have a docstring, in percent."""
    return share(sum(ast.get_docstring(node) is not None for node in nodes), len(nodes))


def any_shares(every: list[Function]) -> tuple[float, float]:
    """Return how many arguments are annotated ``Any``, in percent: of the named ones, and of all.

    ``self`` and ``cls`` do not count.
    """
    named: list[ast.arg | None] = []
    variadic: list[ast.arg | None] = []
    for function in every:
        arguments = function.args
        named += [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        variadic += [arguments.vararg, arguments.kwarg]
    return _any_share(named), _any_share(named + variadic)


def _any_share(arguments: list[ast.arg | None]) -> float:
    counted = [a for a in arguments if a is not None and a.arg not in ("self", "cls")]
    hits = [a for a in counted if a.annotation and ast.unparse(a.annotation).strip("'") == "Any"]
    return share(len(hits), len(counted))


def cycles(modules: list[Module]) -> int:
    """Return how many sets of two or more files import each other, directly or through others."""
    graph = {module.name: module.imports for module in modules}
    reached: dict[str, set[str]] = {}
    for start in graph:
        found: set[str] = set()
        todo = [start]
        while todo:
            new = graph[todo.pop()] - found
            found |= new
            todo += new
        reached[start] = found
    members = [name for name in graph if name in reached[name]]
    return len(
        {frozenset(o for o in members if o in reached[n] and n in reached[o]) for n in members}
    )


def measure(package: Path) -> list[str]:
    """Return the cells of a package's row."""
    modules = read(package)
    every = functions(modules)
    lengths = [node.end_lineno - node.lineno + 1 for node in every if node.end_lineno]
    public = [function for function in every if not function.name.startswith("_")]
    nodes = [node for module in modules for node in ast.walk(module.tree)]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    lines = sum(module.lines for module in modules)
    subpackages = {module.name: module.subpackage for module in modules}
    between = {(m.subpackage, subpackages[name]) for m in modules for name in m.imports}
    docstrings = (documented(public), documented(classes), documented([m.tree for m in modules]))
    p90 = quantiles(lengths, n=10)[-1]
    return [
        package.name,
        str(len(modules)),
        f"{lines / len(modules):.0f}",
        f"{median(module.lines for module in modules):.0f}",
        f"{median(lengths):.0f} / {p90:.0f} / {max(lengths)}",
        f"{share(sum(length > LONG for length in lengths), len(lengths)):.1f}%",
        " / ".join(f"{value:.0f}" for value in docstrings) + "%",
        f"{100 * sum(module.comments for module in modules) / lines:.1f}",
        " / ".join(f"{value:.1f}" for value in any_shares(every)) + "%",
        str(len(set(subpackages.values()) - {""})),
        str(len({(one, other) for one, other in between if one and other and one != other})),
        str(cycles(modules)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, nargs="+", metavar="FOLDER")
    rows = [measure(package.resolve()) for package in parser.parse_args().packages]
    for row in (HEADER, ["---"] * len(HEADER), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
