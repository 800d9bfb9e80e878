"""Check a folder that was copied here: each file that is missing, short or altered is named.

Files are compared with the hashes of every list that lies in the folder: SHA256SUMS, *.sha256,
Meta's checklist.chk, what-to-bring.json, and what hf download noted. Without a list all is checked
that a file says of itself. Nothing is loaded that could run code.
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
        help="a list of hashes that lies elsewhere, as sha256sum or what-to-bring --json wrote it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Print what was found; the exit code is 2 if something is wrong."""
    from llama_recipes_local.commands.check.command import check

    check(args)
