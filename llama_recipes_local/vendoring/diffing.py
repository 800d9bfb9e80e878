"""Writes unified diffs of bytes, the same every time: fixed context, plain labels, no dates."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from llama_recipes_local.vendoring.patching import NO_NEWLINE, split_lines

CONTEXT_LINES = 3


def unified_diff(path: str, before: bytes, after: bytes) -> bytes:
    """Return the diff that turns ``before`` into ``after``; no bytes if they are the same.

    Args:
        path: the file's path in the copy, for the labels.
        before: the file's content before the patch.
        after: its content after it.
    """
    if before == after:
        return b""
    old, new = split_lines(before), split_lines(after)
    # Without autojunk: that heuristic would depend on how long the file is.
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    parts = [f"--- a/{path}\n+++ b/{path}\n".encode()]
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        (_, old_start, _, new_start, _), (_, _, old_end, _, new_end) = group[0], group[-1]
        old_range, new_range = _range(old_start, old_end), _range(new_start, new_end)
        parts.append(f"@@ -{old_range} +{new_range} @@\n".encode())
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                parts += _marked(b" ", old[old_from:old_to])
            else:
                parts += _marked(b"-", old[old_from:old_to])
                parts += _marked(b"+", new[new_from:new_to])
    return b"".join(parts)


def _range(start: int, end: int) -> str:
    """Count from 1; no lines are stated by the line before them, and a count of 1 is left out."""
    count = end - start
    if count == 0:
        return f"{start},0"
    return f"{start + 1}" if count == 1 else f"{start + 1},{count}"


def _marked(mark: bytes, lines: Sequence[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield mark + line
        if not line.endswith(b"\n"):
            yield b"\n" + NO_NEWLINE
