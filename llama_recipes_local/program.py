"""How to call this program in the user's shell, so that commands in messages can be copied."""

import os
import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = "llama-recipes-local"


def program() -> list[str]:
    """Return the words that start this package's program in this shell, with this Python."""
    script = Path(sys.executable).with_name(SCRIPT)
    if not script.is_file():  # a checkout that is not installed
        return [python(), "-m", "llama_recipes_local"]
    found = shutil.which(SCRIPT)
    if found is not None and os.path.samefile(found, script):
        return [SCRIPT]
    return [_from_here(script)]


def python() -> str:
    """Return the path of this Python, from the working directory if it is below it."""
    return _from_here(Path(sys.executable))


def command(*words: object) -> str:
    """Return the shell command that runs the program with the words, such as a subcommand."""
    return shlex.join([*program(), *map(str, words)])


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
