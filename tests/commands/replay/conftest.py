"""Runs ``replay`` in this process."""

from collections.abc import Callable

import pytest

from llama_recipes_local import cli

Replay = Callable[..., tuple[int, str]]


@pytest.fixture
def replay(capsys: pytest.CaptureFixture[str]) -> Replay:
    """Runs ``replay`` and returns its exit code and what it printed."""

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main(["replay", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run
