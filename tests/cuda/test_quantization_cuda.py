"""Quantised weights, QLoRA's settings and shares read by each rank, on a CUDA device."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

from llama_recipes_local import parallel
from llama_recipes_local.finetuning import main

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NF4 = {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": True}
FAST = {"lr": 0.01, "num_epochs": 8, "context_length": 128, "lora_dropout": 0.0}


@pytest.fixture
def flags(tiny_model: Path, grammar_data: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model_name": str(tiny_model),
        "data_root": str(grammar_data),
        "dataset": "grammar_dataset",
        "use_peft": True,
        "run_validation": False,
        "output_dir": str(tmp_path / "out"),
        **FAST,
    }


def assert_trained(output: Path) -> None:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0] - 0.1
    assert (output / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    "asked",
    [
        NF4,
        NF4 | {"use_fp16": True},
        NF4 | {"pure_bf16": True},
        {"quantization": "4bit"},
        {"quantization": "8bit"},
        NF4 | {"optimizer": "paged_adamw"},
    ],
    ids=str,
)
def test_one_device(asked: dict[str, Any], flags: dict[str, Any], tmp_path: Path) -> None:
    main(**flags | asked)
    assert_trained(tmp_path / "out")


@pytest.mark.ranks
@pytest.mark.parametrize(
    "asked",
    [
        NF4,
        NF4 | {"use_fp16": True},
        NF4 | {"pure_bf16": True},
        NF4 | {"fsdp_cpu_offload": True},
        NF4 | {"sharding_strategy": "SHARD_GRAD_OP"},
        {"quantization": "8bit", "sharding_strategy": "NO_SHARD", "optimizer": "paged_adamw"},
        {"low_cpu_fsdp": True},
        {"low_cpu_fsdp": True, "fsdp_cpu_offload": True},
    ],
    ids=str,
)
def test_one_rank_of_fsdp(
    asked: dict[str, Any], flags: dict[str, Any], run_finetuning: Any, tmp_path: Path
) -> None:
    every = flags | asked | {"enable_fsdp": True, "num_workers_dataloader": 0}
    done = run_finetuning(*(f"--{k}={v}" for k, v in every.items()), cwd=tmp_path, nproc=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_trained(tmp_path / "out")


def test_the_recipe(
    flags: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(**flags | {"config": "qlora"})
    assert "--optimizer paged_adamw" in capsys.readouterr().out
    assert_trained(tmp_path / "out")


@pytest.fixture
def one_rank() -> Iterator[None]:
    store = dist.HashStore()
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Block(nn.Module):
    def __init__(self, storage: torch.dtype) -> None:
        from bitsandbytes.nn import LinearNF4

        super().__init__()
        self.norm = nn.RMSNorm(512)
        self.linear = LinearNF4(512, 512, bias=False, quant_storage=storage)
        self.is_loaded_in_4bit = True


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float16, torch.float32, torch.uint8])
def test_packed_weights_are_gathered_to_the_bit(storage: torch.dtype) -> None:
    torch.manual_seed(0)
    block: Any = Block(storage).to("cuda", torch.bfloat16)
    packed = block.linear.weight.detach().clone()
    if storage.is_floating_point:  # what a copy of floats might not keep
        assert packed.isnan().any()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    parallel.FullyShardedDataParallel(block, None, None, policy)
    assert isinstance(block, FSDPModule)
    for _ in range(2):
        block.unshard()
        gathered = block.linear.weight.detach().view(torch.uint8).flatten()
        assert gathered.equal(packed.view(torch.uint8).flatten())
        block.reshard()
