"""``llama-recipes-local generate`` in this process, and what it prints."""

import pytest

from llama_recipes_local import cli


def generate(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command prints on standard output."""
    capsys.readouterr()
    assert cli.main(["generate", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command prints on standard error; nothing else, exit code 2."""
    capsys.readouterr()
    assert cli.main(["generate", *map(str, words)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err
