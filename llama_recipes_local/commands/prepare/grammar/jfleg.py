"""JFLEG's sentences with their corrections, from a clone of the Hub's or the original repository.

These are read for each of the two splits:

- parquet, as ``data/validation-00000-of-00001.parquet`` (``jhu-clsp/jfleg``) or
  ``default/validation/0000.parquet`` (the Hub's own conversion), with ``sentence`` and
  ``corrections``;
- json or json lines, as ``validation.jsonl``, with the same keys;
- the original text, ``dev/dev.src`` with ``dev/dev.ref0`` to ``dev.ref3``.
"""

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from llama_recipes_local.errors import Problem, UsageError, refusal, refuse
from llama_recipes_local.messages import join_names, missing_path
from llama_recipes_local.records import finding
from llama_recipes_local.records.checked_values import Record, checked_text, column_of
from llama_recipes_local.records.json_records import read_json
from llama_recipes_local.records.source import Source, compression
from llama_recipes_local.records.tables import read_parquet
from llama_recipes_local.records.text_lines import text_lines, without_end

SENTENCE = "sentence"
CORRECTIONS = "corrections"
REFERENCES = 4
VALIDATION = "validation"
TEST = "test"
FIX = "name the folder that holds both splits: --jfleg DIR"

# The words in a file's or folder's name that identify its split.
_SPLIT_WORDS = {
    VALIDATION: VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    TEST: TEST,
}
_SOURCES = {VALIDATION: "dev.src", TEST: "test.src"}


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the files of the splits ``validation`` and ``test``, in the order to read them.

    For the original text these are the file of sentences and the four files of references.

    Raises:
        UsageError: with every problem: a missing folder, split or reference file, a split that is
            there twice, Git LFS pointers.
    """
    if not folder.exists():
        raise UsageError([missing_path(folder, FIX)])
    if not folder.is_dir():
        raise refusal(f"{folder} is a file", "JFLEG is a folder with two splits", FIX)
    below = finding.without_compressed_copies(finding.files_below(folder))
    splits: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    for name in (VALIDATION, TEST):
        found = [path for path in below if _is_read(path, name) and _split(path, folder) == name]
        try:
            splits[name] = _only_split(folder, name, found)
        except UsageError as error:
            problems += error.problems
    refuse(problems)
    return splits


def read_split(paths: list[Path]) -> Iterator[tuple[str, list[str]]]:
    """Yield each sentence of a split's files with its corrections, blank ones included.

    Raises:
        UsageError: at the first record that cannot be used, with its line or row.
    """
    sources = [Source(path) for path in paths]
    if paths[0].name in _SOURCES.values():
        yield from _read_text(sources)
        return
    for source in sources:
        for where, record in _records(source):
            sentence = column_of(record, SENTENCE, where)
            corrections = column_of(record, CORRECTIONS, where)
            if not isinstance(corrections, list):
                why = f"it is {corrections!r:.80}"
                raise refusal(f"{CORRECTIONS!r} in {where} is not a list", why)
            yield (
                checked_text(sentence, f"{SENTENCE!r} in {where}"),
                [checked_text(text, f"one of {CORRECTIONS!r} in {where}") for text in corrections],
            )


def _records(source: Source) -> Iterator[Record]:
    if source.path.suffix == ".parquet":
        return read_parquet(source, (SENTENCE, CORRECTIONS))
    return read_json(source)


def _read_text(sources: list[Source]) -> Iterator[tuple[str, list[str]]]:
    for number, lines in enumerate(zip_longest(*map(text_lines, sources)), 1):
        ended = [str(source) for source, line in zip(sources, lines, strict=True) if line is None]
        if ended:
            raise refusal(
                f"{', '.join(ended)} ends before line {number}",
                f"each line of {sources[0]} has one in each reference file",
                "download the files again",
            )
        texts = [
            checked_text(without_end(text), f"line {number} of {source}")
            for source, (_, text) in zip(sources, lines, strict=True)
        ]
        yield texts[0], texts[1:]


def _is_read(path: Path, split: str) -> bool:
    """Return whether a file of that name can be of the split."""
    text = Path(path.name.removesuffix(compression(path.name))).suffix in (".json", ".jsonl")
    return text or path.suffix == ".parquet" or path.name == _SOURCES[split]


def _split(path: Path, folder: Path) -> str:
    """Return the split by the last word of a path that identifies one; empty if none does."""
    words = re.split(r"[-._/]", path.relative_to(folder).as_posix())
    return next((_SPLIT_WORDS[word] for word in reversed(words) if word in _SPLIT_WORDS), "")


def _only_split(folder: Path, name: str, found: list[Path]) -> list[Path]:
    """Return the files of the split, which are in one folder and differ only in their numbers."""
    if not found:
        why = (
            f"{finding.describe_files(folder)}; looked for {name}*.parquet, {name}*.json, "
            f"{name}*.jsonl, and {_SOURCES[name]} with its references .ref0 to .ref{REFERENCES - 1}"
        )
        raise refusal(f"{folder} does not contain the {name} split of JFLEG", why, FIX)
    if len({path.with_name(re.sub("[0-9]+", "", path.name)) for path in found}) > 1:
        told = join_names(path.relative_to(folder).as_posix() for path in found)
        why = f"it is ambiguous which to read: {told}"
        raise refusal(f"{folder} contains the {name} split of JFLEG more than once", why, FIX)
    if found[0].name == _SOURCES[name]:
        found = [found[0], *_references(found[0])]
    pointers = finding.pointer_problems(found)
    if pointers:
        raise UsageError(pointers)
    return found


def _references(sentences: Path) -> list[Path]:
    paths = [sentences.with_suffix(f".ref{number}") for number in range(REFERENCES)]
    missing = ", ".join(path.name for path in paths if not path.is_file())
    if missing:
        held = finding.describe_files(sentences.parent)
        why = f"each sentence has {REFERENCES} corrections; {held}"
        raise refusal(f"{sentences} has no {missing} next to it", why, "download them")
    return paths
