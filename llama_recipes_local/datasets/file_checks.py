"""What is wrong with a data set's files and records, found before any weight is loaded.

All records are read and formatted; of a stream the first ones, and of data whose tokens are in the
cache, which could be used, none but the first.
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
    """Return what is wrong with the parts; what is wrong with both is reported once.

    Prints how the parts are read, as every command checks a part once before it is read.

    Args:
        dataset: the data set.
        config: its configuration.
        parts: which parts are checked.
        tokenizer: the model's; None if the data set does not need it.
        known: whether a split's records are known to be sound.
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
    """Read a split's records, note their flaws, and return notes on the first.

    Raises:
        UsageError: if there is none that can be used, and no flaw.
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
