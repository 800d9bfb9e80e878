"""Differences have one form: three lines of context, plain labels, no dates."""

import pytest

from llama_recipes_local.vendoring.diffing import unified_diff

PATH = "llama_recipes/x.py"
TEN = b"".join(b"%d\n" % number for number in range(1, 11))


def test_the_form() -> None:
    assert unified_diff(PATH, TEN, TEN.replace(b"5\n", b"five  \nmore\n")) == (
        b"--- a/llama_recipes/x.py\n+++ b/llama_recipes/x.py\n"
        b"@@ -2,7 +2,8 @@\n 2\n 3\n 4\n-5\n+five  \n+more\n 6\n 7\n 8\n"
    )


def test_no_difference() -> None:
    assert unified_diff(PATH, TEN, TEN) == b""


@pytest.mark.parametrize(
    ("before", "after", "hunk"),
    [
        (b"", b"a\n", b"@@ -0,0 +1 @@\n+a\n"),
        (b"a\n", b"", b"@@ -1 +0,0 @@\n-a\n"),
        (
            b"a",
            b"b",
            b"@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n",
        ),
        (b"a\n", b"a\r\n", b"@@ -1 +1 @@\n-a\n+a\r\n"),
        (b"\xff\n", b"\xfe\n", b"@@ -1 +1 @@\n-\xff\n+\xfe\n"),
    ],
)
def test_edges(before: bytes, after: bytes, hunk: bytes) -> None:
    assert unified_diff(PATH, before, after).split(b"\n", 2)[2] == hunk


def test_far_changes_get_a_hunk_each() -> None:
    text = b"".join(b"%d\n" % number for number in range(30))
    diff = unified_diff(PATH, text, text.replace(b"\n5\n", b"\nx\n").replace(b"\n25\n", b"\ny\n"))
    assert diff.count(b"@@ -") == 2


def test_a_line_that_occurs_often_is_still_matched() -> None:
    """difflib's heuristic for long files would drop lines that make up more than a hundredth."""
    diff = unified_diff(PATH, b"same\n" * 300, b"same\n" * 150 + b"new\n" + b"same\n" * 150)
    hunk = diff.split(b"\n", 2)[2]
    assert hunk.count(b"\n+") == 1
    assert hunk.count(b"\n-") == 0
