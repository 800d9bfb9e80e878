"""A stand-in that is made in seconds: tiny sizes, a few real sentences."""

from pathlib import Path

import pytest

from llama_recipes_local.commands.prepare.stand_in.settings import StandInSettings

TINY = {
    "vocabulary": 400,
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "intermediate_size": 64,
    "positions": 256,
    "row_tokens": 128,
    "steps": 12,
}


@pytest.fixture(scope="session")
def settings() -> StandInSettings:
    return StandInSettings(**TINY)


@pytest.fixture(scope="session")
def sentences(grammar_data: Path) -> Path:
    """A CSV file of 60 sentences and their corrections."""
    return grammar_data / "datasets/grammar/gtrain_10k.csv"


@pytest.fixture(scope="session")
def stand_in(
    sentences: Path, settings: StandInSettings, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a tiny stand-in."""
    from llama_recipes_local.commands.prepare.stand_in.command import make_stand_in

    folder = tmp_path_factory.mktemp("models") / "stand-in"
    assert make_stand_in(folder, sentences, settings)
    return folder
