"""Upstream's ``inference`` works from local folders, and says what ``generate`` says."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from llama_recipes_local.inference.chat_utils import read_dialogs_from_file
from llama_recipes_local.inference.model_utils import load_model, load_peft_model

from llama_recipes_local import cli
from llama_recipes_local.models import AutoTokenizer

PROMPT = "She go to school."


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(base, config)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.normal_()
    adapted.save_pretrained(str(folder))
    return folder


def test_a_model_and_an_adapter_are_loaded_from_folders(
    tiny_model: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(str(tiny_model), quantization=None, use_fast_kernels=True)
    adapted = load_peft_model(model, str(adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"].to(adapted.device)
    longer = adapted.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
    completion = tokenizer.decode(longer[0, ids.shape[1] :], skip_special_tokens=True)
    words = ("--adapter", adapter, "--prompt", PROMPT, "--max_new_tokens", 8)
    capsys.readouterr()
    assert cli.main(["generate", *map(str, words)]) == 0
    assert capsys.readouterr().out == completion + "\n"
    with adapted.disable_adapter():
        plain = adapted.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
    assert not plain.equal(longer)


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="local folders only"):
        load_model(str(tmp_path / "org" / "name"), None, use_fast_kernels=False)
    with pytest.raises(FileNotFoundError, match="local folders only"):
        load_peft_model(torch.nn.Linear(1, 1), "org/name")


def test_dialogs_are_read(tmp_path: Path) -> None:
    dialogs = [[{"role": "user", "content": "Hi"}]]
    (tmp_path / "chats.json").write_text(json.dumps(dialogs))
    assert read_dialogs_from_file(str(tmp_path / "chats.json")) == dialogs
