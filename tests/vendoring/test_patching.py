"""The applier takes a patch exactly as it stands, or refuses it."""

import random
import subprocess
from pathlib import Path

import pytest
from git_checkout import needs_git

from llama_recipes_local.vendoring.diffing import unified_diff
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.patching import apply_patch, parse_patch, split_lines

PATH = "llama_recipes/x.py"
LABELS = b"--- a/llama_recipes/x.py\n+++ b/llama_recipes/x.py\n"
OLD = b"one\ntwo  \nthree\nfour\nfive\nsix\nseven\n"
HUNK = b"@@ -2,3 +2,4 @@\n two  \n-three\n+THREE\n+and a half\n four\n"


def applied(patch: bytes, old: bytes = OLD) -> bytes:
    return apply_patch(parse_patch("x.patch", patch), {PATH: old, "other": b""})[PATH]


def refused(patch: bytes, message: str, old: bytes = OLD) -> None:
    with pytest.raises(VendoringError, match=message):
        applied(patch, old)


def test_applies_and_leaves_other_files() -> None:
    patch = parse_patch("x.patch", b"Description: d\n\n" + LABELS + HUNK)
    assert patch.header == b"Description: d\n\n"
    assert (patch.added, patch.removed) == (2, 1)
    files = apply_patch(patch, {PATH: OLD, "other": b"o"})
    assert files == {
        PATH: b"one\ntwo  \nTHREE\nand a half\nfour\nfive\nsix\nseven\n",
        "other": b"o",
    }


def test_applies_two_hunks_with_a_section_and_counts_of_one() -> None:
    patch = LABELS + b"@@ -1 +1,2 @@ def f():\n one\n+1.5\n@@ -6,2 +7 @@\n six\n-seven\n"
    assert applied(patch) == b"one\n1.5\ntwo  \nthree\nfour\nfive\nsix\n"


def test_applies_insertion_without_context() -> None:
    assert applied(LABELS + b"@@ -0,0 +1 @@\n+zero\n") == b"zero\n" + OLD
    assert applied(LABELS + b"@@ -7,0 +8 @@\n+eight\n") == OLD + b"eight\n"


def test_a_hunk_line_may_look_like_a_label() -> None:
    assert applied(LABELS + b"@@ -1 +1 @@\n--- a/x\n+++ b/x\n", b"-- a/x\n") == b"++ b/x\n"


NO_END = b"\\ No newline at end of file\n"


@pytest.mark.parametrize(
    ("hunk", "old", "new"),
    [
        (b"-a\n" + NO_END + b"+b\n" + NO_END, b"a", b"b"),
        (b"-a\n" + NO_END + b"+a\n", b"a", b"a\n"),
        (b"-a\n+a\n" + NO_END, b"a\n", b"a"),
    ],
)
def test_a_last_line_without_end(hunk: bytes, old: bytes, new: bytes) -> None:
    assert applied(LABELS + b"@@ -1 +1 @@\n" + hunk, old) == new


def test_a_line_end_that_is_missing_in_the_file_is_refused() -> None:
    refused(LABELS + b"@@ -1 +1 @@\n-a\n+b\n", "does not apply", b"a")
    refused(LABELS + b"@@ -1 +1 @@\n-a\n" + NO_END + b"+b\n", "does not apply", b"a\n")


def test_a_line_without_end_in_the_middle_is_refused() -> None:
    refused(LABELS + b"@@ -1 +1 @@\n-one\n+ONE\n" + NO_END, "line without an end")


def test_an_offset_is_refused() -> None:
    refused(LABELS + HUNK, "does not apply", b"zero\n" + OLD)
    refused(LABELS + HUNK.replace(b"-2,3 +2,4", b"-3,3 +3,4"), "does not apply")


def test_fuzz_is_refused() -> None:
    refused(LABELS + HUNK.replace(b" four", b" fourth"), "does not apply")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (b" two  \n", b" two\n"),
        (b" two  \n", b" two \t\n"),
        (b"-three\n", b"-three \n"),
        (b" four\n", b" four\r\n"),
        (b" four\n", b"  four\n"),
    ],
)
def test_other_white_space_is_refused(here: bytes, there: bytes) -> None:
    assert here in HUNK
    refused(LABELS + HUNK.replace(here, there), "does not apply")


def test_a_carriage_return_is_part_of_the_line() -> None:
    patch = LABELS + b"@@ -1,2 +1,2 @@\n a\r\n-b\r\n+c\r\n"
    assert applied(patch, b"a\r\nb\r\n") == b"a\r\nc\r\n"


def test_the_message_shows_both_lines() -> None:
    refused(
        LABELS + HUNK.replace(b" four", b" fourth"),
        r"x.patch does not apply: llama_recipes/x.py:4\n.*b'fourth\\n'\n.*b'four\\n'",
    )


def test_a_hunk_past_the_end_is_refused() -> None:
    refused(LABELS + b"@@ -9,0 +10 @@\n+ten\n", "has only 7 lines")
    refused(LABELS + b"@@ -8 +8 @@\n-eight\n+8\n", "does not apply")


def test_a_patch_that_changes_nothing_is_refused() -> None:
    refused(LABELS + b"@@ -1 +1 @@\n-one\n+one\n", "same after the patch")
    refused(LABELS + b"@@ -1 +1 @@\n one\n", "changes nothing")


def test_a_missing_target_is_refused() -> None:
    patch = parse_patch("x.patch", LABELS + HUNK)
    with pytest.raises(VendoringError, match="not in upstream's release"):
        apply_patch(patch, {"other": b""})


@pytest.mark.parametrize(
    "path",
    [
        "../x.py",
        "llama_recipes/../../x.py",
        "llama_recipes/./x.py",
        "llama_recipes//x.py",
        "/llama_recipes/x.py",
        "llama_recipes\\..\\x.py",
        "C:/x.py",
        "manifest.json",
        "__init__.py",
        "llama_recipes",
    ],
)
def test_a_target_outside_the_copy_is_refused(path: str) -> None:
    refused(LABELS.replace(PATH.encode(), path.encode()) + HUNK, "is not a file of llama_recipes/")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (b"", "no diff"),
        (b"Description: d\n", "no diff"),
        (LABELS, "no hunk"),
        (LABELS + HUNK[:-1], "cut short"),
        (LABELS + HUNK.replace(b"2,3", b"2,4"), "fewer lines than it states"),
        (LABELS + HUNK.replace(b"2,3", b"2,2"), "other counts"),
        (LABELS + HUNK.replace(b"+2,4", b"+2,3"), "other counts"),
        (LABELS + HUNK + b" five\n", "expected a hunk"),
        (LABELS + HUNK + b"\n", "expected a hunk"),
        (LABELS + HUNK.replace(b"+2,4", b"+3,4"), "lands on line"),
        (LABELS + HUNK + HUNK, "overlap"),
        (LABELS + b"@@ -0,1 +0,1 @@\n-one\n+ONE\n", "overlap or are out of order"),
        (LABELS + HUNK.replace(b"@@ -2,3 +2,4 @@", b"@@ -2,3 +2,4"), "first line is not"),
        (LABELS + HUNK + LABELS + HUNK, "patched twice"),
        (LABELS.replace(b"b/llama_recipes/x", b"b/llama_recipes/y") + HUNK, "renaming"),
        (LABELS.replace(b"a/llama_recipes/x.py", b"/dev/null") + HUNK, "neither creates"),
        (LABELS.replace(b"b/llama_recipes/x.py", b"/dev/null") + HUNK, "nor deletes"),
        (LABELS.replace(b"x.py\n", b"x.py\t2026-01-31\n") + HUNK, "more than the path"),
        (b"diff --git a/x b/x\nindex 1..2\n" + LABELS + HUNK, "only plain diffs"),
        (b"GIT binary patch\n" + LABELS + HUNK, "only plain diffs"),
        (b"Binary files a/x and b/x differ\n" + LABELS + HUNK, "only plain diffs"),
        (LABELS + HUNK.replace(b"\n", b"\r\n"), "first line is not"),
    ],
)
def test_a_malformed_patch_is_refused(patch: bytes, message: str) -> None:
    refused(patch, message)


def test_an_empty_context_line_that_lost_its_space_is_refused() -> None:
    patch = LABELS + b"@@ -1,2 +1,2 @@\n\n-a\n+b\n"
    refused(patch, "lost its first character", b"\na\n")
    assert applied(patch.replace(b"@@\n\n", b"@@\n \n"), b"\na\n") == b"\nb\n"


def _random_text(random_state: random.Random) -> bytes:
    lines = random_state.choices([b"a\n", b"b\n", b"\n", b"c \n", b"d\r\n"], k=30)
    last = random_state.choice([b"", b"end", b"\\"])
    return b"".join(lines) + last


@pytest.mark.parametrize("seed", range(50))
def test_every_difference_applies_to_what_it_was_made_from(seed: int) -> None:
    random_state = random.Random(seed)
    old = _random_text(random_state)
    lines = split_lines(old)
    assert b"".join(lines) == old
    for _ in range(random_state.randrange(1, 6)):
        at = random_state.randrange(len(lines))
        lines[at : at + random_state.randrange(2)] = [b"new %d\n" % random_state.randrange(100)]
    new = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines[:-1])
    new += lines[-1]
    patch = unified_diff(PATH, old, new)
    assert applied(patch, old) == new
    assert unified_diff(PATH, old, new) == patch


@needs_git
def test_other_tools_read_what_refresh_writes(tmp_path: Path) -> None:
    old, new = b"a\n" * 9 + b"z", b"new\n" + b"a\n" * 5 + b"b\n" + b"a\n" * 4 + b"end"
    target = tmp_path / PATH
    target.parent.mkdir()
    target.write_bytes(old)
    subprocess.run(
        ["git", "apply", "--whitespace=error-all", "-"],
        cwd=tmp_path,
        input=unified_diff(PATH, old, new),
        check=True,
    )
    assert target.read_bytes() == new
