"""Where a data set's files are searched for, and reading several of them as one."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llama_recipes_local.errors import refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.records import finding
from llama_recipes_local.records.any_format import Record, format_of, records
from llama_recipes_local.records.source import Source
from llama_recipes_local.storage.names import natural_key

EVERY_RECORD = "every record"


def read_all(sources: Iterable[Source], columns: Sequence[str] = ()) -> Iterator[Record]:
    """Yield the records of several files, one file after another; see ``records``."""
    for source in sources:
        yield from records(source, columns)


def data_files_in(folder: Path) -> list[Path]:
    """Return the files in a folder, but not below it, that can be read, in natural order."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if format_of(path.name) and path.is_file()]
    visible = [path for path in found if not finding.is_hidden(path.name)]
    return sorted(
        finding.without_compressed_copies(visible), key=lambda path: natural_key(path.name)
    )


def one_set(files: list[Path], what: str, fix: str) -> list[Path]:
    """Return the files if they are the parts of one set: they differ in their numbers alone.

    Args:
        files: what was found.
        what: its name in the message.
        fix: what the user can do then.

    Raises:
        UsageError: if they are more than one set, so that it is ambiguous which one to read.
    """
    if len({path.with_name(re.sub("[0-9]+", "", path.name)) for path in files}) > 1:
        why = f"which one to read is ambiguous: {join_names(map(str, files))}"
        raise refusal(f"{what} exists more than once", why, fix)
    return files


def what_is_there(folders: Sequence[Path]) -> str:
    """Return where files were searched, and what those folders hold."""
    searched = f"searched in {' and '.join(map(str, folders))}"
    outer = next((folder for folder in folders if folder.exists()), None)
    if outer is None:
        return f"{searched}, of which none exists"
    found = finding.describe_files(outer) if outer.is_dir() else f"{outer} is a file"
    return f"{searched}; {found}"
