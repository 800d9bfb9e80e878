"""Fits text to a terminal: columns, boxes, commands over several lines, paths."""

import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

COLUMNS = 80
"""What fits every terminal; lines in files are as long at most."""

# a line may be broken after a word, and after each Chinese character
_UNITS = re.compile(r"[\u1100-\uffff]|[^\s\u1100-\uffff]+\s*|\s+")
NOTE_INDENT = len("--> ")
_AS_ASCII = str.maketrans("╭╮╰╯│─", "++++|-")


def columns_of(text: str) -> int:
    """Return how many columns a text takes: two for each Chinese character, say."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def width_of(stream: TextIO) -> int:
    """Return the columns of the terminal that a stream writes to; ``COLUMNS`` if it is none."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else COLUMNS


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; None, Python's stream that is closed, is not."""
    return stream is not None and stream.isatty()


def redraws(stream: TextIO | None) -> bool:
    """Return whether a line can be drawn again on a stream: a terminal, or a notebook's output."""
    return is_terminal(stream) or (hasattr(stream, "pub_thread") and _is_attended())


def _is_attended() -> bool:
    """Return whether someone looks at this notebook: a saved page would keep each redrawn line.

    Programs that execute notebooks, such as nbconvert, report that nobody can be asked for input.
    """
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython() if ipython else None, "kernel", None)
    request = kernel.get_parent() if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin"))


def clock(seconds: float) -> str:
    """Write a number of seconds as m:ss, from an hour on as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def fitting(parts: Iterable[tuple[int, str]], width: int) -> str:
    """Join the parts of a line; if it is too long, leave the least important ones out.

    Args:
        parts: in the line's order, each with its rank; parts of a low rank are the last to be left
            out.
        width: columns of the line.
    """
    parts = list(parts)
    kept: set[int] = set()
    for index in sorted(range(len(parts)), key=lambda index: parts[index][0]):
        line = _join(parts, kept | {index})
        if columns_of(line) <= width:
            kept.add(index)
    return _join(parts, kept)


def _join(parts: Sequence[tuple[int, str]], kept: set[int]) -> str:
    return "  ".join(text for index, (_, text) in enumerate(parts) if index in kept)


def box(title: str, blocks: Iterable[Sequence[str]], width: int = COLUMNS) -> str:
    """Return blocks of lines in a frame, an empty line between two of them.

    A line that is too long is wrapped, and indented as its second column. A word that is too long,
    such as a path, is left whole, because it would be of no use in two pieces; the frame is open
    there.
    """
    inner = width - 4
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        for line in block:
            lines += _wrapped(line, inner)
    top = f"╭─ {title} ".ljust(width - 1, "─") + "╮"
    rooms = [inner - columns_of(line) for line in lines]
    framed = [
        f"│ {line}{' ' * room} │" if room >= 0 else f"│ {line}"
        for line, room in zip(lines, rooms, strict=True)
    ]
    return "\n".join([top, *framed, "╰" + "─" * (width - 2) + "╯"])


def encodable(text: str, stream: TextIO) -> str:
    """Return a text; its frame is drawn in ASCII if a stream cannot encode lines and corners."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.translate(_AS_ASCII)
    return text


def shell_command(words: Sequence[str], width: int = COLUMNS) -> str:
    """Return a command for a shell, continued on further lines where it is too long for one."""
    groups: list[str] = []  # a flag and its value stay on one line
    for word in words:
        if groups and not word.startswith("--"):
            groups[-1] += f" {shlex.quote(word)}"
        else:
            groups.append(shlex.quote(word))
    lines = [groups[0]]
    for group in groups[1:]:
        room = width if group is groups[-1] else width - 2
        if columns_of(f"{lines[-1]} {group}") <= room:
            lines[-1] += f" {group}"
        else:
            lines.append(f"    {group}")
    return " \\\n".join(lines)


def shown_path(path: Path) -> str:
    """Return a path from the working directory if it is below it, else the absolute path."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def note_in(text: str, width: int) -> str:
    """Wrap a command's note, ``--> ...`` and the lines indented below it, between words."""
    if not text.startswith("--> "):
        return text
    lines = (_wrapped(line, width, NOTE_INDENT) for line in text.split("\n"))
    return "\n".join(piece for pieces in lines for piece in pieces)


def _wrapped(line: str, width: int, indent: int | None = None) -> list[str]:
    """Return a line in pieces; those after the first are indented, by default as its 2nd column."""
    if columns_of(line) <= width:
        return [line]
    if indent is None:
        name, gap, _ = line.partition("  ")
        indent = len(line) - len((line[len(name) :] if gap else line).lstrip())
    left = line[:indent]
    pieces = [left]
    for unit in _UNITS.findall(line[indent:]):
        if columns_of(pieces[-1] + unit.rstrip()) > width and len(pieces[-1]) > indent:
            pieces.append(" " * columns_of(left))
        pieces[-1] += unit
    return [piece.rstrip() for piece in pieces]
