"""Every page has its pair in the other language: the same commands, headings, links and tables."""

import re
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CHINESE = ".zh-CN.md"
WITHOUT_PAIR = {
    "CHANGELOG.md": "a record, each line of which names flags and files",
    "benchmarks/README.md": "a record of figures; docs/hardware.md has those to choose by",
    "benchmarks/NOTES.md": "a record of what was tried, for those who change kernels",
    "docs/decisions.md": "a dated log beside the commits, which are in English",
    "patches/README.md": "for maintainers, who read upstream's code in English",
}
FOLDERS = (".", "docs", "datasets", "examples", "benchmarks", "patches", "tests")
PAGES = sorted(
    path.relative_to(PROJECT).as_posix()
    for folder in FOLDERS
    for path in (PROJECT / folder).glob("*.md")
)
ENGLISH = [page for page in PAGES if not page.endswith(CHINESE)]
PAIRED = [page for page in ENGLISH if page not in WITHOUT_PAIR]


def pair_of(page: str) -> str:
    return page.removesuffix(".md") + CHINESE


def read(page: str) -> str:
    return (PROJECT / page).read_text("utf-8")


def prose(page: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)


def code_blocks(page: str) -> list[tuple[str, str]]:
    """Return language and text of each block of code, without comments in shell."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)
    return [
        (language, re.sub(r" +# .*", "", text) if language == "shell" else text)
        for language, text in blocks
    ]


def heading_levels(page: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]


def linked_files(page: str) -> Counter[str]:
    """Return the files and addresses that a page leads to, each in English, with their number."""
    links = re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", prose(page))
    return Counter(link.replace(".zh-CN.", ".") for link in links)


def flags(page: str) -> set[str]:
    """Return the flags that a page names."""
    code = " ".join(re.findall(r"`([^`\n]+)`", prose(page)))
    return set(re.findall(r"(?<![\w-])--[a-z]\w[\w.]*", code))


def table_shapes(page: str) -> list[tuple[int, int]]:
    """Return the rows and columns of each table."""
    tables = re.findall(r"(?:^\|.*\|$\n?)+", prose(page), re.MULTILINE)
    return [(table.count("\n"), table.splitlines()[0].count("|")) for table in tables]


def test_pages_are_found() -> None:
    assert {"README.md", "docs/models.md", "datasets/README.md"} <= set(PAIRED)


def test_every_page_has_a_pair_or_a_reason_for_none() -> None:
    assert [page for page in PAIRED if pair_of(page) not in PAGES] == []
    chinese = {page for page in PAGES if page.endswith(CHINESE)}
    assert chinese == {pair_of(page) for page in PAIRED}


@pytest.mark.parametrize("page", PAIRED)
@pytest.mark.parametrize(
    "facts",
    [code_blocks, heading_levels, linked_files, flags, table_shapes],
    ids=lambda f: f.__name__,
)
def test_both_languages_have_the_same(page: str, facts) -> None:
    assert facts(pair_of(page)) == facts(page)


@pytest.mark.parametrize("page", PAIRED)
def test_each_leads_to_the_other_first(page: str) -> None:
    for one, other in ((page, pair_of(page)), (pair_of(page), page)):
        first = re.search(r"\]\(([^)\s]+)\)", prose(one))
        assert first is not None and first[1] == Path(other).name


@pytest.mark.parametrize("page", PAIRED)
def test_a_chinese_page_leads_to_chinese_pages(page: str) -> None:
    here = (PROJECT / page).parent
    for link in re.findall(r"\]\(([^)#\s]+\.md)", prose(pair_of(page))):
        target = (here / link).resolve().relative_to(PROJECT).as_posix()
        assert target.endswith(CHINESE) or target in WITHOUT_PAIR or target == page, link
