"""Runs under torchrun: trainings of the tiny model on two ranks, sharded or replicated.

Started with a folder that holds ``runs.json``; each training leaves ``NAME.safetensors`` there.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, LlamaForCausalLM

from llama_recipes_local import configs, parallel
from llama_recipes_local.optimization import AdamW, StepLR
from llama_recipes_local.parallel import FullyShardedDataParallel, full_tensor
from llama_recipes_local.training.loop import train
from llama_recipes_local.training.nonfinite import NonFiniteError
from llama_recipes_local.utils.config_utils import get_dataloader_kwargs

FIELDS = {
    "batching_strategy": "padding",
    "context_length": 256,
    "enable_fsdp": True,
    "num_epochs": 1,
    "num_workers_dataloader": 0,
    "run_validation": False,
    "save_model": False,
}


class Recorder(torch.optim.SGD):
    """Keeps the gradient of each step before taking it."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        self.parameters = dict(plain(model).named_parameters())
        self.gradients: list[dict[str, torch.Tensor]] = []
        super().__init__(self.parameters.values(), lr=lr)

    def step(self, closure: Any = None) -> None:
        kept = {name: full_tensor(p.grad).clone() for name, p in self.parameters.items()}
        self.gradients.append(kept)
        super().step(closure)


def plain(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def make_model(folder: str, wrapper: str) -> torch.nn.Module:
    kwargs: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "documents"}
    model = LlamaForCausalLM.from_pretrained(folder, **kwargs)
    if wrapper == "ddp":
        return DistributedDataParallel(model)
    return FullyShardedDataParallel(model, [type(model.model.layers[0])])


def fit(
    run: dict[str, Any], folder: Path, model: Any, optimizer: Any, rows: int, **fields: Any
) -> None:
    """Train on the first rows."""
    config = configs.train_config(output_dir=str(folder / "out"), **FIELDS | fields)
    tokenizer = AutoTokenizer.from_pretrained(run["model"])
    samples = run["samples"][:rows]
    loader = DataLoader(samples, **get_dataloader_kwargs(config, samples, tokenizer, "train"))
    steps = config.gradient_accumulation_steps
    schedule = StepLR(optimizer, step_size=1, gamma=1.0)
    train(model, loader, None, tokenizer, optimizer, schedule, steps, config)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = plain(model).named_parameters()
    return {name: full_tensor(p.detach()).clone() for name, p in state}


def gradients(run: dict[str, Any], folder: Path, name: str, wrapper: str, **fields: Any) -> None:
    """Save the gradient of the first step, and its logged loss."""
    model = make_model(run["model"], wrapper)
    optimizer = Recorder(model, 0.1)
    backward = count_reductions(model) if wrapper == "ddp" else []
    fit(run, folder, model, optimizer, rows=16, max_train_step=1, **fields)
    if parallel.is_rank_zero():
        loss = json.loads((folder / "out" / "metrics.jsonl").read_text())["loss"]
        tensors = optimizer.gradients[0]
        extra = {"loss": torch.tensor(loss), "reductions": torch.tensor(len(backward))}
        save_file(tensors | extra, folder / f"{name}.safetensors")


def count_reductions(model: Any) -> list[int]:
    """Return a list that grows with each bucket of gradients that is all-reduced."""
    seen: list[int] = []

    def hook(state: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        seen.append(bucket.index())
        return allreduce_hook(state, bucket)

    model.register_comm_hook(None, hook)
    return seen


def make_non_finite(model: torch.nn.Module, call: int, rank: int, where: str) -> None:
    """Make a micro-batch of one rank non-finite, in its loss or only in its gradient."""
    calls = 0

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        if parallel.rank() != rank or calls != call:
            return None
        if where == "gradient":
            output.register_hook(lambda gradient: gradient * float("inf"))
            return None
        return output * float("nan")

    plain(model).get_input_embeddings().register_forward_hook(hook)


def stopped(
    run: dict[str, Any], folder: Path, name: str, wrapper: str, optimizer: str, where: str
) -> None:
    """Make a micro-batch of rank 1 non-finite in step 3; report the error, and if weights moved."""
    fields: dict[str, Any] = {"batch_size_training": 2, "gradient_accumulation_steps": 2}
    fields |= {"gradient_clipping": True, "rows": 32}

    def make() -> tuple[Any, Any]:
        model = make_model(run["model"], wrapper)
        if optimizer == "sgd":  # takes no found_inf
            return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)

    model, steps = make()
    fit(run, folder, model, steps, max_train_step=2, **fields)
    before = weights(model)
    model, steps = make()
    make_non_finite(model, call=6, rank=1, where=where)
    message = ""
    try:
        fit(run, folder, model, steps, **fields)
    except NonFiniteError as error:
        message = str(error)
    after = weights(model)
    same = all(after[key].equal(before[key]) for key in before)
    lines = (folder / "out" / "metrics.jsonl").read_text().splitlines()
    report = {"message": message, "same": same, "lines": len(lines)}
    (folder / f"{name}-{parallel.rank()}.json").write_text(json.dumps(report))


CHECKS = {"gradients": gradients, "stopped": stopped}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run = json.loads((folder / "runs.json").read_text())
    parallel.setup()
    for check, name, arguments in run["checks"]:
        CHECKS[check](run, folder, name, **arguments)
        parallel.barrier()
    parallel.cleanup()
