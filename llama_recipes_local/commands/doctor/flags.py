"""Report what this machine has and what it lacks for training, with a fix for each problem.

With flags of finetuning.py, such as --model_name and --dataset, the run that they describe is
checked too, and its command is the last line. The exit code is 1 if something does not work.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--clean_cache",
        action="store_true",
        help="remove the cached tokens; a run that needs them tokenises again",
    )


def run(args: argparse.Namespace) -> None:
    """Print what was found."""
    from llama_recipes_local.commands.doctor.command import doctor

    doctor(args)
