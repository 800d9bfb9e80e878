"""Write one page about a run, or about several side by side, that opens without a network.

It shows losses, learning rate, gradient norm, speed and memory by step, the validations, a table of
the data, and the settings that differ from the defaults or between the runs.
"""

import argparse

from llama_recipes_local.cli.parsing import path, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument("outputs", nargs="+", type=path, metavar="OUTPUT", help="folder of a run")
    parser.add_argument(
        "--out",
        type=text,
        metavar="FILE",
        help="the page (report.html in the first OUTPUT)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the page."""
    from llama_recipes_local.commands.report.command import report

    report(args)
