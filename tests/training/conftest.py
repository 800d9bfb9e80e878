"""Small trainings in this process: a tiny model, real rows, every gradient kept."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from shared_fixtures import one_thread  # noqa: F401 for all tests of this room
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llama_recipes_local import configs, models
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.datasets import get_grammar_dataset
from llama_recipes_local.optimization import StepLR
from llama_recipes_local.training.loop import METRICS_FILE, train
from llama_recipes_local.utils.config_utils import get_dataloader_kwargs

CONTEXT_LENGTH = 256
Gradients = dict[str, torch.Tensor]


@dataclass
class Training:
    """What a training came to; ``steps`` are the lines of ``metrics.jsonl``."""

    model: torch.nn.Module
    results: dict[str, Any]
    steps: list[dict[str, Any]]
    gradients: list[Gradients]
    output: Path


class Recorder(torch.optim.SGD):
    """Keeps the gradient of each step before taking it."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        self.names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self.gradients: list[Gradients] = []
        super().__init__(self.names, lr=lr)

    def step(self, closure: Any = None) -> None:
        self.gradients.append({name: p.grad.clone() for p, name in self.names.items()})
        super().step(closure)


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def samples(grammar_data: Path, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, list[int]]]:
    """The real training rows, tokenised; only the responses are labels."""
    config = configs.grammar_dataset(data_root=str(grammar_data))
    rows = list(get_grammar_dataset(config, tokenizer))
    assert len(rows) == 60
    return rows


@pytest.fixture
def make_model(tiny_model: Path) -> Callable[..., torch.nn.Module]:
    """Loads a new tiny model, in float32, with the kernel for packed documents."""

    def make(**kwargs: Any) -> torch.nn.Module:
        kwargs = {"attn_implementation": "documents", "dtype": torch.float32} | kwargs
        return models.LlamaForCausalLM.from_pretrained(tiny_model, **kwargs)

    return make


@pytest.fixture
def make_loader(tokenizer: PreTrainedTokenizerBase) -> Callable[..., DataLoader[Any]]:
    """Batches samples as ``main`` does, in this process."""

    def make(samples: Any, config: Any, mode: str) -> DataLoader[Any]:
        if config.batching_strategy == "packing":
            samples = ConcatDataset(samples, chunk_size=config.context_length)
        return DataLoader(samples, **get_dataloader_kwargs(config, samples, tokenizer, mode))

    return make


@pytest.fixture
def run_training(
    tmp_path: Path,
    make_model: Callable[..., torch.nn.Module],
    make_loader: Callable[..., DataLoader[Any]],
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[Callable[..., Training]]:
    """Trains with ``train`` on samples; further arguments are fields of ``train_config``."""
    runs = 0

    def run(
        samples: Any,
        validation: Any = None,
        model: torch.nn.Module | None = None,
        wandb_run: Any = None,
        **fields: Any,
    ) -> Training:
        nonlocal runs
        runs += 1
        defaults = {
            "context_length": CONTEXT_LENGTH,
            "num_epochs": 1,
            "num_workers_dataloader": 0,
            "lr": 0.1,
            "save_model": False,
            "run_validation": validation is not None,
            "output_dir": str(tmp_path / f"run-{runs}"),
        }
        config = configs.train_config(**defaults | fields)
        model = model if model is not None else make_model()
        optimizer = Recorder(model, config.lr)
        results = train(
            model,
            make_loader(samples, config, "train"),
            make_loader(validation, config, "val") if validation is not None else None,
            tokenizer,
            optimizer,
            StepLR(optimizer, step_size=1, gamma=config.gamma),
            config.gradient_accumulation_steps,
            config,
            wandb_run=wandb_run,
        )
        output = Path(config.output_dir)
        lines = (output / METRICS_FILE).read_text("utf-8").splitlines()
        steps = [json.loads(line) for line in lines]
        return Training(model, results, steps, optimizer.gradients, output)

    yield run
