"""What is wrong with a data set's files, found before any weight is loaded.

Of each split the first usable record is read and formatted. Later records are checked when the data
is tokenised.
"""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.datasets.base import PARTS, Config, Dataset, Split, find_split, split_name
from llama_recipes_local.datasets.examples import Example
from llama_recipes_local.datasets.flaws import find_flaws
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.messages import join_names


def check_files(
    dataset: Dataset[Config],
    config: Config,
    parts: Sequence[Part] = PARTS,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[Problem]:
    """Return what is wrong with each part; what is wrong with both is reported once.

    Prints how the parts are read, as every command checks a part once before it is read.

    Args:
        dataset: the data set.
        config: its configuration.
        parts: which parts are checked.
        tokenizer: the model's; None if the data set does not need it.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    for part in parts:
        try:
            notes += _check(dataset, config, part, tokenizer)
        except UsageError as error:
            flag = dataset.flag.format(part=part)
            problems += [_with_flag(problem, flag) for problem in error.problems]
    for note in dict.fromkeys(notes):
        print(note)
    return list(dict.fromkeys(problems))


def _check(
    dataset: Dataset[Config],
    config: Config,
    part: Part,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[str, ...]:
    """Check one part, and return the notes on how it is read."""
    if dataset.check is not None:
        dataset.check(config, split_name(config, part))
    split = find_split(dataset, config, part, tokenizer)
    if split is None:
        return ()
    example = _first_example(split, tokenizer)
    if example is None:
        raise UsageError([_nothing_left(split, part)])
    if getattr(config, "streaming", False) and example.notes:
        # nothing is counted in a stream
        return (*split.notes, f"--> not as in the first record: {', '.join(example.notes)}")
    return split.notes


def _with_flag(problem: Problem, flag: str) -> Problem:
    if not flag or flag in problem.fix:
        return problem
    if problem.fix.endswith(("name a file", "name another")):
        return replace(problem, fix=f"{problem.fix}: {flag}")
    return problem.or_else(f"name another: {flag}")


def _first_example(split: Split, tokenizer: PreTrainedTokenizerBase | None) -> Example | None:
    try:
        examples = (split.formatter(record, tokenizer) for record in split.records())
        return next((example for example in examples if example is not None), None)
    except UsageError as error:
        raise UsageError(find_flaws(split, tokenizer) or error.problems) from error


def _nothing_left(split: Split, part: Part) -> Problem:
    return Problem(
        f"nothing in {join_names(map(str, split.files))} is for the {part} part",
        f"it is {split.part}, and records of which one side is blank are skipped",
        "add records",
    )
