"""Files, names, links and lines of upstream's ``main`` that the documentation names are there."""

import ast
import re
from pathlib import Path

import pytest

from llama_recipes_local import _upstream

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "llama_recipes_local"
PAGES = sorted(
    path.relative_to(PROJECT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "datasets/*.md", "patches/*.md", "examples/*.md")
    for path in PROJECT.glob(pattern)
)
FOR_DEVELOPERS = [page for page in PAGES if page.startswith("docs/")] + [
    "CONTRIBUTING.md",
    "CONTRIBUTING.zh-CN.md",
]
MADE = {"checkpoint-STEP/", "tensorboard/", "wandb/", "mlruns/", "outputs/"}  # by a run
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.py)")


def text_of(page: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"```.*?```", "", (PROJECT / page).read_text("utf-8"), flags=re.DOTALL)


def file_named(name: str) -> Path | None:
    """Return the file or folder that a page means: of the package, the project or the copy."""
    places = [PACKAGE / name, PROJECT / name, _upstream.VENDORED_DIR / name]
    return next((path for path in places if path.exists()), None)


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md"} <= set(PAGES)


@pytest.mark.parametrize("page", FOR_DEVELOPERS)
def test_files_that_a_page_names_are_there(page: str) -> None:
    names = {name for name in CODE.findall(text_of(page)) if FILE.fullmatch(name)}
    assert {name for name in names if file_named(name) is None} <= MADE


def test_the_page_on_architecture_names_files() -> None:
    names = [name for name in CODE.findall(text_of("docs/architecture.md")) if FILE.fullmatch(name)]
    assert len(names) > 60


@pytest.mark.parametrize("page", FOR_DEVELOPERS)
def test_a_file_defines_the_name_after_it(page: str) -> None:
    named = re.findall(r"`([\w/.]+\.py)`\]?(?:\([^)]*\))? `([\w.]+)`", text_of(page))
    for file, name in named:
        path = file_named(file)
        assert path is not None, file
        assert name.split(".")[0] in defined_in(path), f"{file} {name}"


def defined_in(path: Path) -> set[str]:
    """Return the names that a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (PROJECT / page).parent / file if file else PROJECT / page
        assert target.exists(), f"{page}: {link}"
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in [slug(heading) for heading in headings], f"{page}: {link}"


def slug(heading: str) -> str:
    """Return the anchor that hosting sites give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_lines_of_main_are_as_the_page_on_architecture_quotes_them() -> None:
    source = (_upstream.VENDORED_DIR / "finetuning.py").read_text("utf-8").splitlines()
    rows = re.findall(
        r"^\| ([\d, -]+) \| (`[^|]+`) \| [^|]+ \| [^|]*\|$",
        text_of("docs/architecture.md"),
        re.MULTILINE,
    )
    assert len(rows) > 25
    for lines, quoted in rows:
        meant = []
        for part in lines.split(", "):
            first, _, last = part.partition("-")
            meant.append("\n".join(source[int(first) - 1 : int(last or first)]))
        fragments = CODE.findall(quoted)
        assert all(any(fragment in text for text in meant) for fragment in fragments), quoted
        assert all(any(fragment in text for fragment in fragments) for text in meant), quoted
