"""Writes pairs in the layout of the CSV files that llama-recipes publishes, byte for byte.

These begin with a byte order mark and the header ``input,target``, end each line with a line feed,
including the last, and quote only what needs it.

The guide writes them in two steps: with ``csv.writer`` to files in between, then with pandas'
``read_csv`` and ``to_csv``. What pandas changes in the text is not repeated: it did not affect the
published files and would do harm:

- A cell such as ``NA``, ``None``, ``null`` or ``nan`` is read as missing and written empty. No
  published cell is empty, and a row without a target cannot be trained on.
- A column of nothing but numbers, or nothing but ``TRUE``, is reformatted (``01`` as ``1``).
- A carriage return alone is written without quotes by csv.writer of older Pythons (3.12.1 does,
  3.13 does not), whose own reader then refuses the file. No published cell has one; here it is
  quoted.

pandas keeps cells of white space and line breaks in cells: so does this.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from llama_recipes_local.storage.publishing import published_file

ENCODING = "utf-8-sig"
HEADER = ("input", "target")

_NEEDS_QUOTES = re.compile(r'[,"\r\n]')


def csv_line(first: str, second: str) -> str:
    """Return a row's line, with the line end."""
    return f"{_cell(first)},{_cell(second)}\n"


@contextmanager
def published_csv(target: Path) -> Iterator[TextIO]:
    """Yield a file with the header, which is renamed to ``target`` at the end of the block.

    If the block raises, the file is removed and ``target`` is unchanged.
    """
    with (
        published_file(target) as draft,
        draft.open("w", encoding=ENCODING, newline="") as file,
    ):
        file.write(csv_line(*HEADER))
        yield file


def _cell(text: str) -> str:
    if _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
