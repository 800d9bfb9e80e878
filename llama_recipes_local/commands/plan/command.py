"""``llama-recipes-local plan``: finds the settings, and prints them as text or JSON."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.commands.plan.given import card_of, model_shape
from llama_recipes_local.commands.plan.making_plan import METHOD_FLAGS, make_plan
from llama_recipes_local.commands.plan.nothing_fits import nothing_fits
from llama_recipes_local.commands.plan.own_values import own_problems
from llama_recipes_local.commands.plan.report import (
    as_json,
    as_text,
    card_as_json,
    speed_of,
)
from llama_recipes_local.configs.training import AUTO
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.errors import Problem, UsageError, caught, refuse
from llama_recipes_local.fields import field_names
from llama_recipes_local.preflight.config_file import CONFIG_FLAGS, Configured, with_config
from llama_recipes_local.preflight.flags import check_arguments, check_flags
from llama_recipes_local.preflight.recipe_values import with_values
from llama_recipes_local.run.resolution import resolve

OWN = ("probe", "gpus", "nodes", "gpu_memory", "gpu", "node_link", "tokens", "json")


def plan(args: argparse.Namespace) -> None:
    """Print which settings fit and which is the fastest; as JSON with what is wrong, if anything.

    Raises:
        UsageError: if a flag is wrong, or nothing fits.
    """
    made = None
    with caught() as problems:
        wrong = own_problems(args)
        flags, of_run = _usable_flags(args)
        wrong += of_run
        if args.probe and not resolve(flags).train.model_name:
            refuse(wrong)
            has = card_of(args)
            print(json.dumps(card_as_json(has), indent=2) if args.json else speed_of(has))
            return
        made = make_plan(flags, args, wrong)
        if not made.outcomes[0].fits:
            problems += nothing_fits(made, flags, args)
    if made is not None and args.json:
        print(json.dumps(as_json(made) | {"problems": list(map(asdict, problems))}, indent=2))
        if problems:
            sys.exit(UsageError.EXIT_CODE)
    elif made is not None:
        print(as_text(made))
    refuse(problems)


def _usable_flags(args: argparse.Namespace) -> tuple[dict[str, Any], list[Problem]]:
    """Return the flags of the run, with those of a recipe, and what is wrong with the others."""
    configured = with_config(args.flags)
    given, named_twice = with_data_path(configured.flags)
    flags, problems = check_flags(given, OWN)
    stray = check_arguments(args.arguments, OWN)
    problems = [*stray, *configured.problems, *problems, *named_twice, *_trials(flags)]
    with caught():  # a model that is not known is reported with what else is wrong
        flags = _with_recipe(flags, configured, args.gpus * args.nodes)
    return {name: value for name, value in flags.items() if name not in CONFIG_FLAGS}, problems


def _trials(flags: dict[str, Any]) -> list[Problem]:
    """Find flags that try a run, which a plan does not."""
    return [
        Problem(
            f"plan --{flag}",
            "a plan is arithmetic: it trains nothing",
            f"leave it out, and add --{flag} to the command that plan prints",
        )
        for flag in ("rehearse", "dry_run")
        if getattr(resolve(flags).train, flag)
    ]


def _owner(name: str) -> str:
    owner = (
        configs.fsdp_config if name in field_names(configs.fsdp_config) else configs.train_config
    )
    return owner.__name__


def _with_recipe(flags: dict[str, Any], configured: Configured, world: int) -> dict[str, Any]:
    """Return flags with what a recipe sets for the model and the number of GPUs.

    A recipe without a method trains the whole model: no other methods are compared.
    """
    if configured.name:
        named = {flag.rpartition(".")[2] for flag in flags}
        flags = flags if named & METHOD_FLAGS else {**flags, "use_peft": "False"}
        run = resolve(({"enable_fsdp": "True"} if world > 1 else {}) | flags)
        run.model, *_ = model_shape(run.train.model_name)
        found = with_values(run, configured, {})
        flags = found.flags | {f"{_owner(name)}.{name}": AUTO for name in found.automatic}
    return flags
