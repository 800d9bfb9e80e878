"""Checks values against the choices and ranges that their fields declare."""

from collections.abc import Collection

from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import Choices, Range, facts
from llama_recipes_local.messages import nearest


def check_fields(
    config: object, owner: str = "", only: Collection[str] | None = None
) -> list[Problem]:
    """Compare each value of a configuration with what its field says that it takes.

    Args:
        config: the configuration.
        owner: what stands before the names of its fields in flags, as ``"local_dataset."``.
        only: names of the fields to compare, where others' choices need not be imported; None
            compares all.
    """
    problems = []
    for name, known in facts(config).items():
        if (only is not None and name not in only) or not (known.choices or known.range):
            continue
        value, bound = getattr(config, name), known.range
        if known.choices:
            problems += _check_choice(owner + name, value, known.choices)
        if bound and (not bound.switch or getattr(config, bound.switch)):
            problems += out_of_range(owner + name, value, bound)
    return problems


def _check_choice(flag: str, value: object, choices: Choices) -> list[Problem]:
    values = value if isinstance(value, list) else [value]
    if choices.any_case:
        values = [str(each).lower() for each in values]
    others = [each for each in values if each not in choices.also]
    return [problem for each in others for problem in choice(flag, each, choices)]


def choice(flag: str, value: object, choices: Choices) -> list[Problem]:
    """Return the problem with a flag whose value is not one of its choices; none if it is."""
    if value in choices.values:
        return []
    names = [name for name in choices.values if isinstance(name, str) and name]
    near = nearest(str(value), names)
    use = choices.otherwise or f"use --{flag} {' or '.join(names[:2])}"
    fix = f"did you mean --{flag} {near}?" if near else use
    return [Problem(f"unknown --{flag} {value}", f"the choices are {', '.join(names)}", fix)]


def out_of_range(flag: str, value: float, bound: Range) -> list[Problem]:
    """Return the problem with a flag whose number is not in its range; none if it is."""
    if bound.holds(value):
        return []
    fix = bound.otherwise or f"give it {bound.words}"
    return [Problem(f"--{flag} is {value}", f"it must be {bound.words}", fix)]
