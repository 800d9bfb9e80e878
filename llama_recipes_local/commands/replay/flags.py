"""Check that everything a result was made from is unchanged, then reproduce it to the bit.

RUN is the folder of a run, or one that merge, export or convert has written. Everything listed in
its custody.json is compared with what is there now, and every difference is named. If there is
none, the result is made again in another folder and compared. If an input is in another place now,
name it with the run's own flags, such as --model_name DIR.
"""

import argparse

from llama_recipes_local.cli.parsing import path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="the folder of the result")
    parser.add_argument("--check", action="store_true", help="compare only, reproduce nothing")
    parser.add_argument(
        "--out", metavar="DIR", type=path, help="the new folder (RUN-replay, next to RUN)"
    )
    parser.add_argument(
        "--adapter", metavar="DIR", type=path, help="present folder of the adapter that was merged"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        type=path,
        help="present place of the checkpoint or file that was converted",
    )
    parser.add_argument(
        "--sign",
        metavar="KEY",
        type=path,
        help="sign custody.json with this ssh key, by ssh-keygen, if nothing differs",
    )
    parser.add_argument(
        "--allowed_signers",
        metavar="FILE",
        type=path,
        help="accept RUN only if someone in this file has signed it (ssh-keygen's ALLOWED SIGNERS)",
    )


def run(args: argparse.Namespace) -> None:
    """Check and repeat; the exit code is 2 if something differs, 1 if the new result does."""
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        from llama_recipes_local.commands.replay.command import replay

    replay(args)
