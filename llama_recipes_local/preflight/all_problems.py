"""Finds every reason why a run cannot work, before any weight is loaded, and reports them all."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.configs.set_by_hand import check_classes
from llama_recipes_local.datasets.base import PARTS
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.datasets.tokens_folder import with_settings
from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.policies.activation_policy import implied_flags
from llama_recipes_local.preflight import flags
from llama_recipes_local.preflight.automatic import automatic
from llama_recipes_local.preflight.checks import BATCHES, checks_of, find_problems
from llama_recipes_local.preflight.checks_by_flags import Check
from llama_recipes_local.preflight.config_file import with_config
from llama_recipes_local.preflight.data_rules import check_data_files, check_stream
from llama_recipes_local.preflight.flags import check_values
from llama_recipes_local.preflight.model import UNNAMED, check_model_type, check_tokenizer
from llama_recipes_local.preflight.recipe_values import with_values
from llama_recipes_local.preflight.stored_model_rules import adopt_stored_bits
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve, resolve_with


def preflight(arguments: tuple[Any, ...], given: dict[str, Any], others: Sequence[str] = ()) -> Run:
    """Resolve the flags of a run and check everything that needs no weights.

    Args:
        arguments: words of the command line without a flag.
        given: the flags, by name: their text, or what Python passed.
        others: flags that the command has of its own.

    Raises:
        UsageError: with every problem found.
    """
    run, problems = _resolved(arguments, given, others)
    if not problems and not check_values(run):
        run = _with_choices(run)
    refuse(problems + _found(run, checks_of(run)))
    return run


def _with_choices(run: Run) -> Run:
    """Return the run with automatic choices for what its flags leave open; see ``automatic``."""
    values, why = automatic(run)
    if not values:
        return run
    free = set(run.automatic)
    if "batch_size_training" in free:  # the rows of a step stay
        free.add("gradient_accumulation_steps")
    named = [flag for flag in run.flags if flag.rpartition(".")[2] not in free]
    chosen = resolve(values | {flag: run.flags[flag] for flag in named})
    if implied := implied_flags(chosen):
        chosen = resolve_with(chosen, implied)
    chosen.automatic, chosen.chosen = run.automatic, frozenset(values)
    chosen.recipe, chosen.refused, chosen.choices = run.recipe, run.refused, why
    adopt_stored_bits(chosen)
    return chosen


def preflight_data(
    arguments: tuple[Any, ...],
    given: dict[str, Any],
    parts: Sequence[Part] = PARTS,
    found: Sequence[Problem] = (),
    others: Sequence[str] = (),
) -> Run:
    """Resolve the flags and check the data set and the tokenizer alone: nothing is trained.

    Args:
        arguments: words of the command line without a flag.
        given: the flags, by name: their text, or what Python passed.
        parts: the parts of the data set that are used.
        found: problems that are already known.
        others: flags that the command has of its own.

    Raises:
        UsageError: with every problem found.
    """
    run, problems = _resolved(arguments, given, others)
    data_files = partial(check_data_files, parts=parts)
    length = partial(check_stream, training="train" in parts)
    batches = [length if check is check_stream else check for check in BATCHES]
    checks: list[Check] = [check_values, *batches, check_model_type, check_tokenizer, data_files]
    problems += _found(run, checks)
    refuse([*problems, *found])
    return run


def _found(run: Run, checks: Sequence[Check]) -> list[Problem]:
    """Return what the checks find; not that no model was named, if its name was refused."""
    found = find_problems(run, checks)
    named = "model_name" in run.refused
    return [problem for problem in found if not (named and problem.what == UNNAMED)]


def _resolved(
    arguments: tuple[Any, ...], given: dict[str, Any], others: Sequence[str] = ()
) -> tuple[Run, list[Problem]]:
    """Build the run that the flags ask for; return it with the problems of flags it cannot use."""
    configured = with_config(given)
    given, named_twice = with_data_path(configured.flags)
    given, no_tokens = with_settings(given)
    usable, refused = flags.check_flags(given, others)
    problems = flags.check_arguments(arguments, others) + configured.problems
    problems += refused + named_twice + no_tokens + check_classes(flags.configurations().values())
    run = resolve(usable)
    run = with_values(run, configured, implied_flags(run, configured.settings))
    unusable = {flag.rpartition(".")[2] for flag in given.keys() - usable.keys()}
    run.refused = configured.unusable | unusable
    if "dataset" in run.refused:
        run.dataset = None  # the files of the default, which may be missing, were not asked for
    adopt_stored_bits(run)
    return run, list(
        dict.fromkeys(problems)
    )  # a path may be checked as a flag and where it is read
