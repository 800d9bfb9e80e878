"""Tokenise a data set, or a mixture, into a folder that another machine trains on.

A run takes it with --tokens_path DIR and needs no data files then. Every file in it has its hash.
"""

import argparse

from llama_recipes_local.cli.parsing import path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument(
        "--out", required=True, type=path, metavar="DIR", help="the folder for the tokens"
    )


def run(args: argparse.Namespace) -> None:
    """Make the tokens."""
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        from llama_recipes_local.commands.prepare.tokens.command import prepare_tokens

    prepare_tokens(*args.arguments, out=args.out, **args.flags)
