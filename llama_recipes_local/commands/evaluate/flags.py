"""Measure a model on a data set's validation part, or compare two results."""

import argparse

from llama_recipes_local.cli.shared_flags import call_with_fire


def run(args: argparse.Namespace) -> None:
    """Hand ``args.words`` to ``commands.evaluate.command.evaluate`` as ``fire`` reads them."""
    from llama_recipes_local.commands.evaluate.command import evaluate

    call_with_fire(evaluate, args)
