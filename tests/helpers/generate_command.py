"""``llama-recipes-local generate`` in this process, and its output."""

import pytest

from llama_recipes_local import cli


def generate(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the standard output."""
    capsys.readouterr()
    assert cli.main(["generate", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the standard error of a command that prints nothing else and exits with code 2."""
    capsys.readouterr()
    assert cli.main(["generate", *map(str, words)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err
