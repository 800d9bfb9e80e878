"""Show what the model will see of a data set: rows, a packed row, the audit, the lengths."""

import argparse

from llama_recipes_local.cli.fire_flags import call


def run(args: argparse.Namespace) -> None:
    """Hand ``args.words`` to ``commands.inspect.command.inspect`` as ``fire`` reads them."""
    from llama_recipes_local.commands.inspect.command import inspect

    call(inspect, args)
