"""The user's rows as a ``datasets.Dataset`` in one of TRL's data types."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig

import datasets
from llama_recipes_local import __version__, parallel
from llama_recipes_local.commands.sft.flags import DATA_SETTINGS, Arguments
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.datasets.chat_examples import content_turns
from llama_recipes_local.datasets.examples import Continuation, Marked, Pair
from llama_recipes_local.datasets.local import LocalPart, find_part, local_dataset
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.templates import has_chat_template
from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.storage.hashing import FileHashes
from llama_recipes_local.storage.publishing import write_json

# Raised when the same files would give other rows than before.
FORMAT = 2
# Which names formats that TRL's script does not have.
_TEMPLATE_FLAG = re.compile(r"--local_dataset\.template=\w+( or \w+)*")
_TEXT = datasets.Value("string")
_TURNS = datasets.List({"role": _TEXT, "content": _TEXT})
# the columns of TRL's data types
FEATURES = {
    "language modeling": {"text": _TEXT},
    "prompt-completion": {"prompt": _TEXT, "completion": _TEXT},
    "conversational": {"messages": _TURNS},
    "conversational prompt-completion": {"prompt": _TURNS, "completion": _TURNS},
}


def data_type(part: LocalPart, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return the data type of the rows, as TRL calls it; a chat template makes turns of prompts."""
    if part.layout.name in ("messages", "conversations"):
        return "conversational"
    if part.layout.name == "text":
        return "language modeling"
    turns = has_chat_template(tokenizer)
    return "conversational prompt-completion" if turns else "prompt-completion"


def label_tokens(
    part: LocalPart, training: SFTConfig, tokenizer: PreTrainedTokenizerBase | None
) -> str:
    """Describe the label tokens, those that TRL computes the loss on.

    Args:
        part: the data.
        training: the trainer's configuration.
        tokenizer: the model's.
    """
    if training.assistant_only_loss:
        return "the assistant's turns"
    has_prompt = "prompt" in FEATURES[data_type(part, tokenizer)]
    if has_prompt and training.completion_only_loss is not False:
        return "the completions"
    return "all tokens of each row"


def data_config(options: Arguments) -> local_dataset:
    """Return the ``local_dataset`` that the flags describe."""
    settings = {name: vars(options)[f"local_dataset.{name}"] for name in DATA_SETTINGS}
    return local_dataset(data_path=options.dataset_name, data_root=options.data_root, **settings)


def find(
    config: local_dataset, training: bool, tokenizer: PreTrainedTokenizerBase | None = None
) -> LocalPart:
    """Find a part of the data and read it up to its first usable row.

    Raises:
        UsageError: if there is none; its fix names the flags of ``sft.py``.
    """
    try:
        part = find_part(config, training)
        if not any(row is not None for row in rows(part, tokenizer, Counter())):
            raise refusal(
                f"no usable row in {join_names(map(str, part.files))}",
                "rows with an empty prompt or completion are skipped",
                "add rows",
            )
    except UsageError as error:
        raise UsageError([_with_flag_of_sft(problem) for problem in error.problems]) from error
    return part


def rows(
    part: LocalPart, tokenizer: PreTrainedTokenizerBase | None, notes: Counter[str]
) -> Iterator[dict[str, Any] | None]:
    """Yield each record as a row of its data type; None for one with an empty side.

    Args:
        part: the data.
        tokenizer: the model's; None if it is not known yet.
        notes: gets what is left out of rows, and of how many.

    Raises:
        UsageError: at the first record that cannot be used.
    """
    formatter = RowFormatter(part.layout, "auto", "assistant").for_tokenizer(tokenizer)
    for record in part.records():
        if formatter.template == "tokenizer":
            row, found = _turns(formatter, record, tokenizer)
        else:
            row, found = _texts(formatter, record, tokenizer)
        if row is not None:
            notes.update(dict.fromkeys((*formatter.unused(record[1]), *found), 1))
        yield row


def load(
    part: LocalPart, name: str, cache: str, tokenizer: PreTrainedTokenizerBase | None = None
) -> datasets.Dataset:
    """Return the rows as a memory-mapped data set, from the cache if the files have not changed.

    Args:
        part: what to read.
        name: the part's name in what is printed.
        cache: the cache's folder; see ``cache_folder``.
        tokenizer: the model's.

    Raises:
        UsageError: at the first record that cannot be used.
    """
    if not parallel.is_rank_zero():
        datasets.disable_progress_bars()
    folder = cache_folder(cache)
    kind = data_type(part, tokenizer)
    key = _key(part, tokenizer, FileHashes(folder / "hashes.json"))
    notes: Counter[str] = Counter()
    try:
        data = datasets.Dataset.from_generator(
            lambda: (row for row in rows(part, tokenizer, notes) if row is not None),
            features=datasets.Features(FEATURES[kind]),
            cache_dir=str(folder / "sft"),
            fingerprint=key,
        )
    except DatasetGenerationError as error:
        raise error.__cause__ if isinstance(error.__cause__, UsageError) else error from None
    print(f"--> {name}: {len(data)} rows of {part}{part.held_out_note}; {kind}")
    for note, number in _kept_notes(folder / "sft" / f"notes-{key}.json", notes).items():
        print(f"-->   not as in the records: {note}: {number:,}")
    return data


def _kept_notes(path: Path, notes: Counter[str]) -> dict[str, int]:
    """Return the notes on rows, from where they were kept if the rows are from the cache."""
    if notes and parallel.is_rank_zero():
        write_json(path, dict(notes))
    if notes or not path.is_file():
        return dict(notes)
    kept: dict[str, int] = json.loads(path.read_text("utf-8"))
    return kept


def _turns(
    formatter: RowFormatter, record: Record, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return a record as turns, in a prompt and a completion unless the record has turns."""
    said = formatter.conversation(record)
    if said is None:
        return None, ()
    turns: list[dict[str, Any]] = said.turns
    notes: tuple[str, ...] = ()
    if tokenizer is not None and tokenizer.chat_template:
        turns, notes = content_turns(said, tokenizer, record[0])
    if formatter.layout.name in ("messages", "conversations"):
        return {"messages": turns}, notes
    return {"prompt": turns[:-1], "completion": turns[-1:]}, notes


def _texts(
    formatter: RowFormatter, record: Record, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    example = formatter(record, tokenizer)
    if isinstance(example, Marked):
        return {"text": example.text}, example.notes
    if isinstance(example, (Pair, Continuation)):
        return {"prompt": example.prompt, "completion": example.response}, example.notes
    return None, ()


def _key(part: LocalPart, tokenizer: PreTrainedTokenizerBase | None, hashes: FileHashes) -> str:
    """Return the cache key: a hash of everything that determines the rows."""
    content = [FORMAT, __version__, datasets.__version__, hashes.of(part.files)]
    content += [repr(part.layout), part.every, part.training, part.which]
    content.append(tokenizer.chat_template if tokenizer is not None else None)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


def _with_flag_of_sft(problem: Problem) -> Problem:
    fix = problem.fix.replace("--local_dataset.data_path=", "--dataset_name ")
    fix = _TEMPLATE_FLAG.sub("--chat_template_path FILE", fix)
    return replace(problem, fix=fix)
