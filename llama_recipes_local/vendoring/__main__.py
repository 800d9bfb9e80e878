"""The command line: ``python -m llama_recipes_local.vendoring make|check|refresh|seams``."""

import argparse
import sys
from collections.abc import Callable, Sequence

from llama_recipes_local.vendoring.checkout import PACKAGE, Checkout, this_checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.lint import check
from llama_recipes_local.vendoring.making import make
from llama_recipes_local.vendoring.refreshing import refresh
from llama_recipes_local.vendoring.seams import PAGE, plain_table, read_seams, write_table

_PROGRAM = f"python -m {PACKAGE}.vendoring"
_DESCRIPTION = """\
Makes, checks and refreshes the copy of llama-recipes that this package patches: the wheel that
patches/upstream.txt locks, with its imports pointed at the copy and patches/series applied.
"""
_EPILOG = """\
The wheel is fetched with pip, so pip's configuration and PIP_* variables apply, and it is kept for
later runs. Arguments after -- are passed to 'pip download' unchanged.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 refused or problems found, 2 misused."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    pip_arguments: list[str] = []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, pip_arguments = arguments[:split], arguments[split + 1 :]
    options = _parser().parse_args(arguments)
    run: Callable[[Checkout, argparse.Namespace, Sequence[str]], int] = options.run
    try:
        return run(this_checkout(), options, [*_pip_options(options), *pip_arguments])
    except (VendoringError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _make(checkout: Checkout, options: argparse.Namespace, pip_arguments: Sequence[str]) -> int:
    print("\n".join(make(checkout, pip_arguments).lines))
    return 0


def _check(checkout: Checkout, options: argparse.Namespace, pip_arguments: Sequence[str]) -> int:
    report = check(checkout, options.apply, pip_arguments)
    print("\n".join(report.lines))
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 1 if report.problems else 0


def _refresh(checkout: Checkout, options: argparse.Namespace, pip_arguments: Sequence[str]) -> int:
    # Both may come from shell completion, which gives paths from the root.
    name = options.patch.removeprefix("patches/")
    files = [path.removeprefix(f"{PACKAGE}/_vendor/") for path in options.file]
    print("\n".join(refresh(checkout, name, files, pip_arguments).lines))
    return 0


def _seams(checkout: Checkout, options: argparse.Namespace, pip_arguments: Sequence[str]) -> int:
    if options.write:
        print(f"{PAGE}: {'updated' if write_table(checkout) else 'already up to date'}")
    else:
        print(plain_table(read_seams(checkout.package)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(_PROGRAM, description=_DESCRIPTION, epilog=_EPILOG)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, epilog=_EPILOG)
        added.set_defaults(run=run)
        _add_pip_options(added)
        return added

    command("make", _make, "make the copy, or make it again where it is stale and say why")
    checking = command("check", _check, "check the series and the patches, and the copy in place")
    checking.add_argument(
        "--apply",
        action="store_true",
        help="also apply the series to the locked wheel and compare the copy in place with that",
    )
    refreshing = command("refresh", _refresh, "make a patch again from the copy's edited files")
    refreshing.add_argument("patch", metavar="PATCH", help="file name in patches/; may be new")
    refreshing.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="a file for the patch in addition to those it already changes, such as "
        "llama_recipes/finetuning.py; may be repeated",
    )
    summary = "list what upstream's main takes from this package, and where that is defined"
    listing = commands.add_parser("seams", help=summary, description=summary)
    listing.add_argument("--write", action="store_true", help=f"write the table into {PAGE}")
    listing.set_defaults(run=_seams, find_links=[], no_index=False, index_url=None)
    return parser


def _add_pip_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where the wheel comes from")
    group.add_argument(
        "--find-links",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of wheels to look in; may be repeated",
    )
    group.add_argument("--no-index", action="store_true", help="ask no package index")
    group.add_argument("--index-url", metavar="URL", help="ask this package index")


def _pip_options(options: argparse.Namespace) -> list[str]:
    given = [f"--find-links={place}" for place in options.find_links]
    if options.no_index:
        given.append("--no-index")
    if options.index_url:
        given.append(f"--index-url={options.index_url}")
    return given


if __name__ == "__main__":
    sys.exit(main())
