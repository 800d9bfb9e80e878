"""Measure a model on a data set's validation part, or compare two results."""

import argparse

from llama_recipes_local.cli.fire_flags import call


def run(args: argparse.Namespace) -> None:
    """Hand ``args.words`` to ``commands.evaluate.command.evaluate`` as ``fire`` reads them."""
    from llama_recipes_local.commands.evaluate.command import evaluate

    call(evaluate, args)
