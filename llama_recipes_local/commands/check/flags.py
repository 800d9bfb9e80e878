"""Check a copied folder, and name each file that is missing, incomplete or altered.

Files are compared with the hashes of every list in the folder: SHA256SUMS, *.sha256, Meta's
checklist.chk, what-to-bring.json, and the records of hf download. Without a list, each file is
checked by its own content. No code in the files is run.
"""

import argparse

from llama_recipes_local.cli.parsing import path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("folder", metavar="DIR", type=path, help="a model's or a data set's folder")
    parser.add_argument(
        "--list",
        metavar="FILE",
        type=path,
        help="a list of hashes in another place, as sha256sum or what-to-bring --json write it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Print what was found; the exit code is 2 if something is wrong."""
    from llama_recipes_local.commands.check.command import check

    check(args)
