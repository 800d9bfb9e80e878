"""Rules for the data: which data is read, how it is batched, and what it needs from the run."""

from collections.abc import Sequence
from dataclasses import replace

from llama_recipes_local import configs
from llama_recipes_local.configs.model_types import VISION
from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.configs.values import check_fields
from llama_recipes_local.data.truncation import SHORTEST
from llama_recipes_local.datasets.base import PARTS, Split
from llama_recipes_local.datasets.file_checks import check_files
from llama_recipes_local.datasets.local import DATA_FLAG
from llama_recipes_local.datasets.mixed_sources import MIXED
from llama_recipes_local.datasets.mixture import MIXTURE_FLAG
from llama_recipes_local.datasets.registry import DATASETS, NAMING
from llama_recipes_local.datasets.tokenized_splits import is_tokenized
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import FOLDER, field_names, fields_with
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.preflight.model import check_tokenizer
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run, Source


def check_row_length(run: Run) -> list[Problem]:
    """Find packed rows that are too short to have a label."""
    train = run.train
    if train.batching_strategy != "packing" or not 0 < train.context_length < SHORTEST:
        return []
    return [
        Problem(
            f"--context_length {train.context_length}",
            "a row of one token has no label",
            f"give --context_length {SHORTEST} or more",
        )
    ]


def check_stream(run: Run, training: bool = True) -> list[Problem]:
    """Find streamed data for which the run or evaluation does not say how long it is."""
    streams = any(getattr(source.config, "streaming", False) for source in run.sources)
    return stream_problems(run.train, training) if streams and not run.mixed else []


def stream_problems(train: configs.train_config, training: bool = True) -> list[Problem]:
    """Return what is missing to use a stream, whose length is not known.

    Args:
        train: says how long the stream is.
        training: whether the stream is trained on; otherwise it is read once, to evaluate.
    """
    needs = [("max_train_step", "how many optimiser steps to train", "")] if training else []
    if train.run_validation or not training:
        otherwise = ", or --run_validation False" if training else ""
        needs.append(("max_eval_step", "how many batches to validate on", otherwise))
    return [
        Problem(
            f"a streamed data set without --{flag}",
            f"the length of a stream is not known: it does not say {unknown}",
            f"give --{flag} N{otherwise}",
        )
        for flag, unknown, otherwise in needs
        if not getattr(train, flag)
    ]


def check_vision_data(run: Run) -> list[Problem]:
    """Find rows that a vision model cannot be trained on: packed ones, and those without images."""
    train, problems = run.train, []
    if model_config(run).get("model_type") != VISION:
        return []
    if train.batching_strategy == "packing":
        why = "rows with images are not packed"
        fix = "add --batching_strategy padding"
        problems.append(Problem("--batching_strategy packing with a vision model", why, fix))
    if any(DATASETS[source.dataset].collator is None for source in run.sources):
        what = f"--dataset {train.dataset} with a vision model"
        why = "its rows have no images; a custom_dataset brings them, with a collator of its own"
        fix = "--dataset custom_dataset --custom_dataset.file FILE.py"
        problems.append(Problem(what, why, fix))
    return problems


def check_data_files(run: Run, parts: Sequence[Part] = PARTS) -> list[Problem]:
    """Return what is wrong with the data set's files and records.

    Tokens that were prepared in advance need no files. Of data that needs the tokenizer's chat
    template, only the files and the columns are checked without a tokenizer, which
    ``check_tokenizer`` reports. Files are not looked for if ``check_values`` has refused the value
    that names them.

    Args:
        run: the run.
        parts: which parts of the data set.
    """
    if run.dataset is None or run.train.tokens_path:
        return []
    sources = [source for source in run.sources if source.dataset != MIXED]  # one has its own
    usable = [
        source
        for source in sources
        if not check_fields(source.config)
        and not run.refused & {*fields_with(source.config, FOLDER)}
    ]
    problems = [each for source in usable for each in _file_problems(run, source, parts)]
    if run.mixed:  # whose files are named there
        problems = [replace(p, fix=p.fix.replace(DATA_FLAG, MIXTURE_FLAG)) for p in problems]
    if problems and not run.mixed and not {*field_names(run.dataset)} & run.given:
        return [_unnamed(run.train.dataset, problems[0])]
    return problems


def _unnamed(default: str, problem: Problem) -> Problem:
    return Problem(
        "no data set was named",
        f"the default, {default}, cannot be used: {problem.what}",
        NAMING,
    )


def _file_problems(run: Run, source: Source, parts: Sequence[Part]) -> list[Problem]:
    dataset, config, train = DATASETS[source.dataset], source.config, run.train
    tokenizer = None if check_tokenizer(run) else run_tokenizer(run)

    def known(split: Split) -> bool:
        if tokenizer is None:
            return dataset.needs_tokenizer
        whole = all(path.is_file() for path in split.files)  # others are reported when read
        return whole and is_tokenized(split, tokenizer, train.context_length, train.data_cache)

    given = tokenizer if dataset.needs_tokenizer else None
    return check_files(dataset, config, parts, given, known)
