"""Puts a table that a benchmark makes into the pages that show it."""

from collections.abc import Callable, Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def put_into_pages(mark: str, pages: Iterable[str], table: Callable[[str], str]) -> None:
    """Write ``table(page)`` between the marks ``<!-- mark -->`` and ``<!-- /mark -->`` of pages."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    for page in pages:
        before, begins, rest = (DOCS / page).read_text("utf-8").partition(begin)
        _, ends, after = rest.partition(end)
        assert begins and ends, f"{DOCS / page} has no marks {begin.strip()} and {end}"
        (DOCS / page).write_text(before + begin + table(page) + end + after, "utf-8")
