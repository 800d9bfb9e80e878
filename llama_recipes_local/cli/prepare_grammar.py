"""Put the grammar data set's two CSV files in place; files that are there are left alone."""

import argparse

from llama_recipes_local import paths
from llama_recipes_local.preparation.grammar import DEFAULT_FOLDER, prepare_grammar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--out",
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="the folder to put them in; a relative one is below the data root (%(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Put the files in place and print a line for each."""
    for file in prepare_grammar(paths.resolve(args.out)):
        print(file)
