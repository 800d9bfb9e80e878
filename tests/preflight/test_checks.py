"""Every check of the package is in the list that preflight goes through."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import pytest

from llama_recipes_local import preflight
from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight import model
from llama_recipes_local.preflight.checks import CHECKS, find_problems
from llama_recipes_local.preflight.checks_by_flags import Check
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve

MODULES = [
    import_module(f"{preflight.__name__}.{found.name}")
    for found in iter_modules(preflight.__path__)
    if found.name != "checks"
]


def checks_in(module: ModuleType) -> list[Callable[..., object]]:
    """The functions of a module that can be called as a check: with a run alone."""
    found = []
    for name, function in inspect.getmembers(module, inspect.isfunction):
        parameters = list(inspect.signature(function).parameters.values())
        optional = all(each.default is not each.empty for each in parameters[1:])
        takes_a_run = bool(parameters) and parameters[0].annotation is Run and optional
        if name.startswith("check_") and takes_a_run and function.__module__ == module.__name__:
            found.append(function)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_check_is_listed(module: ModuleType) -> None:
    called_by_check_model = {model.check_tokenizer, model.check_model_type}
    assert set(checks_in(module)) - called_by_check_model <= set(CHECKS)


def test_checks_are_found_in_most_modules() -> None:
    assert sum(map(bool, map(checks_in, MODULES))) >= 10
    assert len({check for module in MODULES for check in checks_in(module)}) >= 25


def test_no_check_is_listed_twice() -> None:
    assert len(set(CHECKS)) == len(CHECKS)


def test_a_problem_that_two_checks_find_is_reported_once() -> None:
    one, other = Problem("a", "b"), Problem("c", "d")
    checks: tuple[Check, ...] = (lambda run: [one], lambda run: [other, one])
    assert find_problems(resolve({}), checks) == [one, other]
