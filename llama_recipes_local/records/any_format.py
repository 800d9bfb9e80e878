"""Reads the records of a data file one at a time, whatever its format and compression.

Data sets call ``records``. Every mistake in a file is a ``UsageError`` that names the file and the
line, row, item or byte.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import describe_folder, missing_path
from llama_recipes_local.records import finding
from llama_recipes_local.records.checked_values import Record as Record
from llama_recipes_local.records.encodings import UTF_8, is_other, wide_encoding
from llama_recipes_local.records.json_records import read_json
from llama_recipes_local.records.plain_text import DOCUMENTS, is_plain_text, read_text
from llama_recipes_local.records.source import EncodingError, Source, compression
from llama_recipes_local.records.tables import read_csv, read_parquet
from llama_recipes_local.records.text_lines import LONGEST_RECORD, beginning

_PART = re.compile(r"-\d+-of-\d+$")
_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
SUPPORTED = (
    "jsonl, json, csv, tsv, txt, md or parquet files, all but parquet also as gz, bz2, xz, zst or "
    "lz4"
)
_SHEET = "a workbook", "save the sheet as CSV (in Excel: Save As, CSV UTF-8), and name that file"
_PAGES = "a formatted document", "save its text as .txt, and name that file"
_ARCHIVE = "an archive", "unpack it, and name the folder"
_ARROW = (
    "a file of Arrow, as save_to_disk of datasets writes it",
    "write it as parquet: datasets.load_from_disk(FOLDER).to_parquet(FILE) for each split",
)
# what is often tried, and in what form it can be read
_OTHERS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".docx", ".doc", ".pdf", ".rtf", ".odt", ".epub"), _PAGES),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), _ARCHIVE),
    **dict.fromkeys((".arrow", ".feather"), _ARROW),
}
# what files of other formats begin with, and the suffix that says so
_MAGIC = {b"PAR1": ".parquet", b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz"}
# names of files that describe data, in the folder with it
_ABOUT_DATA = {
    *("metadata", "dataset_info", "dataset_infos", "dataset_dict", "state", "croissant"),
    *("license", "licence", "readme", "notice", "changelog", "citation", "package", "schema"),
}


def records(
    data: Source | Path,
    columns: Sequence[str] = (),
    form: str = "",
    longest: int = LONGEST_RECORD,
    keep_flawed: bool = False,
) -> Iterator[Record]:
    """Yield the records of a file in order, each with its place in the file ("line 7 of FILE").

    Lines are read one at a time, parquet some rows at a time; a JSON file that is one value is
    held in memory. A tsv file has a header and quotes as a csv file has.

    Args:
        data: the file, or a member of an archive.
        columns: those that a table must have; no others are read from parquet.
        form: "csv", "tsv", "json" or "parquet", or "file", "paragraph" or "line" for a plain text,
            a record each; "" means by the file's name, and paragraphs of a plain text.
        longest: bytes that a line may have, and characters that a cell of a table may have.
        keep_flawed: whether what cannot be read is a ``Flawed`` record where the next ones can be.

    Raises:
        UsageError: at the first record that cannot be used; or if the file is missing, empty, a
            pointer of Git LFS, corrupt, or of an unsupported format.
    """
    source = data if isinstance(data, Source) else Source(data)
    _check_file(source)
    form = form or format_of(source.name) or ("paragraph" if is_plain_text(source.name) else "")
    if form and form != "parquet":
        _check_encoding(source)
    none = True
    for record in _read(source, columns, form, longest, keep_flawed):
        none = False
        yield record
    if none:
        raise refusal(f"{source} has no rows", "there is nothing to train on", "fill it")


def format_of(name: str) -> str:
    """Return the format by a file's name; empty if it is not a supported one."""
    packing = compression(name)
    inner = _PART.sub("", name[: len(name) - len(packing)])
    form = _FORMATS.get(PurePosixPath(inner).suffix.lower(), "")
    return "" if packing and form == "parquet" else form


def data_and_others(folder: Path, fix: str) -> tuple[list[Path], list[Path]]:
    """Return the files in a folder and its folders that are data, and the others.

    Both are in natural order.

    Args:
        folder: where to look.
        fix: what the user can do if there are none.

    Raises:
        UsageError: if there are none, or pointers of Git LFS in their place.
    """
    below = finding.files_below(folder)
    found = finding.without_compressed_copies(_data_among(below))
    if not found:
        for path in below:
            _refuse_other(Source(path))
        why = f"{finding.describe_files(folder)}; supported are {SUPPORTED}"
        raise refusal(f"{folder} contains no supported data file", why, fix)
    pointers = finding.pointer_problems(found)
    if pointers:
        raise UsageError(pointers)
    if len(found) == len(below):
        return found, []
    data = set(found)
    return found, [path for path in below if path not in data]


def _data_among(paths: list[Path]) -> list[Path]:
    """Return the files that are data: plain text only if there is nothing else.

    Those whose name says that they describe data are data if there is nothing else.
    """
    formed = [path for path in paths if format_of(path.name)]
    data = [path for path in formed if path.suffix != ".json" or not _is_about_data(path)]
    texts = [path for path in paths if is_plain_text(path.name) and not _is_about_data(path)]
    no_data = any(_other_suffix(path.name) for path in paths)  # which is then said of them
    return data or texts or ([] if no_data else formed)


def _is_about_data(path: Path) -> bool:
    return path.name.lower().partition(".")[0] in _ABOUT_DATA


def _refuse_other(source: Source) -> None:
    """Refuse a file of a well-known kind that is not read, and say in what form it is."""
    suffix = _other_suffix(source.name)
    if suffix:
        kind, fix = _OTHERS[suffix]
        raise refusal(f"{source} is {kind}", f"{suffix} files are not read", fix)


def _other_suffix(name: str) -> str:
    """Return the suffix of a well-known kind of file that is not read; empty for any other."""
    inner = name[: len(name) - len(compression(name))]
    suffix = PurePosixPath(inner).suffix.lower()
    return suffix if suffix in _OTHERS else ""


def _check_file(source: Source) -> None:
    path = source.path
    if not path.exists():
        raise UsageError([missing_path(path, "copy it there, or name another")])
    if path.is_dir():
        raise refusal(f"{path} is a folder", describe_folder(path), "name a file")
    if not path.is_file():
        why = "it is a pipe or a device, which cannot be read more than once"
        raise refusal(
            f"{path} is not a file", why, "write what it gives into a file, and name that"
        )
    pointers = finding.pointer_problems([path])
    if pointers:
        raise UsageError(pointers)
    if path.stat().st_size == 0:
        raise refusal(f"{source} has no rows", "the file is empty", "fill it")


def _check_encoding(source: Source) -> None:
    """Refuse a file whose beginning shows that it is in another encoding."""
    sample = beginning(source)
    for magic, suffix in _MAGIC.items():
        if sample.startswith(magic):
            what = f"{source} is not text, but a {suffix} file by its beginning"
            raise refusal(what, "it is read as its name says", f"let its name end in {suffix}")
    if source.encoding != UTF_8:
        other = is_other(sample, source.encoding)
        if other:
            why = "its text would be read as other letters"
            fix = "leave the encoding out"
            raise refusal(f"{source} is in {other}, not {source.encoding}", why, fix)
        return
    wide = wide_encoding(sample)
    # a file with a mark is refused at its first byte, and named like any other
    if wide and not sample.startswith((b"\xff", b"\xfe")):
        why = "every second of its bytes is 0"
        fix = f"save it as UTF-8, for example with iconv -f {wide} -t UTF-8"
        raise EncodingError(Problem(f"{source} is in {wide}, not UTF-8", why, fix), wide)


def _read(
    source: Source, columns: Sequence[str], form: str, longest: int, keep_flawed: bool
) -> Iterator[Record]:
    if form == "json":
        return read_json(source, longest, keep_flawed)
    if form == "parquet":
        return read_parquet(source, columns)
    if form in _DELIMITERS:
        return read_csv(source, columns, _DELIMITERS[form], longest, keep_flawed)
    if form in DOCUMENTS:
        return read_text(source, form, longest)
    _refuse_other(source)
    why = f"its name has no supported suffix; supported are {SUPPORTED}"
    raise refusal(f"{source} cannot be read", why, "rename it, or save it in such a format")
