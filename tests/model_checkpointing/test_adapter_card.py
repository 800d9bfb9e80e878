"""An adapter's README.md tells what it is and how plain PEFT loads it; no path."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llama_recipes_local import finetuning
from llama_recipes_local.model_checkpointing.adapter_card import command_without_folders

FLAGS = {
    "use_peft": True,
    "model_name": "/data/models/llama",
    "local_dataset.data_path": ["/data/a b.jsonl", "c.jsonl"],
    "local_dataset.columns": "prompt=Q,completion=A",
    "output_dir": "../out",
    "lr": 1e-4,
}


def test_a_command_names_the_last_parts_of_folders() -> None:
    assert command_without_folders(FLAGS) == (
        "python finetuning.py --use_peft True --model_name llama --local_dataset.data_path "
        "'a b.jsonl,c.jsonl' --local_dataset.columns prompt=Q,completion=A --output_dir out "
        "--lr 0.0001"
    )


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [0, 50], ids=["plain", "new tokens"])
def test_the_card_loads_the_adapter_in_plain_peft(
    tokens: int,
    tiny_model: Path,
    tiny_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its code is run as it is, in the folder that has both."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<new{number}>" for number in range(tokens)])
    tokenizer.save_pretrained(base)
    assert (len(tokenizer) > 1000) == bool(tokens)  # the model's rows
    flags = tiny_run | {"model_name": str(base), "context_length": 128, "max_train_step": 2}
    flags["train_new_tokens"] = bool(tokens)
    finetuning.main(**flags, use_peft=True, lr=0.1, output_dir=str(tmp_path / "adapter"))
    card = (tmp_path / "adapter/README.md").read_text()
    assert str(tmp_path) not in card and "/tmp" not in card and "More Information" not in card
    assert "| base model | base |" in card and "--dataset grammar_dataset" in card
    assert re.search(r"\| data \| grammar_dataset, train `\w{32,}`, validation `\w{32,}` \|", card)
    assert re.search(r"\| validation loss before training \| \d+\.\d{4} \|", card)
    assert re.search(r"\| validation loss after training \| \d+\.\d{4} \|", card)
    assert "--model_name base" in card and "--max_train_step 2" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert (f"resize_token_embeddings({len(tokenizer)})" in code) == bool(tokens)
    monkeypatch.chdir(tmp_path)
    loaded: dict[str, Any] = {}
    exec(code, loaded)
    ids = torch.tensor([[0, 5, 6, max(999, len(tokenizer) - 1)]])
    with torch.no_grad(), loaded["model"].disable_adapter():
        plain = loaded["model"](ids).logits
    with torch.no_grad():
        assert not torch.equal(loaded["model"](ids).logits, plain)
    assert len(loaded["tokenizer"]) == len(tokenizer)
