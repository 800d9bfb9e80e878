"""Reads plain text files as records with one text: a file, a paragraph or a line each."""

from collections.abc import Iterator

from llama_recipes_local.errors import refusal
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.records.source import Source, compression
from llama_recipes_local.records.text_lines import text_lines, whole_text

DOCUMENTS = ("file", "paragraph", "line")
_SUFFIXES = (".txt", ".md")


def is_plain_text(name: str) -> bool:
    """Return whether a file's name is that of plain text, compressed or not."""
    return name.lower().removesuffix(compression(name)).endswith(_SUFFIXES)


def has_paragraphs(source: Source, longest: int) -> bool:
    """Return whether a blank line stands between two lines of a file."""
    blank = begun = False
    for _, line in text_lines(source, longest):
        if begun and blank and line.strip():
            return True
        begun = begun or bool(line.strip())
        blank = not line.strip()
    return False


def read_text(source: Source, documents: str, longest: int) -> Iterator[Record]:
    """Yield the documents of a file.

    Args:
        source: what to read.
        documents: one of ``DOCUMENTS``; paragraphs are separated by blank lines.
        longest: the most bytes of a line, and characters of a document.
    """
    if documents == "file":
        text = whole_text(source)
        _check_length(text, str(source), longest)
        if text.strip():
            yield str(source), {"text": text.rstrip("\n")}
        return
    lines: list[str] = []
    first = size = 0
    for number, line in text_lines(source, longest):
        if line.strip():
            first = first if lines else number
            lines.append(line)
            size += len(line)
        if lines and (documents == "line" or not line.strip() or size > longest):
            yield _document(lines, first, source, longest)
            lines, size = [], 0
    if lines:
        yield _document(lines, first, source, longest)


def _document(lines: list[str], first: int, source: Source, longest: int) -> Record:
    where, text = f"line {first} of {source}", "".join(lines).rstrip("\r\n")
    _check_length(text, where, longest)
    return where, {"text": text}


def _check_length(text: str, where: str, longest: int) -> None:
    if len(text) > longest:
        why = f"a document has at most {longest} characters"
        raise refusal(f"{where} has {len(text)}", why, "separate its documents by blank lines")
