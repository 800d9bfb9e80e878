"""Reads and applies unified diffs, exactly: same bytes at the stated line, or an error.

Lines are bytes and end at a line feed alone. There is no fuzz, no offset and no leniency about
white space: a seam that lands elsewhere than where it was reviewed is a defect, not a help.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.wheel import UPSTREAM_PACKAGE, is_plain_path

NO_NEWLINE = b"\\ No newline at end of file\n"

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(?: .*)?\n")
_EXTENDED = re.compile(rb"^(?:diff |Index: |GIT binary patch|Binary files )", re.MULTILINE)


@dataclass(frozen=True)
class Hunk:
    """One changed stretch of a file.

    Attributes:
        old_start: index of the first line it covers in the file before the patch, from 0.
        new_start: the same in the file after the patch.
        old: the lines it covers, with their line endings.
        new: the lines it puts there.
        added: how many lines it adds.
        removed: how many lines it removes.
    """

    old_start: int
    new_start: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]
    added: int
    removed: int


@dataclass(frozen=True)
class Patch:
    """A patch file, read.

    Attributes:
        name: its file name.
        header: all that stands before the first diff.
        targets: the hunks by path in the copy, in the patch's order.
    """

    name: str
    header: bytes
    targets: Mapping[str, tuple[Hunk, ...]]

    @property
    def added(self) -> int:
        """How many lines the patch adds."""
        return sum(hunk.added for hunks in self.targets.values() for hunk in hunks)

    @property
    def removed(self) -> int:
        """How many lines the patch removes."""
        return sum(hunk.removed for hunks in self.targets.values() for hunk in hunks)


def parse_patch(name: str, content: bytes) -> Patch:
    """Read a patch: a header, then for each target ``---``, ``+++`` and hunks, and nothing else.

    Raises:
        VendoringError: if it is not well-formed, or creates, deletes, renames or leaves the copy.
    """
    lines = content.split(b"\n")
    if lines.pop() != b"":
        raise VendoringError(f"{name}: the last line has no end; the patch was cut short")
    return _Reader(name, [line + b"\n" for line in lines]).patch()


class _Reader:
    """Walks through the lines of one patch."""

    def __init__(self, name: str, lines: list[bytes]) -> None:
        self._name = name
        self._lines = lines
        self._at = 0

    def patch(self) -> Patch:
        while self._peek() and not self._peek().startswith(b"--- "):
            self._at += 1
        header = b"".join(self._lines[: self._at])
        if _EXTENDED.search(header):
            raise self._error(
                "only plain diffs are read, from '--- a/PATH' on: without lines 'diff' or 'index', "
                "modes, renames and binary files"
            )
        targets: dict[str, tuple[Hunk, ...]] = {}
        while self._peek():
            path = self._target()
            if path in targets:
                raise self._error(f"{path} is patched twice")
            targets[path] = self._hunks()
        if not targets:
            raise self._error("there is no diff")
        return Patch(self._name, header, targets)

    def _target(self) -> str:
        old, new = self._label(b"--- ", "a/"), self._label(b"+++ ", "b/")
        if old != new:
            raise self._error(
                f"the target is {old} before and {new} after; renaming is not allowed"
            )
        if not is_plain_path(old) or not old.startswith(f"{UPSTREAM_PACKAGE}/"):
            raise self._error(
                f"the target {old!r} is not a file of {UPSTREAM_PACKAGE}/ in the copy"
            )
        return old

    def _label(self, marker: bytes, prefix: str) -> str:
        line = self._next()
        label = line.removeprefix(marker).removesuffix(b"\n").decode(errors="replace")
        if not line.startswith(marker):
            raise self._error(f"expected a hunk, or '{marker.decode()}{prefix}PATH', not {line!r}")
        if not label.startswith(prefix):
            raise self._error(
                f"the label {label!r} does not start with {prefix}: a patch changes files of the "
                "copy, and neither creates nor deletes any"
            )
        if label != label.strip() or "\t" in label:
            raise self._error(f"the label {label!r} holds more than the path")
        return label.removeprefix(prefix)

    def _hunks(self) -> tuple[Hunk, ...]:
        hunks: list[Hunk] = []
        end, shift = 0, 0
        while self._peek().startswith(b"@@"):
            hunk = self._hunk()
            if hunk.old_start < end:
                raise self._error("hunks overlap or are out of order")
            if hunk.new_start != hunk.old_start + shift:
                raise self._error(
                    f"the hunk of line {hunk.old_start + 1} lands on line "
                    f"{hunk.old_start + shift + 1} after the patch, not {hunk.new_start + 1}"
                )
            end = hunk.old_start + len(hunk.old)
            shift += len(hunk.new) - len(hunk.old)
            hunks.append(hunk)
        if not hunks:
            raise self._error("the target has no hunk")
        return tuple(hunks)

    def _hunk(self) -> Hunk:
        match = _HUNK.fullmatch(self._next())
        if match is None:
            raise self._error("the hunk's first line is not '@@ -LINE,COUNT +LINE,COUNT @@'")
        old_line, old_count, new_line, new_count = map(int, match.groups(b"1"))
        old: list[bytes] = []
        new: list[bytes] = []
        kept = 0
        while len(old) < old_count or len(new) < new_count:
            mark, text = self._body_line()
            if mark in b" -":
                old.append(text)
            if mark in b" +":
                new.append(text)
            kept += mark == b" "
        if (len(old), len(new)) != (old_count, new_count):
            raise self._error("the hunk has other counts of lines than it states")
        if kept == len(old) == len(new):
            raise self._error("the hunk changes nothing")
        # A side without lines states the line before it.
        return Hunk(
            old_start=old_line - (old_count > 0),
            new_start=new_line - (new_count > 0),
            old=tuple(old),
            new=tuple(new),
            added=new_count - kept,
            removed=old_count - kept,
        )

    def _body_line(self) -> tuple[bytes, bytes]:
        line = self._next()
        mark, text = line[:1], line[1:]
        if mark not in (b" ", b"-", b"+"):
            raise self._error(
                f"the hunk has fewer lines than it states, or {line!r} lost its first character"
            )
        if self._peek() == NO_NEWLINE:
            self._at += 1
            text = text.removesuffix(b"\n")
        return mark, text

    def _peek(self) -> bytes:
        """Return the line that comes next; no bytes behind the last."""
        return self._lines[self._at] if self._at < len(self._lines) else b""

    def _next(self) -> bytes:
        line = self._peek()
        self._at += bool(line)
        return line

    def _error(self, what: str) -> VendoringError:
        return VendoringError(f"{self._name}:{self._at}: {what}")


def apply_patch(patch: Patch, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files with the patch applied.

    Args:
        patch: the patch.
        files: the copy's files by path.

    Raises:
        VendoringError: if a target is missing, has other lines than the patch states, or would not
            change.
    """
    patched = dict(files)
    for path, hunks in patch.targets.items():
        if path not in files:
            raise VendoringError(f"{patch.name}: {path} is not in upstream's release")
        patched[path] = _apply_hunks(patch.name, path, hunks, files[path])
        if patched[path] == files[path]:
            raise VendoringError(f"{patch.name}: {path} is the same after the patch as before")
    return patched


def _apply_hunks(name: str, path: str, hunks: tuple[Hunk, ...], content: bytes) -> bytes:
    lines = split_lines(content)
    result: list[bytes] = []
    done = 0
    for hunk in hunks:
        end = hunk.old_start + len(hunk.old)
        for index, expected in enumerate(hunk.old, hunk.old_start):
            found = lines[index] if index < len(lines) else b""
            if found != expected:
                raise VendoringError(
                    f"{name} does not apply: {path}:{index + 1}\n"
                    f"  the patch expects {expected!r}\n  the file has      {found!r}\n"
                    "  fix: edit the patch to match the file, byte for byte"
                )
        if hunk.old_start > len(lines):
            raise VendoringError(f"{name} does not apply: {path} has only {len(lines)} lines")
        result += lines[done : hunk.old_start]
        result += hunk.new
        done = end
    result += lines[done:]
    if any(not line.endswith(b"\n") for line in result[:-1]):
        raise VendoringError(
            f"{name}: {path} would have a line without an end before its last line"
        )
    return b"".join(result)


def split_lines(content: bytes) -> list[bytes]:
    """Split after each line feed and nowhere else; only the last line may lack it."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    last = lines.pop().removesuffix(b"\n")
    return [*lines, last] if last else lines
