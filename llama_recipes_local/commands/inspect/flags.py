"""Show what the model will see of a data set: rows, a packed row, the audit, the lengths."""

import argparse

from llama_recipes_local.cli.shared_flags import call_with_fire


def run(args: argparse.Namespace) -> None:
    """Call ``commands.inspect.command.inspect`` with ``args.words`` through ``fire``."""
    from llama_recipes_local.commands.inspect.command import inspect

    call_with_fire(inspect, args)
