"""Finds every reason why a run cannot work, before any weight is loaded, and reports them all."""

from collections.abc import Sequence
from typing import Any

from llama_recipes_local.datasets.base import PARTS, Part
from llama_recipes_local.datasets.checks import check_files
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.models.loading import load_tokenizer
from llama_recipes_local.preflight import (
    checkpoint_rules,
    data_rules,
    flags,
    low_memory_rules,
    machine,
    method_rules,
    model,
    quantization_rules,
    rules,
    training_rules,
)
from llama_recipes_local.preflight.presets import PRESETS, chosen, describe
from llama_recipes_local.run.resolution import Run, resolve


def preflight(arguments: tuple[Any, ...], given: dict[str, Any]) -> Run:
    """Resolve the flags of a run and check all that can be checked without loading weights.

    Args:
        arguments: what stood on the command line without a flag.
        given: the flags, by name, as fire parsed them.

    Raises:
        UsageError: with every problem found.
    """
    run, problems = _resolved(arguments, given)
    problems += data_rules.check_data_rules(run)
    problems += rules.check_rules(run)
    problems += training_rules.check_training(run)
    problems += checkpoint_rules.check_checkpoints(run)
    problems += quantization_rules.check_quantization(run)
    problems += low_memory_rules.check_low_memory(run)
    problems += method_rules.check_methods(run)
    problems += model.check_model(run)
    problems += check_data(run, model.check_tokenizer(run))
    problems += machine.check_output(run)
    problems += machine.check_processes() + machine.check_packages(run)
    refuse(problems)
    return run


def preflight_data(
    arguments: tuple[Any, ...],
    given: dict[str, Any],
    parts: Sequence[Part] = PARTS,
    found: Sequence[Problem] = (),
) -> Run:
    """Resolve the flags and check the data set and the tokenizer alone, for nothing is trained.

    Args:
        arguments: what stood on the command line without a flag.
        given: the flags, by name, as fire parsed them.
        parts: those of the data set that are used.
        found: problems that are known already.

    Raises:
        UsageError: with every problem found.
    """
    run, problems = _resolved(arguments, given)
    problems += data_rules.check_data_rules(run)
    without_tokenizer = model.check_tokenizer(run)
    problems += without_tokenizer
    problems += check_data(run, without_tokenizer, parts)
    problems += found
    refuse(problems)
    return run


def _resolved(arguments: tuple[Any, ...], given: dict[str, Any]) -> tuple[Run, list[Problem]]:
    """Build the run that the flags ask for, and say which of them it could not take."""
    usable, refused = flags.check_flags(given)
    problems = flags.check_arguments(arguments) + refused
    run = resolve(usable)
    if {"dataset", "train_config.dataset"} & given.keys() - usable.keys():
        run.dataset = None  # the default's files, which may be missing, are not what was asked for
    if run.train.preset in PRESETS:
        values = chosen(run)
        run = resolve({name: value for name, (value, _) in values.items()} | run.flags)
        run.preset = describe(run.train.preset, values)
    return run, problems


def check_data(
    run: Run, without_tokenizer: list[Problem], parts: Sequence[Part] = PARTS
) -> list[Problem]:
    """Return what is wrong with the data set's files and the first record of each.

    Args:
        run: the run.
        without_tokenizer: why the tokenizer cannot be loaded; data that needs its chat template is
            not looked at then.
        parts: which parts of the data set.
    """
    if run.dataset is None:
        return []
    dataset = DATASETS[run.train.dataset]
    if not dataset.needs_tokenizer:
        return check_files(dataset, run.dataset, parts)
    if without_tokenizer:
        return []
    return check_files(dataset, run.dataset, parts, load_tokenizer(run.train))
