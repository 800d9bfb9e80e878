"""Prepare the grammar data set: copy the published files, or build them from JFLEG and C4_200M.

Without --jfleg the two published CSV files are copied. With it they are built: JFLEG's validation
split and the first examples of C4_200M for training, JFLEG's test split for validation.
"""

import argparse
from pathlib import Path

from llama_recipes_local.cli.parsing import one_of, path
from llama_recipes_local.commands.prepare.grammar import spacing
from llama_recipes_local.commands.prepare.grammar.command import DEFAULT_FOLDER, prepare_grammar
from llama_recipes_local.storage import data_root
from llama_recipes_local.storage.names import refuse_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--out",
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="the output folder; a relative one is below the data root (%(default)s)",
    )
    parser.add_argument(
        "--jfleg", type=path, metavar="DIR", help="build the files from this folder of JFLEG"
    )
    parser.add_argument(
        "--c4_200m",
        type=path,
        metavar="DIR",
        help="C4_200M's folder or a file of it: add its first examples for training",
    )
    parser.add_argument(
        "--num_c4", type=int, metavar="N", help="number of examples of C4_200M (10000)"
    )
    parser.add_argument(
        "--spacing",
        type=one_of(spacing.MODES),
        metavar="|".join(spacing.MODES),
        help=f"spacing corrections to apply ({spacing.PUBLISHED})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> None:
    """Copy or build the files, and print what was done."""
    refuse_name(args.out, "--out")
    options = {"num_c4": args.num_c4, "spacing": args.spacing}
    given = {name: value for name, value in options.items() if value is not None}
    if args.jfleg or args.c4_200m or given or args.overwrite:
        from llama_recipes_local.commands.prepare.grammar.build import build_grammar

        folder = Path(args.out)
        print(build_grammar(folder, args.jfleg, args.c4_200m, overwrite=args.overwrite, **given))
        return
    for file in prepare_grammar(data_root.resolve(args.out)):
        print(file)
