"""Runs command lines one after another in this process, and prints how each ended.

    python offline_commands.py < LINES

``LINES`` is JSON, a list of lists of words; prints as JSON the exit code of each, with what it
printed where that is not 0. The stand-in is made in two steps, not in a minute.
"""

import contextlib
import io
import json
import sys
from functools import partial

from llama_recipes_local import cli
from llama_recipes_local.commands.prepare.stand_in import command as stand_in
from llama_recipes_local.commands.prepare.stand_in.settings import StandInSettings


def run(words: list[str]) -> tuple[int, str]:
    """Run one command line, as the console script does."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            if words[0] == "sft.py":
                from llama_recipes_local.commands.sft.command import main

                code = main(words[1:])
            else:
                code = cli.main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, said.getvalue()[-3000:] if code else ""


if __name__ == "__main__":
    stand_in.StandInSettings = partial(StandInSettings, steps=2)  # type: ignore[assignment, misc]
    print(json.dumps([run(words) for words in json.load(sys.stdin)]))
