"""The table of seams: what upstream's ``main`` takes from this package, read from the copy."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.vendoring.checkout import MAKE_COMMAND, PACKAGE, Checkout
from llama_recipes_local.vendoring.definitions import Definition, Definitions
from llama_recipes_local.vendoring.errors import VendoringError

FINETUNING = f"{PACKAGE}._vendor.llama_recipes.finetuning"
PAGE = "docs/architecture.md"
HEADS = {  # of the table in each language's page
    PAGE: ("line", "name in `main`", "what runs", "what it does"),
    "docs/architecture.zh-CN.md": ("行", "`main` 里的名字", "实际运行的代码", "作用"),
}
_MARKED = re.compile(r"(?<=<!-- seams -->\n).*?(?=<!-- /seams -->)", re.DOTALL)


@dataclass(frozen=True)
class Seam:
    """A name that upstream's ``finetuning.py`` takes from this package.

    Attributes:
        name: the name as ``main`` uses it, such as ``AutoConfig.from_pretrained``.
        lines: numbers of the lines of ``finetuning.py`` that use it, from 1, those in ``main``
            first; empty if none does.
        text: the first of these lines.
        definition: where it is defined.
    """

    name: str
    lines: tuple[int, ...]
    text: str
    definition: Definition


def read_seams(package: Path) -> list[Seam]:
    """Return the seams of the copy in place, in the order in which ``main`` uses them.

    What is used outside ``main`` only comes next, and then what is imported and not used.

    Args:
        package: the folder of ``llama_recipes_local``.

    Raises:
        VendoringError: if there is no copy, or the package does not define a name that it imports.
    """
    path = package.joinpath(*FINETUNING.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        raise VendoringError(f"{path} is missing; make it with: {MAKE_COMMAND}")
    definitions = Definitions(package)
    tree = definitions.tree(FINETUNING)
    source = path.read_text("utf-8").splitlines()
    (main,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    modules, names = _imports(tree)
    uses: dict[str, set[int]] = {}
    for name, line in _uses(tree, modules, names):
        uses.setdefault(name, set()).add(line)
    for unused in names.keys() - {name.partition(".")[0] for name in uses}:
        uses[unused] = set()
    seams = []
    for name, found in uses.items():
        lines = sorted(found, key=lambda line: (line < main.lineno, line))
        text = source[lines[0] - 1].strip() if lines else ""
        definition = definitions.find(*_imported(name, modules, names))
        seams.append(Seam(name, tuple(lines), text, definition))

    def order(seam: Seam) -> tuple[bool, bool, int, str]:
        first = seam.lines[0] if seam.lines else 0
        return not seam.lines, first < main.lineno, first, seam.name

    return sorted(seams, key=order)


def _imports(tree: ast.Module) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return what the file imports from this package.

    Returns:
        Modules by the name they have there, and the module and name of everything else.
    """
    modules: dict[str, str] = {}
    names: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.startswith(f"{PACKAGE}.")]
            modules |= {alias.asname or alias.name: alias.name for alias in ours}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{PACKAGE}."):
            names |= {a.asname or a.name: (str(node.module), a.name) for a in node.names}
    return modules, names


def _uses(
    tree: ast.Module, modules: dict[str, str], names: dict[str, tuple[str, str]]
) -> Iterator[tuple[str, int]]:
    """Yield each use of an imported name, with the attribute that is taken of it, and its line."""
    owners = set()
    for node in ast.walk(tree):  # an attribute comes before the name that it is taken of
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules.keys() | names.keys():
                owners.add(node.value)
                yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.Name) and node.id in names and node not in owners:
            yield node.id, node.lineno


def _imported(
    used: str, modules: dict[str, str], names: dict[str, tuple[str, str]]
) -> tuple[str, str]:
    """Return the module and name that a use stands for."""
    name, dot, attribute = used.partition(".")
    if name in modules:
        return modules[name], attribute
    module, original = names[name]
    return module, original + dot + attribute


def plain_table(seams: list[Seam]) -> str:
    """Return the table for a terminal, three lines a seam."""
    rows = []
    for seam in seams:
        lines = ", ".join(map(str, seam.lines)) or "not used"
        where = seam.definition
        place = f"{where.path}:{where.line}  {where.name}" if where.path else _library(where)
        rows.append(f"{lines:>12}  {seam.text or seam.name}\n{'':14}{place}\n{'':14}{_says(seam)}")
    return "\n".join(row.rstrip() for row in rows)


def markdown_table(seams: list[Seam], page: str = PAGE) -> str:
    """Return the table for the documentation, with links from ``docs/``."""
    lines = ["", f"| {' | '.join(HEADS[page])} |", "|---|---|---|---|"]
    for seam in seams:
        numbers = ", ".join(map(str, seam.lines)) or "not used"
        says = _says(seam).replace("|", "\\|")
        where = seam.definition
        place = _library(where)
        if where.path:
            link = f"../{PACKAGE}/{where.path}#L{where.line}"
            place = f"[`{where.path}:{where.line}`]({link}) `{where.name}`"
        lines.append(f"| {numbers} | `{seam.name}` | {place} | {says} |")
    return "\n".join([*lines, "", ""])


def write_table(checkout: Checkout) -> bool:
    """Write the table into the pages of both languages, and return whether that changed one.

    Raises:
        VendoringError: if a page does not have the marks once.
    """
    seams = read_seams(checkout.package)
    changed = [_write_page(checkout.root / page, markdown_table(seams, page)) for page in HEADS]
    return any(changed)


def _write_page(path: Path, table: str) -> bool:
    before = path.read_text("utf-8")
    after, found = _MARKED.subn(lambda _: table, before)
    if found != 1:
        raise VendoringError(f"{path} must have <!-- seams --> and <!-- /seams --> once")
    path.write_text(after, "utf-8")
    return after != before


def _library(where: Definition) -> str:
    return f"{where.module}.{where.name}, unchanged"


def _says(seam: Seam) -> str:
    if "_vendor/" in seam.definition.path:
        return "Upstream's own."
    return seam.definition.summary
