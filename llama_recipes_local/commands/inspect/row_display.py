"""Rows as text in which label tokens are marked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.errors import printable

STRIP_COLUMNS = 96
LISTED_DOCUMENTS = 12


@dataclass(frozen=True)
class Style:
    """The marks around a span of label tokens, and around a span without labels."""

    label: tuple[str, str]
    prompt: tuple[str, str]


COLOUR = Style(label=("\x1b[1;32m", "\x1b[0m"), prompt=("\x1b[2m", "\x1b[0m"))
PLAIN = Style(label=("[[", "]]"), prompt=("", ""))


def legend(style: Style) -> str:
    """Return the legend of a style."""
    trained, prompt = _styled("trained", True, style), _styled("prompt", False, style)
    return f"{trained}   {prompt}"


def row_text(
    row: Mapping[str, Sequence[int]], tokenizer: PreTrainedTokenizerBase, style: Style
) -> str:
    """Return a row's text, printable, with the spans of label tokens marked."""
    texts = []
    for trained, ids in _spans(row):
        text = tokenizer.decode(ids, skip_special_tokens=False)
        texts.append(_styled(printable(str(text)), trained, style))
    return "".join(texts)


def packed_layout(row: Mapping[str, Sequence[int]], context_length: int, style: Style) -> str:
    """Return a drawing and a list of a packed row's documents and labels.

    Args:
        row: ``input_ids``, ``labels`` and ``position_ids``; a document starts at position 0.
        context_length: positions in a row; unused ones are shown empty.
        style: how labels are marked.
    """
    bounds = _documents(row["position_ids"])
    labels = row["labels"]
    used = len(row["input_ids"])
    trained = len(labels) - labels.count(IGNORE_INDEX)
    lines = [
        f"{len(bounds)} documents, {used:,} of {context_length:,} positions, {trained:,} labels",
        _strip(bounds, labels, context_length, style),
    ]
    for number, (start, end) in enumerate(bounds[:LISTED_DOCUMENTS], 1):
        count = end - start - list(labels[start:end]).count(IGNORE_INDEX)
        lines.append(
            f"  document {number:>3}: positions {start:>6} to {end - 1:>6}, {count} labels"
        )
    if len(bounds) > LISTED_DOCUMENTS:
        lines.append(f"  and {len(bounds) - LISTED_DOCUMENTS} more")
    return "\n".join(lines)


def _spans(row: Mapping[str, Sequence[int]]) -> Iterator[tuple[bool, list[int]]]:
    tokens = zip(row["input_ids"], row["labels"], strict=True)
    for trained, group in groupby(tokens, key=lambda token: token[1] != IGNORE_INDEX):
        yield trained, [token for token, _ in group]


def _styled(text: str, trained: bool, style: Style) -> str:
    before, after = style.label if trained else style.prompt
    return f"{before}{text}{after}"


def _documents(positions: Sequence[int]) -> list[tuple[int, int]]:
    starts = [index for index, position in enumerate(positions) if position == 0]
    return list(zip(starts, [*starts[1:], len(positions)], strict=True))


def _strip(bounds: list[tuple[int, int]], labels: Sequence[int], length: int, style: Style) -> str:
    """Draw a row to scale: documents as alternating characters, labels in their style."""
    columns = min(STRIP_COLUMNS, length)
    cells: list[tuple[str, bool]] = []
    document = 0
    for column in range(columns):
        position = column * length // columns
        if position >= len(labels):
            cells.append((" ", False))
            continue
        while position >= bounds[document][1]:
            document += 1
        cells.append(("#="[document % 2], labels[position] != IGNORE_INDEX))
    drawn = groupby(cells, key=lambda cell: cell[1])
    return (
        "|" + "".join(_styled("".join(c for c, _ in group), t, style) for t, group in drawn) + "|"
    )
