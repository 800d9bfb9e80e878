"""C4_200M's pairs of a corrupted and a clean sentence, read from any of its usual formats.

The Hub's ``liweili/c4_200m`` is a ``data.zip`` of ten files, ``C4_200M.tsv-00000-of-00010`` and so
on: two columns, no header, no quotes. It is read zipped or unpacked; csv, JSON lines and parquet
copies with the columns ``input`` and ``output`` are read too. Files are streamed in natural order:
the guide's script reads them in the order of the file system, which differs between machines.
"""

import re
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from llama_recipes_local.errors import UsageError, refusal, refuse
from llama_recipes_local.messages import join_names, missing_path
from llama_recipes_local.records import finding
from llama_recipes_local.records.checked_values import Record, checked_text, column_of
from llama_recipes_local.records.json_records import read_json_lines
from llama_recipes_local.records.source import Source, compression
from llama_recipes_local.records.tables import read_csv, read_parquet, read_plain_tsv
from llama_recipes_local.records.text_lines import zip_members
from llama_recipes_local.storage.names import natural_key

INPUT = "input"
OUTPUT = "output"
COLUMNS = (INPUT, OUTPUT)
FIX = "name the folder or a file of it: --c4_200m DIR"
ACCEPTED = (
    "C4_200M is read from tsv (such as C4_200M.tsv-00000-of-00010), csv, jsonl or parquet files, "
    "from these (but parquet) compressed as gz, bz2, xz, zst or lz4, or from a zip of them"
)

READERS: dict[str, Callable[[Source], Iterator[Record]]] = {
    "tsv": partial(read_plain_tsv, columns=COLUMNS),
    "csv": partial(read_csv, columns=COLUMNS),
    "jsonl": read_json_lines,
    "parquet": partial(read_parquet, columns=COLUMNS),
}
_FORMATS = {f".{name}": name for name in READERS} | {".ndjson": "jsonl"}
_PART = re.compile(r"-\d+-of-\d+$")


def find_sources(path: Path) -> list[Source]:
    """Return C4_200M's files in a folder, or the one file, in the order in which to read them.

    A zip archive is read only if there is no unpacked file, and a compressed file only if the same
    file is not next to it uncompressed.

    Raises:
        UsageError: if there is nothing to read, or files of several formats, or Git LFS pointers.
    """
    if not path.exists():
        raise UsageError([missing_path(path, FIX)])
    candidates = [path] if path.is_file() else finding.files_below(path)
    plain = finding.without_compressed_copies([file for file in candidates if format_of(file.name)])
    archives = [file for file in candidates if file.suffix.lower() == ".zip"]
    refuse(finding.pointer_problems(plain or archives))
    sources = [Source(file) for file in plain]
    sources = sources or [source for archive in archives for source in _members(archive)]
    if not sources:
        why = f"{_describe(path, archives)}; {ACCEPTED}"
        raise refusal(f"{path} does not contain C4_200M", why, FIX)
    _check_formats(path, sources)
    return sources


def read_examples(source: Source) -> Generator[tuple[str, str], None, None]:
    """Yield the ``(input, output)`` of each record, one at a time.

    Raises:
        UsageError: at the first record that cannot be used, with its line or row.
    """
    for where, record in READERS[format_of(source.name)](source):
        texts = [
            checked_text(column_of(record, column, where), f"{column!r} in {where}")
            for column in COLUMNS
        ]
        yield texts[0], texts[1]


def format_of(name: str) -> str:
    """Return the format of a file by its name; empty if it is not supported."""
    packing = compression(name)
    inner = _PART.sub("", name[: len(name) - len(packing)])
    form = _FORMATS.get(PurePosixPath(inner).suffix.lower(), "")
    return "" if packing and form == "parquet" else form


def _members(archive: Path) -> list[Source]:
    names = sorted(zip_members(archive), key=natural_key)
    visible = [name for name in names if not any(map(finding.is_hidden, PurePosixPath(name).parts))]
    data = [name for name in visible if format_of(name) not in ("", "parquet")]
    return [Source(archive, name) for name in data]


def _describe(path: Path, archives: list[Path]) -> str:
    if archives:
        return f"{archives[0]} holds {join_names(zip_members(archives[0]))}"
    return finding.describe_files(path) if path.is_dir() else "its name has no supported extension"


def _check_formats(path: Path, sources: list[Source]) -> None:
    examples = {format_of(source.name): source.name for source in reversed(sources)}
    if len(examples) > 1:
        named = ", ".join(f"{form} ({name})" for form, name in sorted(examples.items()))
        why = f"it is ambiguous which to read: {named}"
        raise refusal(f"{path} contains C4_200M in several formats", why, FIX)
