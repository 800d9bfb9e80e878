"""Values that are not among their field's choices, or not in its range."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import Choices, Range, facts

if TYPE_CHECKING:
    from llama_recipes_local.run.resolution import Run


def check_values(run: "Run") -> list[Problem]:
    """Compare each value with what its field says that it takes; see ``fields``."""
    problems = []
    for config in run.configurations():
        # a data set's flags are known by its name
        owner = f"{run.train.dataset}." if config is run.dataset else ""
        problems += check_fields(config, owner)
    return list(dict.fromkeys(problems))


def check_fields(config: object, owner: str = "") -> list[Problem]:
    """Return what is wrong with the values of a configuration's fields, each by itself.

    Args:
        config: the configuration.
        owner: what stands before a field's name in its flag, such as ``"local_dataset."``.
    """
    problems = []
    for name, known in facts(config).items():
        value = getattr(config, name)
        if known.choices:
            problems += _check_choice(f"{owner}{name}", value, known.choices)
        bound = known.range
        if bound and (not bound.switch or getattr(config, bound.switch)):
            problems += out_of_range(f"{owner}{name}", value, bound)
    return problems


def _check_choice(name: str, value: Any, choices: Choices) -> list[Problem]:
    values = value if isinstance(value, list) else [value]
    if choices.any_case:
        values = [each.lower() for each in values]
    return [problem for each in values for problem in choice(name, each, choices.values)]


def choice(flag: str, value: Any, choices: Iterable[Any]) -> list[Problem]:
    """Return what is wrong with a flag whose value is one of some choices."""
    names = [name for name in choices if isinstance(name, str) and name]
    if value in choices:
        return []
    near = get_close_matches(str(value), names, n=1)
    fix = f"did you mean --{flag} {near[0]}?" if near else f"choose one: --{flag} {names[0]}"
    return [Problem(f"--{flag} {value} does not exist", f"there are {', '.join(names)}", fix)]


def out_of_range(name: str, value: float, bound: Range) -> list[Problem]:
    """Return what is wrong with a flag whose number is not in its range."""
    if bound.holds(value):
        return []
    return [Problem(f"--{name} is {value}", f"it must be {bound.words}", f"give it {bound.words}")]
