"""The console script ``llama-recipes-local``, with a subcommand for each task.

A subcommand is a package in ``commands`` and a line in ``tree``. Its module ``flags`` defines
``add_arguments(parser)`` and ``run(args)``. It is imported only after the subcommand's name has
been read, and imports torch and transformers inside ``run``, so that help, usage errors and the
first line on standard error are immediate.

A subcommand that accepts any flag of finetuning.py next to its own gets those flags unparsed. A
verbatim subcommand has no flags of its own and defines ``run`` alone.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from llama_recipes_local._python import check_working_directory, missing_packages, with_packages
from llama_recipes_local._upstream import VENDORED_DIR
from llama_recipes_local.cli.parsing import Help, Parser, asks_json, print_json
from llama_recipes_local.cli.shared_flags import DEFAULTS, OF_FINETUNING
from llama_recipes_local.cli.tree import ROOT, Command, group_parser
from llama_recipes_local.console import exit_on_broken_pipe, printable_output, report_failure
from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.vendoring.checkout import MAKE_COMMAND

PROGRAM = "llama-recipes-local"
COMMANDS = "llama_recipes_local.commands"


@printable_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: the words after the program's name; None means those of this process.

    Returns:
        The exit code: 0 on success, 2 if the user's input is wrong, 1 if the command failed, 130 if
        it was interrupted, as in a shell.

    Raises:
        SystemExit: by argparse, after ``--help`` (code 0) and on a usage error (code 2); on a
            broken pipe, when nobody reads the output (code 1).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    check_working_directory()
    try:
        with exit_on_broken_pipe(), warnings.catch_warnings():
            # transformers and torch warn about each other's code, which no user can fix
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            warnings.filterwarnings("ignore", message="IProgress not found")  # in a notebook
            _run(ROOT, words)
    except (Exception, KeyboardInterrupt) as error:  # safetensors has its own error for a full disk
        known = _by_name(error)
        if isinstance(known, UsageError) and asks_json(words):
            print_json(known.problems)
        code = report_failure(known)
        if code is None:
            raise
        return code
    return 0


def _by_name(error: BaseException) -> BaseException:
    """Return the user's error if packages or llama-recipes' copy are missing, which all import.

    A damaged copy, which Python cannot read, counts too.
    """
    if isinstance(error, ModuleNotFoundError) and (missing := missing_packages()):
        why = "this Python is not the one that the package was installed for"
        fix = f"run {with_packages('-m llama_recipes_local ...')}"
        return refusal(f"{sys.executable} has no {missing}", why, fix)
    if isinstance(error, SyntaxError) and VENDORED_DIR in Path(error.filename or "").parents:
        why = f"{error.filename} cannot be read: {error.msg}"
        fix = f"make it again: {MAKE_COMMAND}"
        return refusal("the patched copy of llama-recipes is damaged", why, fix)
    if not isinstance(error, ImportError) or VENDORED_DIR.is_dir():
        return error
    what, why = "the patched copy of llama-recipes is missing", f"there is no {VENDORED_DIR.parent}"
    return refusal(what, why, f"make it: {MAKE_COMMAND}")


def _run(command: Command, words: list[str], path: tuple[str, ...] = ()) -> None:
    """Run ``command``, whose names on the command line are ``path``, with the words after it."""
    name = " ".join((PROGRAM, *path))
    if command.commands:
        parser = group_parser(command, name)
        if not words:
            parser.print_help(sys.stderr)
            sys.exit(UsageError.EXIT_CODE)
        chosen = parser.parse(words[:1]).command
        _run(command.commands[chosen], words[1:], (*path, chosen))
        return
    module = import_module(".".join((COMMANDS, *path, "flags")).replace("-", "_"))
    if command.verbatim:
        module.run(argparse.Namespace(words=words))
        return
    parser = Parser(
        prog=name,
        description=module.__doc__,
        epilog=DEFAULTS + (OF_FINETUNING if command.takes_any_flag else ""),
        formatter_class=Help,
    )
    module.add_arguments(parser)
    args = parser.parse_own(words) if command.takes_any_flag else parser.parse(words)
    # torch takes seconds; results go to standard output
    if command.says_start and "torch" not in sys.modules:
        from llama_recipes_local.run.stages import print_start

        print_start(" ".join(path), sys.stderr)
    module.run(args)
