"""An adapter whose configuration names a base model elsewhere is trained on the model given."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from llama_recipes_local import adapters
from llama_recipes_local.model_checkpointing.saved_adapter import adapter_state, write_adapter

NEW_ROWS = 8


@pytest.mark.parametrize("named", ["someone/Llama-2-7b", "/gone", None])
def test_what_is_saved_names_and_records_the_model_that_was_used(
    named: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    first, second = tmp_path / "first", tmp_path / "second"
    fresh: Any = LlamaForCausalLM.from_pretrained(base)
    get_peft_model(fresh, LoraConfig(target_modules=["q_proj"])).save_pretrained(first)
    config = first / "adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": named})
    )
    model: Any = LlamaForCausalLM.from_pretrained(base)
    rows = model.config.vocab_size + NEW_ROWS  # of new tokens, which the base's folder has not
    model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = adapters.PeftModel.from_pretrained(model, first, is_trainable=True)
    second.mkdir()
    write_adapter(adapted, adapter_state(adapted), second)
    saved = json.loads((second / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(base)
    assert json.loads((second / "base_model.json").read_text())["name"] == "base"
    weight = load_file(second / "adapter_model.safetensors")
    assert torch.equal(
        weight["base_model.model.model.embed_tokens.weight"], model.get_input_embeddings().weight
    )
