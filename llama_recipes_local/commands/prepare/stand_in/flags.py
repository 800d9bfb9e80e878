"""Train the small Llama that is used where no model is named; this takes about a minute."""

import argparse
from pathlib import Path

from llama_recipes_local.commands.prepare.grammar.command import TRAINING_FILE, published_data
from llama_recipes_local.storage.names import refuse_name

DEFAULT_FOLDER = "models/stand-in"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--out", default=DEFAULT_FOLDER, metavar="DIR", help="the model's folder (%(default)s)"
    )
    parser.add_argument(
        "--data",
        metavar="CSV",
        help="training text, with columns input and target (llama-recipes' grammar data)",
    )


def run(args: argparse.Namespace) -> None:
    """Make the stand-in unless it exists."""
    refuse_name(args.out, "--out")
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        from llama_recipes_local.commands.prepare.stand_in.command import make_stand_in

    data = Path(args.data) if args.data else published_data(TRAINING_FILE)
    make_stand_in(Path(args.out).resolve(), data.resolve())
