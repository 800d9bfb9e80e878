"""What is sharded over which ranks, in which dtype, as a single process can test."""

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mllama.modeling_mllama import MllamaVisionEncoderLayer

from llama_recipes_local import configs, launch, parallel
from llama_recipes_local.parallel import sharding


@pytest.mark.parametrize(("replicas", "shards"), [(0, 2), (2, 0), (2, 2), (1, 4)])
def test_hybrid_groups_must_make_up_all_ranks(
    monkeypatch: pytest.MonkeyPatch, replicas: int, shards: int
) -> None:
    monkeypatch.setattr(sharding, "world_size", lambda: 8)
    with pytest.raises(ValueError, match="replica_group_size"):
        parallel.hsdp_device_mesh(replicas, shards)


@pytest.mark.parametrize(
    ("strategy", "shape", "names"),
    [
        ("FULL_SHARD", (8,), ("shard",)),
        ("SHARD_GRAD_OP", (8,), ("shard",)),
        ("NO_SHARD", (8, 1), ("replicate", "shard")),
        ("HYBRID_SHARD", (2, 4), ("replicate", "shard")),
        ("_HYBRID_SHARD_ZERO2", (2, 4), ("replicate", "shard")),
    ],
)
def test_a_strategys_mesh_on_two_hosts_of_four(
    monkeypatch: pytest.MonkeyPatch, strategy: str, shape: tuple[int, ...], names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sharding, "world_size", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    made = []
    monkeypatch.setattr(
        sharding, "init_device_mesh", lambda device, *mesh, **named: made.append((*mesh, named))
    )
    sharding.mesh_for(parallel.ShardingStrategy[strategy])
    assert made == [(shape, {"mesh_dim_names": names})]


def test_on_cpu_nothing_is_cast() -> None:
    policy, layers = parallel.get_policies(configs.fsdp_config(), rank=0)
    assert policy is None
    assert {LlamaDecoderLayer, MllamaVisionEncoderLayer} < layers


@pytest.mark.parametrize(("use_fp16", "expected"), [(False, torch.bfloat16), (True, torch.float16)])
def test_on_cuda_computes_in_half_and_reduces_in_float32(
    monkeypatch: pytest.MonkeyPatch, use_fp16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(sharding, "device_type", lambda: "cuda")
    policy, _ = parallel.get_policies(configs.fsdp_config(use_fp16=use_fp16), rank=0)
    assert policy.param_dtype is expected
    assert policy.reduce_dtype is torch.float32


def test_without_mixed_precision_nothing_is_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "device_type", lambda: "cuda")
    assert parallel.get_policies(configs.fsdp_config(mixed_precision=False), rank=0)[0] is None


def test_torchrun_is_known_by_all_of_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in launch.VARIABLES:
        assert not parallel.launched_by_torchrun()
        monkeypatch.setenv(variable, "2" if variable == "WORLD_SIZE" else "1")
    assert parallel.launched_by_torchrun()
    assert parallel.rank() == 1
    assert not parallel.is_rank_zero()


def test_a_single_process_is_rank_0_of_1() -> None:
    value = torch.tensor([3.0])
    assert (parallel.rank(), parallel.world_size(), parallel.is_rank_zero()) == (0, 1, True)
    assert parallel.all_reduce_sum(value) is value
    assert parallel.full_tensor(value) is value
    parallel.barrier()
    parallel.cleanup()


def test_replicas_hold_each_weight_once() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    kept = parallel.FullyShardedDataParallel(
        model, [torch.nn.Linear], sharding_strategy=parallel.ShardingStrategy.NO_SHARD
    )
    assert kept is model
    # FSDP2 would have moved them into tensors of its own, and have copied them in each pass
    assert {name: p.data_ptr() for name, p in kept.named_parameters()} == before
    assert not any(isinstance(module, FSDPModule) for module in kept.modules())
