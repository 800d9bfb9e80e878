"""``llama-recipes-local doctor``: examines each part of the machine and prints a line for it."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.errors import UsageError, one_line, reason
from llama_recipes_local.program import program, python
from llama_recipes_local.screen import shell_command


def _of(module: str) -> Callable[[], Iterator[Finding]]:
    """Return what a module of this room examines; it is imported then, and may fail as that is."""

    def examine() -> Iterator[Finding]:
        try:
            yield from import_module(f"{__package__}.{module}").examine()
        except UsageError as error:
            yield from _problems(module, error)
        except Exception as error:  # a package, driver or file may be damaged in any way
            name = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
            fix = f"{python()} -m pip install {name}" if name else "fix the other lines first"
            yield Finding(module, State.BROKEN, f"cannot be examined: {reason(error)}", fix)

    return examine


EXAMINATIONS = tuple(map(_of, ("packages", "own", "gpu", "quantizing", "host_limits", "ranks")))
_SCRIPT = Path("finetuning.py")


def doctor(args: argparse.Namespace) -> None:
    """Print what was found.

    Raises:
        SystemExit: with code 1 if something does not work.
    """
    if args.clean_cache:
        from llama_recipes_local.commands.doctor import own
        from llama_recipes_local.data.cache import cache_folder

        print(f"--> {own.clean(cache_folder())}", file=sys.stderr)
    findings = []
    for finding in _examined(args):
        findings.append(finding)
        if not args.json:
            print(as_line(finding), flush=True)
    broken = sum(finding.state is State.BROKEN for finding in findings)
    command = _command(args.flags) if args.flags and not broken else []
    if args.json:
        content = {"findings": [_as_json(f) for f in findings], "broken": broken}
        print(json.dumps(content | ({"command": command} if command else {}), indent=2))
    else:
        print(_summary(broken))
        if command:
            print(shell_command(command))
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
        from llama_recipes_local.preflight import preflight

        with contextlib.redirect_stdout(sys.stderr):  # where the data's files are, say
            run = preflight(arguments, flags, ("json", "clean_cache"))
    except UsageError as error:
        yield from _problems("run", error)
        return
    yield Finding("run", State.WORKS, f"{run.train.model_name} on {run.train.dataset}: no problem")


def _problems(name: str, error: UsageError) -> Iterator[Finding]:
    for problem in error.problems:
        yield Finding(name, State.BROKEN, f"{problem.what}: {problem.why}", problem.fix)


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
    from llama_recipes_local.planning.flags import words

    if _SCRIPT.is_file():
        return [python(), str(_SCRIPT), *words(flags)]
    return [*program(), "finetune", *words(flags)]
