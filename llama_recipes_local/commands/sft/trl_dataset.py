"""The user's rows as a ``datasets.Dataset`` in one of TRL's data types."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from datasets.exceptions import DatasetGenerationError
from trl import SFTConfig

import datasets
from llama_recipes_local import __version__, parallel
from llama_recipes_local.commands.sft.flags import DATA_SETTINGS, Arguments
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.datasets.examples import Continuation, Marked, Pair
from llama_recipes_local.datasets.local import LocalPart, find_part, local_dataset
from llama_recipes_local.datasets.rows import RowFormatter, default_template
from llama_recipes_local.datasets.turns import read_turns
from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.storage.hashing import FileHashes

# Raised when the same files would give other rows than before.
FORMAT = 2
_TEXT = datasets.Value("string")
# the columns of TRL's data types
FEATURES = {
    "language modeling": {"text": _TEXT},
    "prompt-completion": {"prompt": _TEXT, "completion": _TEXT},
    "conversational": {"messages": datasets.List({"role": _TEXT, "content": _TEXT})},
}


def data_type(part: LocalPart) -> str:
    """Return the data type of the rows, as TRL calls it."""
    if part.layout.name in ("messages", "conversations"):
        return "conversational"
    return "language modeling" if part.layout.name == "text" else "prompt-completion"


def label_tokens(part: LocalPart, training: SFTConfig) -> str:
    """Describe the label tokens, those that TRL computes the loss on.

    Args:
        part: the data.
        training: the trainer's configuration.
    """
    if training.assistant_only_loss:
        return "the assistant's turns"
    if data_type(part) == "prompt-completion" and training.completion_only_loss is not False:
        return "the completions"
    return "all tokens of each row"


def data_config(options: Arguments) -> local_dataset:
    """Return the ``local_dataset`` that the flags describe."""
    settings = {name: vars(options)[f"local_dataset.{name}"] for name in DATA_SETTINGS}
    return local_dataset(data_path=options.dataset_name, data_root=options.data_root, **settings)


def find(config: local_dataset, training: bool) -> LocalPart:
    """Find a part of the data and read it up to its first usable row.

    Raises:
        UsageError: if there is none; its fix names the flags of ``sft.py``.
    """
    try:
        part = find_part(config, training)
        if not any(row is not None for row in rows(part)):
            raise refusal(
                f"no usable row in {join_names(map(str, part.files))}",
                "rows with an empty prompt or completion are skipped",
                "add rows",
            )
    except UsageError as error:
        raise UsageError([_with_flag_of_sft(problem) for problem in error.problems]) from error
    return part


def rows(part: LocalPart) -> Iterator[dict[str, Any] | None]:
    """Yield each record as a row of its data type; None for one with an empty side.

    Raises:
        UsageError: at the first record that cannot be used.
    """
    if data_type(part) == "conversational":
        ((role, column),) = part.layout.columns
        for record in part.records():
            turns = read_turns(part.layout.values(record)[role], f"{column!r} in {record[0]}")
            yield {"messages": turns} if turns else None
        return
    formatter = RowFormatter(part.layout, default_template(part.layout.name, None), "assistant")
    for record in part.records():
        yield _row(formatter, record)


def load(part: LocalPart, name: str, cache: str) -> datasets.Dataset:
    """Return the rows as a memory-mapped data set, from the cache if the files have not changed.

    Args:
        part: what to read.
        name: the part's name in what is printed.
        cache: the cache's folder; see ``cache_folder``.

    Raises:
        UsageError: at the first record that cannot be used.
    """
    if not parallel.is_rank_zero():
        datasets.disable_progress_bars()
    folder = cache_folder(cache)
    kind = data_type(part)
    try:
        data = datasets.Dataset.from_generator(
            lambda: (row for row in rows(part) if row is not None),
            features=datasets.Features(FEATURES[kind]),
            cache_dir=str(folder / "sft"),
            fingerprint=_key(part, FileHashes(folder / "hashes.json")),
        )
    except DatasetGenerationError as error:
        raise error.__cause__ if isinstance(error.__cause__, UsageError) else error from None
    print(f"--> {name}: {len(data)} rows of {part}{part.held_out_note}; {kind}")
    return data


def _row(formatter: RowFormatter, record: Record) -> dict[str, Any] | None:
    example = formatter(record)
    if isinstance(example, Marked):
        return {"text": example.text}
    if isinstance(example, (Pair, Continuation)):
        return {"prompt": example.prompt, "completion": example.response}
    return None


def _key(part: LocalPart, hashes: FileHashes) -> str:
    """Return the cache key: a hash of everything that determines the rows."""
    content = [FORMAT, __version__, datasets.__version__, hashes.of(part.files)]
    content += [repr(part.layout), part.every, part.training, part.encoding]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


def _with_flag_of_sft(problem: Problem) -> Problem:
    fix = problem.fix.replace("--local_dataset.data_path=", "--dataset_name ")
    return replace(problem, fix=fix)
