"""``local_dataset``: a user's own files, found, divided into splits, and their layout detected."""

from __future__ import annotations

import codecs
import errno
import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local.configs.values import check_fields
from llama_recipes_local.datasets.base import Dataset, Split
from llama_recipes_local.datasets.column_names import LAYOUTS
from llama_recipes_local.datasets.layouts import (
    FORMAT_FLAG,
    Layout,
    find_layout,
    parse_columns,
)
from llama_recipes_local.datasets.locating import EVERY_RECORD
from llama_recipes_local.datasets.rows import CHOICES, RowFormatter
from llama_recipes_local.datasets.templates import FLAG as TEMPLATE_FLAG
from llama_recipes_local.datasets.templates import has_chat_template
from llama_recipes_local.errors import UsageError, refusal, refuse
from llama_recipes_local.fields import FOLDER, TEXT, Choices, Range, Resume
from llama_recipes_local.messages import join_names, missing_path
from llama_recipes_local.records.any_format import SUPPORTED, data_and_others, format_of, records
from llama_recipes_local.records.checked_values import Flawed, Record
from llama_recipes_local.records.encodings import UTF_8, is_known
from llama_recipes_local.records.finding import files_matching, without_compressed_copies
from llama_recipes_local.records.json_records import split_names
from llama_recipes_local.records.plain_text import DOCUMENTS, has_paragraphs, is_plain_text
from llama_recipes_local.records.source import EncodingError, Source
from llama_recipes_local.records.tables import delimiter_of
from llama_recipes_local.records.text_lines import LONGEST_RECORD
from llama_recipes_local.storage import data_root

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENCODING_FLAG = "--local_dataset.encoding"
DOCUMENTS_FLAG = "--local_dataset.documents"
DATA_FLAG = "--local_dataset.data_path=PATH"
VALIDATION_FLAG = "--local_dataset.validation_path=PATH"
LABELS = ("assistant", "all")
LOOKED_AT = 100
"""Records that are looked at for their layout, until one has one."""
HELD_OUT = Range(
    "above 0 and at most 0.5",
    lambda share: 0 < share <= 0.5,
    otherwise=f"to train on every row, name the rows for validation: {VALIDATION_FLAG}",
)

_NAMES = {
    "train": re.compile(r"(?<![a-z])[a-z]?train(ing)?(?![a-z])"),
    "validation": re.compile(r"(?<![a-z])(valid|validation|val|eval|evaluation|dev)(?![a-z])"),
    "test": re.compile(r"(?<![a-z])(test|testing)(?![a-z])"),
}


@dataclass
class local_dataset:
    """A user's own data: jsonl, json, csv, tsv, parquet or plain text, its columns detected."""

    dataset: Annotated[str, TEXT, Resume.FREE] = "local_dataset"
    train_split: Annotated[str, TEXT, Resume.DATA] = "train"
    test_split: Annotated[str, TEXT, Resume.DATA] = "validation"
    data_path: Annotated[str, FOLDER, Resume.DATA] = "datasets/local/"
    """A file, a folder or a glob pattern; compressed files too."""
    validation_path: Annotated[str, FOLDER, Resume.DATA] = ""
    """The same for validation. "" means the files named for it (validation, val, eval, dev or test)
    if ``data_path`` has some next to those named train, and rows that are held out otherwise."""
    validation_fraction: Annotated[float, HELD_OUT, Resume.DATA] = 0.05
    """The share of rows held out if there are no files for validation: 0.05 is every 20th row,
    beginning with the first. Above 0, at most 0.5; to train on every row, name the rows for
    validation with ``validation_path``."""
    format: Annotated[str, Choices("auto", *LAYOUTS), Resume.DATA] = "auto"
    """What a record is: "instruction", "prompt", "conversations", "messages" or "text"; "auto"
    detects it from the first record's columns."""
    columns: Annotated[str, TEXT, Resume.DATA] = ""
    """Columns of other names, as ``prompt=question,completion=answer``; "" detects them."""
    documents: Annotated[str, Choices("auto", *DOCUMENTS), Resume.DATA] = "auto"
    """What a document of a plain text file (txt, md) is: "file", "paragraph" (blank lines separate
    them) or "line". "auto" is file for several files; for one, paragraph if it has blank lines
    between its lines, and line otherwise."""
    encoding: Annotated[str, TEXT, Resume.DATA] = "utf-8"
    """The encoding of the files' text, such as gb18030, utf-16 or cp1252 (Windows-1252); a file in
    another one is refused, with the one that it is probably in."""
    template: Annotated[str, Choices("auto", *CHOICES), Resume.DATA] = "auto"
    """How a record becomes text: "tokenizer" is the chat template of the model's folder, "llama2",
    "llama3", "chatml" and "guanaco" are public chat formats, "alpaca" is Alpaca's prompt and a
    space before the answer, "none" adds nothing. "auto" is tokenizer where the model's folder has a
    chat template, but for plain text; where it has none, alpaca for instructions and none for
    prompts."""
    labels: Annotated[str, Choices(*LABELS), Resume.DATA] = "assistant"
    """What is trained: "assistant" is what the assistant says (a completion, an output, and all of
    plain text), "all" is everything."""
    skip_bad_rows: Annotated[bool, Resume.DATA] = False
    """Leave out rows that cannot be used, and count them, instead of refusing their file."""
    streaming: Annotated[bool, Resume.DATA] = False
    """Read and tokenise rows during training, for more data than is worth caching."""
    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


@dataclass(frozen=True)
class LocalPart:
    """The training or the validation part of the user's data.

    Attributes:
        files: the files it is read from.
        every: one of so many rows is held out for validation; 0 if none is.
        training: whether it is the part to train on.
        layout: the role of each column.
        left_out: files that are in neither part.
        encoding: of their text.
        documents: what a document of a plain text file is; empty if there is none.
        split: the key of its rows in a JSON file of several splits; empty for any other file.
        choices: lines that tell the user what was chosen in reading them.
    """

    files: tuple[Path, ...]
    every: int
    training: bool
    layout: Layout
    left_out: tuple[Path, ...] = ()
    encoding: str = UTF_8
    documents: str = ""
    split: str = ""
    choices: tuple[str, ...] = ()

    def records(self) -> Iterator[Record]:
        """Yield the part's records; of each ``every`` rows the first is for validation."""
        number = 0
        for path in self.files:
            source = Source(path, encoding=self.encoding, split=self.split)
            for record in _records(source, self.documents):
                if not self.every or (number % self.every == 0) != self.training:
                    yield record
                number += 1

    def __str__(self) -> str:
        of = f"{self.split!r} in " if self.split else ""
        return f"{self.layout} from {of}{join_names(map(str, self.files))}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that tell the user which files are in neither part."""
        if not self.left_out:
            return self.choices
        files = join_names(map(str, self.left_out))
        return (*self.choices, f"--> skipped files, whose names are of no split: {files}")

    @property
    def held_out_note(self) -> str:
        """Which rows are held out, to follow the part's description; empty if none are."""
        if not self.every:
            return ""
        which = "all rows but" if self.training else "of the rows,"
        return f"; {which} the first of each {self.every}: there are no files for validation"

    @property
    def share(self) -> float | None:
        """About what part of the files' records it has; None of a JSON file of several splits."""
        if self.split:
            return None
        if not self.every:
            return 1.0
        return 1 - 1 / self.every if self.training else 1 / self.every

    @property
    def which(self) -> str:
        """Which records of the files the part has; see ``Split.part``."""
        decoded = "" if self.encoding == UTF_8 else f", read as {self.encoding}"
        decoded += f", a {self.documents} each" if self.documents else ""
        decoded += f", of {self.split!r}" if self.split else ""
        if not self.every:
            return f"{EVERY_RECORD}{decoded}"
        held_out = f"1 record in {self.every}"
        return f"all but {held_out}{decoded}" if self.training else f"{held_out}{decoded}"


@dataclass(frozen=True)
class _Chosen:
    """The files that a part is read from.

    Attributes:
        files: the files, in natural order.
        every: one of so many rows is held out for validation; 0 if none is.
        left_out: data files that are in neither part.
        others: files below the folder that are not data.
        folder: the folder, if that was named.
    """

    files: list[Path]
    every: int = 0
    left_out: Sequence[Path] = ()
    others: Sequence[Path] = ()
    folder: Path = Path()


def find_part(config: local_dataset, training: bool) -> LocalPart:
    """Find the files of a part of the user's data, and detect their layout from the first record.

    Args:
        config: a ``local_dataset``.
        training: whether the part to train on is wanted; else the one for validation.

    Raises:
        UsageError: if a flag is wrong, there is no file, or the first record has no known layout.
    """
    refuse(check_fields(config, f"{config.dataset}."))
    named = parse_columns(config.columns)
    chosen = _chosen(config, training)
    files = chosen.files
    encoding = _encoding(config.encoding)
    documents = _documents(config, files, encoding)
    split = _split_in(Source(files[0], encoding=encoding), training) if len(files) == 1 else ""
    every = 0 if split else chosen.every
    source = Source(files[0], encoding=encoding, split=split)
    begun = list(islice(_records(source, documents), 2))
    layout = _layout(_records(source, documents), config.format, named)
    if every and training and len(files) == 1 and len(begun) < 2:
        suffix = files[0].suffix
        raise refusal(
            f"{files[0]} has one record",
            "the first is held out for validation: none is left to train on",
            f"add records, or make a folder of train{suffix} and validation{suffix}, and name that",
        )
    choices = (*_skipped(chosen), *_separators(files, encoding))
    if documents:
        choices += (f"--> plain text: a document is a {documents}; {DOCUMENTS_FLAG}=NAME",)
    left = tuple(chosen.left_out)
    return LocalPart(
        tuple(files), every, training, layout, left, encoding, documents, split, choices
    )


def _split_in(source: Source, training: bool) -> str:
    """Return the key of a part's rows in a JSON file of several splits; empty for any other."""
    kinds = {kind: name for name in _json_splits(source) for kind in _kinds_named(name)}
    for_validation = kinds.get("validation") or kinds.get("test") or ""
    if not ("train" in kinds and for_validation):
        return ""
    return kinds["train"] if training else for_validation


def _json_splits(source: Source) -> list[str]:
    return split_names(source) if format_of(source.name) == "json" else []


def _layout(records: Iterator[Record], wanted: str, named: Mapping[str, str]) -> Layout:
    """Return the layout of the first record that has one.

    Raises:
        UsageError: if none has; with what is wrong with the first readable one.
    """
    refused: UsageError | None = None
    unreadable = True
    for record in islice(records, LOOKED_AT):
        try:
            return find_layout(record, wanted, named)
        except UsageError as error:
            is_flawed = isinstance(record[1], Flawed)
            if refused is None or (unreadable and not is_flawed):
                refused, unreadable = error, is_flawed
    assert refused is not None, "a file without records is refused by its reader"
    raise refused


def _documents(config: local_dataset, files: Sequence[Path], encoding: str) -> str:
    """Return what a document of the plain text files is; empty if there are none."""
    texts = [path for path in files if is_plain_text(path.name)]
    if not texts or config.documents != "auto":
        return config.documents if texts else ""
    if len(texts) > 1:
        return "file"
    source = Source(texts[0], encoding=encoding)
    try:
        return "paragraph" if has_paragraphs(source, LONGEST_RECORD) else "line"
    except UsageError:  # reported where it is read
        return "paragraph"


def _separators(files: Sequence[Path], encoding: str) -> Iterator[str]:
    """Yield a line for a first table whose cells are separated otherwise than its name says."""
    usual = {"csv": ",", "tsv": "\t"}.get(format_of(files[0].name))
    if usual:
        found = delimiter_of(Source(files[0], encoding=encoding), usual, LONGEST_RECORD)
        if found != usual:
            yield f"--> {files[0]}: cells are separated by {found!r}, as its header shows"


def _skipped(chosen: _Chosen) -> Iterator[str]:
    """Yield a line for the files of the folder that are not read as data."""
    if chosen.others:
        folder = chosen.folder
        names = join_names(str(path.relative_to(folder)) for path in chosen.others)
        yield f"--> skipped in {folder}: {names}; to read one, name it or a glob: {DATA_FLAG}"


def _encoding(name: str) -> str:
    """Return Python's name of an encoding."""
    if not is_known(name):
        raise refusal(
            f"{ENCODING_FLAG}={name} is not known",
            "Python has no text encoding of this name",
            f"name one such as gb18030, utf-16 or cp1252: {ENCODING_FLAG}=NAME",
        )
    return codecs.lookup(name).name


def _records(source: Source, documents: str = "") -> Iterator[Record]:
    """Yield a file's records; for a wrong encoding, the fix is the flag for it."""
    form = documents if is_plain_text(source.name) else ""
    try:
        yield from records(source, form=form, keep_flawed=True)
    except EncodingError as error:
        (problem,) = error.problems
        flag = f"{ENCODING_FLAG}={error.guess or 'NAME'}"
        raise UsageError([replace(problem, fix=f"{flag}, or {problem.fix}")]) from error


def split(config: local_dataset, part: str) -> Split:
    """Find a split of the user's data, and note how it is read.

    Args:
        config: a ``local_dataset``.
        part: its ``train_split``; anything else is validation.

    Raises:
        UsageError: if a flag is wrong, there is no file, or the first record has no known layout.
    """
    found = find_part(config, part == config.train_split)
    formatter = _formatter(config, found.layout)
    note = f"--> {part}: {found}, labels {formatter.labels}{found.held_out_note}"
    notes = *found.notes, note
    return Split(found.files, found.which, found.records, formatter, notes, found.share)


def for_tokenizer(split: Split, tokenizer: PreTrainedTokenizerBase) -> Split:
    """Return a split with the template that "auto" means for a tokenizer, and a note about it."""
    formatter = split.formatter
    assert isinstance(formatter, RowFormatter)
    chosen = formatter.for_tokenizer(tokenizer)
    why = ""
    if formatter.template == "auto":
        has = "has" if has_chat_template(tokenizer) else "does not have"
        why = f": the model's folder {has} one; another is {TEMPLATE_FLAG}=NAME"
        if chosen.layout.name == "text":
            why = ": plain text"
    note = f"--> template {chosen.template}{why}"
    return replace(split, formatter=chosen, notes=(*split.notes, note))


def _chosen(config: local_dataset, training: bool) -> _Chosen:
    """Return a split's files, and which rows of them belong to it."""
    found = _files(config, config.data_path, DATA_FLAG)
    if config.validation_path:
        held_out = _files(config, config.validation_path, VALIDATION_FLAG)
        if not training:
            return held_out
        known = set(held_out.files)
        # the same file for both is the user's wish; a folder's own validation files are not
        rest = [path for path in found.files if path not in known]
        return replace(found, files=rest or found.files)
    kinds = _kinds(found.files)
    for_validation = "validation" if "validation" in kinds else "test"
    if not ("train" in kinds and for_validation in kinds):
        return replace(found, every=round(1 / config.validation_fraction))
    of_kind = list(zip(found.files, kinds, strict=True))
    wanted = "train" if training else for_validation
    return replace(
        found,
        files=[path for path, kind in of_kind if kind == wanted],
        left_out=[path for path, kind in of_kind if kind not in ("train", for_validation)],
    )


def _files(config: local_dataset, path: str, flag: str) -> _Chosen:
    """Return the files that a path means, in natural order.

    Raises:
        UsageError: if there are none.
    """
    if not path.strip():
        why = "the working directory would be read, as an unset variable of a shell asks for"
        raise refusal(f"{flag.partition('=')[0]} is empty", why, f"name a file or folder: {flag}")
    if re.match("[a-z][a-z0-9+]*://", path):
        why = "data is read from this machine alone: nothing is fetched"
        raise refusal(f"{path} is an address, not a file", why, f"download it, and name it: {flag}")
    place = data_root.resolve(path, config.data_root)
    if place == Path(place.anchor):
        why = "every file of this machine would be read"
        raise refusal(f"{place} is the root of the file system", why, f"name a folder: {flag}")
    try:
        place.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            what = f"{flag.partition('=')[0]} {path:.40}... cannot be a path"
            raise refusal(what, str(error.strerror), f"name a file or folder: {flag}") from error
    if place.is_dir():
        data, others = data_and_others(place, f"put them there, or name another place: {flag}")
        return _Chosen(data, others=others, folder=place)
    if place.is_file():
        return _Chosen([place])
    if place.exists():
        why = "it is read more than once, and a pipe or device can only be read once"
        raise refusal(
            f"{place} is not a file", why, f"write it to a file first, or name one: {flag}"
        )
    if not glob.has_magic(str(place)):
        raise UsageError([missing_path(place, f"put data there, or name another place: {flag}")])
    files = files_matching(place)
    if not files:
        raise refusal(f"no file matches {place}", f"supported are {SUPPORTED}", f"name one: {flag}")
    return _Chosen(without_compressed_copies(files))


def _kinds(files: Sequence[Path]) -> list[str]:
    """Return the split that each file belongs to, by its name or its folder's.

    Empty if neither tells. Folders that contain all the files are ignored.
    """
    shared = os.path.commonpath([path.parent for path in files])
    inner = [str(path)[len(shared) :].split(os.sep) for path in files]
    kinds_of = cache(_kinds_named)
    named = (next(filter(None, map(kinds_of, reversed(parts))), ()) for parts in inner)
    return [kinds[0] if len(kinds) == 1 else "" for kinds in named]


def _kinds_named(name: str) -> tuple[str, ...]:
    """Return the splits that a file's or a folder's name, or a key, names."""
    return tuple(kind for kind, known in _NAMES.items() if known.search(name.lower()))


def _formatter(config: local_dataset, layout: Layout) -> RowFormatter:
    template = config.template
    if template == "auto":
        return RowFormatter(layout, template, config.labels, config.skip_bad_rows)
    if layout.name not in CHOICES[template]:
        matching = [name for name, layouts in CHOICES.items() if layout.name in layouts]
        raise refusal(
            f"{TEMPLATE_FLAG}={template} is incompatible with {layout} records",
            f"it is for {', '.join(CHOICES[template])}",
            f"name another, {TEMPLATE_FLAG}={matching[0]}, or another layout, {FORMAT_FLAG}=NAME",
        )
    return RowFormatter(layout, template, config.labels, config.skip_bad_rows)


DATASET = Dataset(
    config=local_dataset,
    split=split,
    flag=DATA_FLAG,
    needs_tokenizer=True,  # its chat template
    for_tokenizer=for_tokenizer,
)
