"""The state of every optimiser is loaded, and its next step is the one it would have taken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from llama_recipes_local.checkpoints import files, model_state
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError
from llama_recipes_local.checkpoints.reading import read_tensors
from llama_recipes_local.checkpoints.shards import (
    TensorShard,
    copy_to_host,
    group_into_files,
    shard_of,
)
from llama_recipes_local.optimization.optimizers import make_optimizer

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamw": lambda p: make_optimizer("adamw", p, 1e-2, 0.1),
    "adamw, not fused": lambda p: make_optimizer("adamw", p, 1e-2, 0.1, fused=False),
    "anyprecision": lambda p: make_optimizer("anyprecision", p, 1e-2, 0.1),
    "adamw_8bit": lambda p: make_optimizer("adamw_8bit", p, 1e-2, 0.1),
    "paged_adamw": lambda p: make_optimizer("paged_adamw", p, 1e-2, 0.1),
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "groups": lambda p: torch.optim.AdamW([{"params": p[:1], "lr": 0.5}, {"params": p[1:]}]),
}


def make_model() -> nn.Module:
    """Return a model with a matrix that 8-bit optimisers keep in 8 bits, and one never used."""
    torch.manual_seed(0)
    return nn.ModuleDict({"used": nn.Linear(80, 80), "unused": nn.Linear(2, 2)})


def take_steps(model: Any, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        model["used"](torch.randn(4, 80)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True)
    shards = [shard for name, tensor in tensors.items() if (shard := shard_of(name, tensor))]
    for number, part in enumerate(group_into_files(shards, 10_000)):
        files.write_tensors(folder / f"{number}.safetensors", part)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_reloaded_optimiser_continues_as_uninterrupted(name: str, tmp_path: Path) -> None:
    if "8bit" in name or "paged" in name:
        pytest.importorskip("bitsandbytes")
    straight = make_model()
    optimizer = OPTIMIZERS[name](list(straight.parameters()))
    take_steps(straight, optimizer, range(3))
    optimizer.param_groups[-1]["lr"] = 3e-2  # a schedule's
    write(tmp_path / "model", model_state.model_tensors(straight))
    write(tmp_path / "optimizer", model_state.optimizer_tensors(straight, optimizer))
    values = json.loads(json.dumps(model_state.optimizer_values(straight, optimizer)))
    assert len(list((tmp_path / "optimizer").iterdir())) > 1
    take_steps(straight, optimizer, range(3, 6))

    resumed = make_model()
    again = OPTIMIZERS[name](list(resumed.parameters()))
    model_state.load_optimizer(resumed, again, tmp_path / "optimizer", values["numbers"])
    model_state.load_model(resumed, tmp_path / "model")
    model_state.load_param_groups(again, values["groups"])
    take_steps(resumed, again, range(3, 6))
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert ours.equal(theirs)
    assert model_state.optimizer_values(resumed, again) == model_state.optimizer_values(
        straight, optimizer
    )
    ours = model_state.optimizer_tensors(resumed, again)
    theirs = model_state.optimizer_tensors(straight, optimizer)
    assert {key: (t.dtype, t.device) for key, t in ours.items()} == {
        key: (t.dtype, t.device) for key, t in theirs.items()
    }
    assert all(ours[key].equal(theirs[key]) for key in theirs)


def test_only_what_is_trained_is_saved() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    model.register_buffer("made_anew", torch.zeros(1), persistent=False)
    assert set(model_state.model_tensors(model)) == {
        *("0.bias", "1.weight", "1.bias"),
        *("1.running_mean", "1.running_var", "1.num_batches_tracked"),
    }


def test_files_are_safetensors_of_any_dtype(tmp_path: Path) -> None:
    """An odd number of bytes comes last, so that wide elements lie where they can be read."""
    tensors = {
        "bytes": torch.arange(3, dtype=torch.uint8),
        "halves": torch.arange(5, dtype=torch.bfloat16),
        "numbers": torch.arange(6.0).view(2, 3).T,
        "one": torch.tensor(7),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
    }
    shards = [shard for name, tensor in tensors.items() if (shard := shard_of(name, tensor))]
    entry = files.write_tensors(tmp_path / "file.safetensors", shards)
    assert entry.size == (tmp_path / "file.safetensors").stat().st_size
    with safe_open(tmp_path / "file.safetensors", framework="pt") as file:
        for name, tensor in tensors.items():
            read = file.get_tensor(name)
            assert read.dtype == tensor.dtype
            assert read.equal(tensor)
    buffer = torch.empty(sum(shard.size for shard in shards), dtype=torch.uint8)
    staged = copy_to_host(shards, buffer)
    tensors["bytes"] += 1
    copies = {shard.name: shard.tensor for shard in staged}
    assert copies["numbers"].equal(tensors["numbers"])
    assert copies["bytes"].tolist() == [0, 1, 2]


def test_shards_of_three_ranks_load_on_four(tmp_path: Path) -> None:
    whole = torch.arange(60.0).view(10, 6)
    for rank, (first, last) in enumerate([(0, 4), (4, 8), (8, 10)]):
        shard = TensorShard("weight", whole[first:last], (first, 0))
        files.write_tensors(tmp_path / f"{rank}.safetensors", [shard])
    target = torch.zeros(10, 6)
    read_tensors(tmp_path, {"weight": target})
    assert target.equal(whole)
    (tmp_path / "1.safetensors").unlink()
    with pytest.raises(CorruptCheckpointError, match="weight is incomplete"):
        read_tensors(tmp_path, {"weight": target})
    with pytest.raises(CorruptCheckpointError, match="shape"):
        read_tensors(tmp_path, {"weight": torch.zeros(11, 6)})
    with pytest.raises(CorruptCheckpointError, match="bias has shape"):
        read_tensors(tmp_path, {"bias": target})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_no_run_saves_is_refused(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.zeros(3, 2, dtype=dtype)
    write(tmp_path / "good", {"a": tensor - torch.inf})  # a mask of a model's own
    read_tensors(tmp_path / "good", {"a": tensor})
    write(tmp_path / "bad", {"a": torch.tensor([[0, 1], [value, 0], [1, 0]], dtype=dtype)})
    with pytest.raises(CorruptCheckpointError, match="a has values that are not finite"):
        read_tensors(tmp_path / "bad", {"a": tensor})
    write(tmp_path / "rounded", {"a": torch.zeros(3, 2, dtype=torch.int8)})
    with pytest.raises(CorruptCheckpointError, match=f"a is {dtype} in this model, and torch.int8"):
        read_tensors(tmp_path / "rounded", {"a": tensor})
