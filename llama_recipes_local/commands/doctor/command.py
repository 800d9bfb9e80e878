"""``llama-recipes-local doctor``: has everything examined, and prints a line for each part."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_recipes_local.commands.doctor import gpu, host_limits, own, packages, quantizing, ranks
from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.errors import UsageError, one_line
from llama_recipes_local.planning.flags import words
from llama_recipes_local.preflight import preflight
from llama_recipes_local.program import program, python
from llama_recipes_local.screen import shell_command

EXAMINATIONS: tuple[Callable[[], Iterator[Finding]], ...] = (
    packages.examine,
    gpu.examine,
    quantizing.examine,
    host_limits.examine,
    ranks.examine,
    own.examine,
)
_SCRIPT = Path("finetuning.py")


def doctor(args: argparse.Namespace) -> None:
    """Print what was found.

    Raises:
        SystemExit: with code 1 if something does not work.
    """
    if args.clean_cache:
        print(f"--> {own.clean(cache_folder())}", file=sys.stderr)
    findings = []
    for finding in _examined(args):
        findings.append(finding)
        if not args.json:
            print(as_line(finding), flush=True)
    broken = sum(finding.state is State.BROKEN for finding in findings)
    if args.json:
        print(json.dumps({"findings": [_as_json(f) for f in findings], "broken": broken}, indent=2))
    else:
        print(_summary(broken))
        if args.flags and not broken:
            print(shell_command(_command(args.flags)))
    if broken:
        sys.exit(1)


def _examined(args: argparse.Namespace) -> Iterator[Finding]:
    for examine in EXAMINATIONS:
        yield from examine()
    if args.flags or args.arguments:
        yield from examine_run(tuple(args.arguments), args.flags)


def examine_run(arguments: tuple[Any, ...], flags: dict[str, Any]) -> Iterator[Finding]:
    """Check the run that flags of finetuning.py describe, as the run itself would."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where the data's files are, say
            run = preflight(arguments, flags)
    except UsageError as error:
        for problem in error.problems:
            text = f"{problem.what}: {problem.why}"
            yield Finding("run", State.BROKEN, text, problem.fix)
        return
    yield Finding("run", State.WORKS, f"{run.train.model_name} on {run.train.dataset}: no problem")


def as_line(finding: Finding) -> str:
    """Return a finding as a line of text, and its fix as another."""
    line = f"{finding.state.value:>4}  {finding.name}: {finding.text}"
    fix = f"\n      fix: {one_line(finding.fix)}" if finding.fix else ""
    return one_line(line) + fix


def _as_json(finding: Finding) -> dict[str, str]:
    state = finding.state.name.lower()
    return {"name": finding.name, "state": state, "text": finding.text, "fix": finding.fix}


def _summary(broken: int) -> str:
    if broken:
        return f"\n{broken} {'part does' if broken == 1 else 'parts do'} not work"
    return "\nnothing is broken"


def _command(flags: dict[str, Any]) -> list[str]:
    """Return the words of the run's command."""
    if _SCRIPT.is_file():
        return [python(), str(_SCRIPT), *words(flags)]
    return [*program(), "finetune", *words(flags)]
