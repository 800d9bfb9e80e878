"""List the recipes, which are settings of runs for --config. With NAME, print that recipe.

A printed recipe can be saved and edited:

  llama-recipes-local recipes lora > mine.yaml
  llama-recipes-local finetune --config mine.yaml --model_name DIR ...
"""

import argparse

from llama_recipes_local.cli.parsing import one_of
from llama_recipes_local.recipes import shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "name", nargs="?", type=one_of(shipped.names), metavar="NAME", help="the one to print"
    )


def run(args: argparse.Namespace) -> None:
    """List them, or print one."""
    if args.name:
        print(shipped.path_of(args.name).read_text("utf-8"), end="")
        return
    width = max(map(len, shipped.names()))
    for name in shipped.names():
        print(f"{name:<{width}}  {shipped.summary(name)}")
