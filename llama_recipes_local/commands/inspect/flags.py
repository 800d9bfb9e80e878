"""Show what the model will see of a data set: rows, a packed row, the audit and the lengths."""

import argparse

from llama_recipes_local.cli.parsing import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument(
        "--rows",
        type=integer,
        default=3,
        metavar="N",
        help="training rows to show (%(default)s)",
    )
    parser.add_argument(
        "--png", default="", metavar="FILE", help="save the histogram of lengths to this .png file"
    )


def run(args: argparse.Namespace) -> None:
    """Show the data."""
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        from llama_recipes_local.commands.inspect.command import inspect

    inspect(*args.arguments, rows=args.rows, png=args.png, **args.flags)
