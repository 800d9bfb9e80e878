"""The user's rows for TRL, with the ids and labels that ``finetuning.py`` would train on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

import datasets
from llama_recipes_local import parallel
from llama_recipes_local.commands.sft.flags import DATA_SETTINGS, Arguments
from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.file_checks import check_files
from llama_recipes_local.datasets.layouts import Layout
from llama_recipes_local.datasets.local import DATA_FLAG, DATASET, local_dataset
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.datasets.templates import FLAG as TEMPLATE_FLAG
from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.models.loading import pad_with_a_row
from llama_recipes_local.run import Run

# TRL's names of the parts
NAMES: dict[Part, str] = {"train": "train", "test": "eval"}
_IDS = datasets.List(datasets.Value("int32"))
_FEATURES = {"input_ids": _IDS, "labels": _IDS}


def data_flags(options: Arguments, given: set[str]) -> dict[str, Any]:
    """Return the flags of ``finetuning.py`` that name the same data.

    Args:
        options: the value of every flag.
        given: the names of those that the user gave.
    """
    settings = {name: vars(options)[f"local_dataset.{name}"] for name in DATA_SETTINGS}
    if "dataset_text_field" in given and not settings["columns"]:
        settings["columns"] = f"text={options.dataset_text_field}"
    if "local_dataset.labels" not in given:
        settings["labels"] = asked_labels(options) or settings["labels"]
    return {
        "dataset": "local_dataset",
        "context_length": options.max_length,
        "data_cache": options.data_cache,
        "data_root": options.data_root,
        "run_validation": options.eval_strategy != "no",
        "local_dataset.data_path": options.dataset_name,
        **{f"local_dataset.{name}": value for name, value in settings.items()},
    }


def asked_labels(options: Arguments) -> str:
    """Return the ``local_dataset.labels`` that TRL's flags mean; empty if none was given.

    ``assistant_only_loss`` is off by default, so only what is on says something, and
    ``completion_only_loss`` in both ways.
    """
    if options.assistant_only_loss or options.completion_only_loss:
        return "assistant"
    return "all" if options.completion_only_loss is False else ""


def data_type(layout: Layout) -> str:
    """Return what TRL calls data of a layout."""
    if layout.name in ("messages", "conversations"):
        return "conversational"
    return "language modeling" if layout.name == "text" else "prompt-completion"


def parts_of(options: Arguments) -> tuple[Part, ...]:
    """Return the parts of the data that the run reads."""
    return ("train",) if options.eval_strategy == "no" else ("train", "test")


def check_rows(
    config: local_dataset, parts: tuple[Part, ...], tokenizer: PreTrainedTokenizerBase | None
) -> list[Problem]:
    """Return what is wrong with the data's files and first records; fixes have TRL's flags.

    Without a tokenizer, whose absence is a problem of its own, no record is formatted.
    """
    if tokenizer is not None:
        problems = check_files(DATASET, config, parts, tokenizer)
    else:
        problems = [problem for part in parts for problem in _not_found(config, part)]
    return [_with_flag_of_sft(problem) for problem in dict.fromkeys(problems)]


def _not_found(config: local_dataset, part: Part) -> list[Problem]:
    try:
        find_split(DATASET, config, part)
    except UsageError as error:
        return error.problems
    return []


def files_of(config: local_dataset, parts: tuple[Part, ...]) -> dict[str, list[str]]:
    """Return the files that the parts are read from, by TRL's names."""
    splits = {part: find_split(DATASET, config, part) for part in parts}
    return {NAMES[part]: list(map(str, split.files)) for part, split in splits.items() if split}


def layout_of(config: local_dataset) -> Layout:
    """Return the layout of the training part, whose files have been checked."""
    split = find_split(DATASET, config, "train")
    assert split is not None and isinstance(split.formatter, RowFormatter)
    return split.formatter.layout


def load(
    run: Run, parts: tuple[Part, ...], tokenizer: PreTrainedTokenizerBase
) -> dict[str, datasets.Dataset]:
    """Tokenise and audit the parts, and return their rows, memory-mapped, by TRL's names.

    Raises:
        UsageError: if records cannot be used, or there is nothing to train on.
    """
    if not parallel.is_rank_zero():
        datasets.disable_progress_bars()
    data = prepare_data(run, parts, tokenizer)
    run.data = data
    print(f"\n{data}\n")
    _name_new_tokens(run, tokenizer)
    folder = cache_folder(run.train.data_cache) / "sft"
    rows = {part: data.splits[part] for part in parts}
    return {NAMES[part]: _for_trl(each, folder) for part, each in rows.items()}


def _name_new_tokens(run: Run, tokenizer: PreTrainedTokenizerBase) -> None:
    """Name the tokens whose rows the model has not trained, and pad with one that has a row.

    Raises:
        UsageError: if the data has tokens that the model has no rows for; TRL does not resize it.
    """
    new = run.data.new_tokens if run.data is not None else None
    if new is None:
        return
    if new.grows:
        raise refusal(
            f"tokens that the model has no rows for: {join_names(new.missing.values())}",
            f"the data has some of them, the model has {new.rows:,} rows, and TRL does not add any",
            "use finetuning.py, which adds their rows, with --train_new_tokens to train them",
        )
    if new.untrained:
        fate = "not trained, only the adapter is" if run.train.use_peft else "trained"
        names = join_names(new.untrained.values())
        print(f"--> tokens whose rows the model has not trained: {names}; they are {fate}")
    pad_with_a_row(tokenizer, new)


def _for_trl(rows: TokenRows, folder: Path) -> datasets.Dataset:
    """Return rows as TRL takes tokenised ones; its own preparation keeps them as they are."""
    return datasets.Dataset.from_generator(
        lambda: _samples(rows),
        features=datasets.Features(_FEATURES),
        cache_dir=str(folder),
        fingerprint=rows.content_hash,
    )


def _samples(rows: TokenRows) -> Iterator[dict[str, Any]]:
    for row in range(len(rows)):
        ids, labels = rows.arrays(row)
        yield {"input_ids": ids, "labels": labels}


def _with_flag_of_sft(problem: Problem) -> Problem:
    flag = DATA_FLAG.partition("=")[0]
    fix = problem.fix.replace(f"{flag}=", "--dataset_name ").replace(flag, "--dataset_name")
    renamed = replace(problem, fix=fix)
    if TEMPLATE_FLAG not in fix:
        return renamed
    return renamed.or_else("name a template of your own: --chat_template_path FILE")
