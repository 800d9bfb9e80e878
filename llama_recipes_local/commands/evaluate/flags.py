"""Measure a model on a data set's validation part, or compare two results."""

import argparse

from llama_recipes_local.cli.shared_flags import call_with_fire


def run(args: argparse.Namespace) -> None:
    """Call ``commands.evaluate.command.evaluate`` with ``args.words`` through ``fire``."""
    from llama_recipes_local.commands.evaluate.command import evaluate

    call_with_fire(evaluate, args)
