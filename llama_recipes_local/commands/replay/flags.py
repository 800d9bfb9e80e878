"""Check that what made a result is unchanged, then make it again and compare the two to the bit.

RUN is the folder of a run, or one that merge or export has written: what custody.json in it lists
is compared with what is there, and every difference is named. If there is none, the result is made
again in another folder. Flags of the run say where an input is now, such as --model_name DIR.
"""

import argparse

from llama_recipes_local.cli.parsing import path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="the folder of the result")
    parser.add_argument("--check", action="store_true", help="compare only, make nothing again")
    parser.add_argument(
        "--out", metavar="DIR", type=path, help="the new folder (RUN-replay, beside RUN)"
    )
    parser.add_argument(
        "--adapter", metavar="DIR", type=path, help="where the adapter is now that was merged"
    )
    parser.add_argument(
        "--sign",
        metavar="KEY",
        type=path,
        help="sign custody.json with this ssh key once nothing differs, by ssh-keygen",
    )
    parser.add_argument(
        "--allowed_signers",
        metavar="FILE",
        type=path,
        help="accept RUN only if someone in this file has signed it (ssh-keygen's ALLOWED SIGNERS)",
    )


def run(args: argparse.Namespace) -> None:
    """Check and repeat; the exit code is 2 if something differs, 1 if the new result does."""
    from llama_recipes_local.commands.replay.command import replay

    replay(args)
