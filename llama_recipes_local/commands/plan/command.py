"""``llama-recipes-local plan``: finds the settings, and prints them as text or JSON."""

import argparse
import json

from llama_recipes_local.commands.plan.making_plan import make_plan
from llama_recipes_local.commands.plan.nothing_fits import nothing_fits
from llama_recipes_local.commands.plan.report import as_json, as_text
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.errors import refuse
from llama_recipes_local.preflight.flags import check_arguments, check_flags

OWN = ("gpus", "nodes", "gpu_memory", "gpu", "node_link", "tokens", "json")


def plan(args: argparse.Namespace) -> None:
    """Print which settings fit and which is the fastest.

    Raises:
        UsageError: if a flag is wrong, or nothing fits.
    """
    given, named_twice = with_data_path(args.flags)
    flags, problems = check_flags(given, OWN)
    refuse([*check_arguments(args.arguments), *problems, *named_twice])
    made = make_plan(flags, args)
    print(json.dumps(as_json(made), indent=2) if args.json else as_text(made))
    if not made.outcomes[0].fits:
        raise nothing_fits(made, flags, args)
