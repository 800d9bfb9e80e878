"""Tokens without rows are named before training begins."""

import shutil
from pathlib import Path

import pytest
import transformers

from llama_recipes_local import configs
from llama_recipes_local.models.new_tokens import new_tokens_note


@pytest.mark.parametrize("use_peft", [False, True])
def test_tokens_without_rows_are_named(use_peft: bool, tiny_model: Path, tmp_path: Path) -> None:
    config = configs.train_config(model_name=str(tiny_model), use_peft=use_peft)
    assert new_tokens_note(config) == ""
    folder = shutil.copytree(tiny_model, tmp_path / "more")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<{number}>" for number in range(1001 - len(tokenizer))])
    tokenizer.save_pretrained(folder)
    config.tokenizer_name = str(folder)
    note = new_tokens_note(config)
    assert f"no rows for: {tokenizer.convert_ids_to_tokens(1000)};" in note
    assert ("not trained" in note) == use_peft
