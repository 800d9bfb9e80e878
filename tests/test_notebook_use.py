"""Upstream's quickstart notebook, cell by cell, with only the package's name and the paths changed.

Model and adapter are plain transformers and PEFT, and no run is active: ``train`` is given all it
needs, as upstream's is.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import optim
from torch.optim.lr_scheduler import StepLR
from transformers import AutoTokenizer, LlamaForCausalLM

from llama_recipes_local.configs import lora_config as LORA_CONFIG
from llama_recipes_local.configs import train_config as TRAIN_CONFIG
from llama_recipes_local.configs.datasets import samsum_dataset
from llama_recipes_local.utils.dataset_utils import get_dataloader
from llama_recipes_local.utils.train_utils import train

pytestmark = pytest.mark.slow

DIALOGUES = [
    {"id": str(n), "dialogue": f"Amy: Is it {n} yet?\r\nBob: Soon.", "summary": f"It is {n} soon."}
    for n in range(12)
]


@pytest.fixture(autouse=True)
def _samsum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus where the configuration looks for it, seen from the notebook's folder."""
    folder = tmp_path / "datasets" / "samsum"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps(DIALOGUES), "utf-8")
    (folder / "val.json").write_text(json.dumps(DIALOGUES[:4]), "utf-8")
    monkeypatch.chdir(tmp_path)
    # a cell of the notebook sets this on the class, and hands the class on
    monkeypatch.setattr(samsum_dataset, "trust_remote_code", True, raising=False)


Notebook = Callable[..., tuple[dict[str, Any], Any, Any]]


@pytest.fixture
def notebook(tiny_model: Path) -> Notebook:
    """Runs the notebook's cells; returns the results, the model and the configuration."""

    def run(use_cache: bool = False, **settings: Any) -> tuple[dict[str, Any], Any, Any]:
        train_config = TRAIN_CONFIG()
        train_config.model_name = str(tiny_model)
        train_config.num_epochs = 1
        train_config.run_validation = False
        train_config.gradient_accumulation_steps = 4
        train_config.batch_size_training = 1
        train_config.lr = 3e-2
        train_config.use_fast_kernels = True
        train_config.context_length = 128
        train_config.batching_strategy = "packing"
        train_config.output_dir = "meta-llama-samsum"
        train_config.use_peft = True
        for name, value in settings.items():
            setattr(train_config, name, value)

        torch.manual_seed(train_config.seed)
        model = LlamaForCausalLM.from_pretrained(
            train_config.model_name,
            use_cache=use_cache,
            attn_implementation="sdpa" if train_config.use_fast_kernels else None,
            torch_dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(train_config.model_name)
        tokenizer.pad_token = tokenizer.eos_token

        train_dataloader = get_dataloader(tokenizer, samsum_dataset, train_config)
        eval_dataloader = get_dataloader(tokenizer, samsum_dataset, train_config, "val")

        lora_config = LORA_CONFIG()
        lora_config.r = 8
        lora_config.lora_alpha = 32
        lora_config.lora_dropout = 0.01
        model = get_peft_model(model, LoraConfig(**asdict(lora_config)))
        model.train()
        optimizer = optim.AdamW(
            model.parameters(), lr=train_config.lr, weight_decay=train_config.weight_decay
        )
        scheduler = StepLR(optimizer, step_size=1, gamma=train_config.gamma)
        results = train(
            model,
            train_dataloader,
            eval_dataloader,
            tokenizer,
            optimizer,
            scheduler,
            train_config.gradient_accumulation_steps,
            train_config,
            None,
            None,
            None,
            wandb_run=None,
        )
        return results, model, train_config

    return run


def trained_tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def test_training_returns_upstreams_results(notebook: Notebook) -> None:
    results, model, config = notebook(save_model=False)
    assert set(results) == {
        "avg_train_prep",
        "avg_train_loss",
        "avg_epoch_time",
        "avg_checkpoint_time",
    }
    assert 0 < results["avg_train_loss"] < 10
    grown = [t for name, t in trained_tensors(model).items() if "lora_B" in name]
    assert len(grown) == 4 and all(tensor.any() for tensor in grown)
    assert not Path(config.output_dir, "adapter_model.safetensors").exists()


def test_the_adapter_is_saved_and_comes_back(notebook: Notebook, tiny_model: Path) -> None:
    _, model, config = notebook(save_model=True)
    again = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(tiny_model), config.output_dir, is_trainable=True
    )
    saved, kept = trained_tensors(again), trained_tensors(model)
    assert set(saved) == set(kept)
    assert all(torch.equal(saved[name], kept[name]) for name in kept)


def test_the_last_cell_saves_the_model_itself(notebook: Notebook) -> None:
    _, model, config = notebook(save_model=False)
    model.save_pretrained(config.output_dir)
    assert Path(config.output_dir, "adapter_model.safetensors").is_file()


def test_validation_adds_upstreams_results(notebook: Notebook) -> None:
    settings = {"save_model": False, "run_validation": True}
    untrained, _, _ = notebook(lr=0.0, **settings)
    trained, _, _ = notebook(**settings)
    assert trained["avg_eval_prep"] == pytest.approx(math.exp(trained["avg_eval_loss"]))
    # the validation dialogues are among those trained on
    assert trained["avg_eval_loss"] < untrained["avg_eval_loss"] - 0.05


@pytest.mark.parametrize("use_cache", [False, True])
def test_packed_dialogues_do_not_see_each_other(use_cache: bool, notebook: Notebook) -> None:
    """Transformers' own attention, which the notebook asks for, keeps them apart by position."""
    settings = {"save_model": False, "run_validation": True, "lr": 0.0, "use_cache": use_cache}
    packed, _, _ = notebook(batching_strategy="packing", context_length=512, **settings)
    alone, _, _ = notebook(batching_strategy="padding", val_batch_size=1, **settings)
    # float32, another order of summation
    assert packed["avg_eval_loss"] == pytest.approx(alone["avg_eval_loss"], rel=1e-5)
