"""What is wrong with a data set's files, found before any weight is loaded.

Of each part the first usable record is read and formatted. What is wrong further on is found when
the data is tokenised.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from llama_recipes_local.datasets import custom, toxicchat
from llama_recipes_local.datasets.base import Split
from llama_recipes_local.datasets.sources import SPLITS, Part, split_name
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.messages import join_names, missing_path

PARTS: tuple[Part, Part] = ("train", "test")
# How another place is named; {part} is "train" or "test".
FLAGS = {
    "alpaca_dataset": "--alpaca_dataset.data_path=FILE",
    "grammar_dataset": "--grammar_dataset.{part}_split=FILE",
    "guanaco_dataset": "--guanaco_dataset.data_path=DIR",
    "local_dataset": "--local_dataset.data_path=PATH",
    "llamaguard_toxicchat_dataset": "--llamaguard_toxicchat_dataset.data_path=DIR",
    "samsum_dataset": "--samsum_dataset.data_path=DIR",
}


# whose records may be put into the tokenizer's chat template
NEEDS_TOKENIZER = ("local_dataset",)


def check_splits(
    name: str, config: Any, parts: Sequence[Part] = PARTS, tokenizer: Any = None
) -> list[Problem]:
    """Check parts of a data set that ``SPLITS`` has.

    Args:
        name: the data set's.
        config: its configuration.
        parts: which.
        tokenizer: what its formatter takes; None for one that needs none.
    """

    def check(part: Part) -> None:
        split = SPLITS[name](config, part)
        if not _has_example(split, tokenizer):
            raise UsageError([_nothing_left(split, part)])

    return _problems(name, parts, check)


def check_toxicchat(config: Any, parts: Sequence[Part] = PARTS) -> list[Problem]:
    """Check the first row of each part."""

    def check(part: Part) -> None:
        next(toxicchat.rows(config, split_name(config, part)))

    return _problems("llamaguard_toxicchat_dataset", parts, check)


def check_custom(config: Any, parts: Sequence[Part] = PARTS) -> list[Problem]:
    """Check that the file is Python and defines the function; nothing in it is run.

    It is one function whichever parts are asked for.
    """
    path, function = custom.location(config)
    flag = f"name one: {custom.FLAG}"
    if not path.exists():
        return [missing_path(path, flag)]
    if path.suffix != ".py" or not path.is_file():
        return [Problem(f"{path} is no .py file", "it is run as Python", flag)]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        return [Problem(f"{path} is not Python", str(error))]
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    # a function may also be assigned or imported, which only running the file would tell
    defined = function in names or any(
        not isinstance(node, (ast.FunctionDef, ast.Expr)) and function in ast.dump(node)
        for node in tree.body
    )
    if defined:
        return []
    return [
        Problem(
            f"{path} defines no function {function}",
            f"its functions are {', '.join(sorted(names)) or 'none'}",
            f"name one of them: {custom.FLAG}",
        )
    ]


CHECKS: dict[str, Callable[..., list[Problem]]] = {
    **{name: partial(check_splits, name) for name in SPLITS},
    "custom_dataset": check_custom,
    "llamaguard_toxicchat_dataset": check_toxicchat,
}


def _problems(name: str, parts: Sequence[Part], check: Callable[[Part], None]) -> list[Problem]:
    """Return what is wrong with each part; what is wrong with both is told once."""
    problems: list[Problem] = []
    for part in parts:
        try:
            check(part)
        except UsageError as error:
            flag = FLAGS.get(name, "").format(part=part)
            problems += [_with_flag(problem, flag) for problem in error.problems]
    return list(dict.fromkeys(problems))


def _with_flag(problem: Problem, flag: str) -> Problem:
    if not flag or flag in problem.fix:
        return problem
    if problem.fix.endswith(("name a file", "name another")):
        return replace(problem, fix=f"{problem.fix}: {flag}")
    return problem.or_else(f"name another: {flag}")


def _has_example(split: Split, tokenizer: Any) -> bool:
    return any(split.formatter(record, tokenizer) is not None for record in split.records())


def _nothing_left(split: Split, part: Part) -> Problem:
    return Problem(
        f"nothing in {join_names(map(str, split.files))} is for the {part} part",
        f"it is {split.part}, and records of which one side is blank are left out",
        "add records",
    )
