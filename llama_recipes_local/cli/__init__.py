"""The console script ``llama-recipes-local``: one subcommand for each thing a person does.

A subcommand is a module of ``commands`` with ``add_arguments(parser)`` and ``run(args)``. It is
imported once its name has been read from the command line, and imports torch and transformers in
``run``, so help and errors of usage come at once. A verbatim one, which takes any flag of
finetuning.py, has ``run`` alone: its help is that of the function it calls, which takes seconds to
import.
"""

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from llama_recipes_local.cli.parsing import Parser
from llama_recipes_local.cli.tree import ROOT, Command, choosing_parser
from llama_recipes_local.console import ends_unread
from llama_recipes_local.errors import TrainingError, UsageError
from llama_recipes_local.storage.disk import what_filled

PROGRAM = "llama-recipes-local"
COMMANDS = "llama_recipes_local.commands"
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: the words after the program's name; None means those of this process.

    Returns:
        The exit code: 0 if the command did its work, 2 if the user's input kept it from that, 1 if
        it could not go on, 130 if it was interrupted, as a shell has it.

    Raises:
        SystemExit: by argparse, after ``--help`` (code 0) and on an error of usage (code 2); with
            code 1 once nobody reads what is printed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with ends_unread(), warnings.catch_warnings():
            # transformers' and torch's about each other's code, which no user can fix
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            _run(ROOT, PROGRAM, words)
    except (UsageError, TrainingError) as error:
        print(error, file=sys.stderr)
        return error.EXIT_CODE
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # what writes safetensors has errors of its own
        if not what_filled(error):
            raise
        print(f"stopped, for {what_filled(error)}", file=sys.stderr)
        print("   fix: make room there, and give the command again", file=sys.stderr)
        return TrainingError.EXIT_CODE
    return 0


def _run(command: Command, name: str, words: list[str]) -> None:
    """Run ``command``, known on the command line as ``name``, with the words after it."""
    if command.commands:
        chosen = choosing_parser(command, name).parse(words[:1]).command
        _run(command.commands[chosen], f"{name} {chosen}", words[1:])
        return
    module = import_module(f"{COMMANDS}.{command.module}")
    if command.verbatim:
        module.run(argparse.Namespace(program=name, words=words))
        return
    parser = Parser(prog=name, description=module.__doc__)
    module.add_arguments(parser)
    module.run(parser.parse(words))
