"""Finds what is wrong with a data set's files and records, before any weight is loaded.

All records are read and formatted. Of a stream only the first ones are, and of data whose tokens
are in the cache only the first, because the others could be used when they were cached.
"""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.datasets.base import PARTS, Config, Dataset, Split, find_split, split_name
from llama_recipes_local.datasets.flaws import Flaws, unskipped, with_flag
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.messages import join_names

STREAMED = 10_000
"""How many records of a stream are checked."""


def check_files(
    dataset: Dataset[Config],
    config: Config,
    parts: Sequence[Part] = PARTS,
    tokenizer: PreTrainedTokenizerBase | None = None,
    known: Callable[[Split], bool] = lambda split: False,
) -> list[Problem]:
    """Return what is wrong with the parts; a problem of both is reported once.

    It prints how the parts are read, because every command checks each part once before reading it.

    Args:
        dataset: the data set.
        config: its configuration.
        parts: which parts are checked.
        tokenizer: the model's; None if the data set does not need it.
        known: returns whether a split's records are known to be usable.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    flaws = Flaws()
    read = set()  # one file may be for both parts
    for part in parts:
        flag = dataset.flag.format(part=part)
        try:
            if dataset.check is not None:
                dataset.check(config, split_name(config, part))
            split = find_split(dataset, config, part, tokenizer)
            if split is None:
                continue
            more: tuple[str, ...] = ()
            if (split.files, split.part) not in read and not known(split):
                read.add((split.files, split.part))
                streamed = getattr(config, "streaming", False)
                more = _read(split, part, tokenizer, flaws, flag, streamed)
            if not flaws.count:
                notes += [*split.notes, *more]
        except UsageError as error:
            problems += [with_flag(problem, flag) for problem in error.problems]
    for note in dict.fromkeys(notes):
        print(note)
    return list(dict.fromkeys(problems + flaws.problems()))


def _read(
    split: Split,
    part: Part,
    tokenizer: PreTrainedTokenizerBase | None,
    flaws: Flaws,
    flag: str,
    streamed: bool,
) -> tuple[str, ...]:
    """Read a split's records, collect flaws, and return notes on the first record.

    Raises:
        UsageError: if no record can be used, although none has a flaw.
    """
    before = flaws.count
    most = STREAMED if streamed else None
    first = flaws.read(split, tokenizer, flag, most)
    if first is None and flaws.count == before:
        flaws.read(unskipped(split), tokenizer, flag, most, can_skip=False)
    if first is None and flaws.count == before:
        raise UsageError([_nothing_left(split, part)])
    # nothing is counted in a stream
    example = split.formatter(first, tokenizer) if streamed and first else None
    if example is None or not example.notes:
        return ()
    return (f"--> not as in the first record: {', '.join(example.notes)}",)


def _nothing_left(split: Split, part: Part) -> Problem:
    return Problem(
        f"nothing in {join_names(map(str, split.files))} is for the {part} part",
        f"it is {split.part}, and records of which one side is blank are skipped",
        "add records",
    )
