"""FSDP2 behind the call that upstream's ``main`` makes for FSDP1.

One unit per decoder layer and one for the rest. Master weights keep their dtype; ``fully_shard``
casts them to the compute dtype as it gathers them, so float32 adapters and bfloat16 weights have
one dtype inside a unit.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffload,
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from llama_recipes_local import configs
from llama_recipes_local.parallel.process_group import device_type, world_size
from llama_recipes_local.parallel.quantized import (
    is_quantized,
    quantized_parameters,
    shard_as_words,
)
from llama_recipes_local.parallel.shard_loading import load_shards, move_deferred_to_meta

_GATHERED_ONCE = "gathered_once"  # whether layers stay gathered from the forward pass on


def FullyShardedDataParallel(  # noqa: N802 (the name that main calls)
    module: nn.Module,
    auto_wrap_policy: Collection[type[nn.Module]] | None = None,
    cpu_offload: CPUOffload | None = None,
    mixed_precision: MixedPrecisionPolicy | None = None,
    sharding_strategy: ShardingStrategy = ShardingStrategy.FULL_SHARD,
    device_mesh: DeviceMesh | None = None,
    device_id: int | None = None,
    limit_all_gathers: bool = True,
    sync_module_states: bool = False,
    param_init_fn: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Shard ``module`` in place over all ranks and return it.

    Arguments have FSDP1's names. Nothing is broadcast from rank 0 (``param_init_fn``): every rank
    has the full model, or loads its shards. FSDP2 limits its all-gathers itself, and the device
    follows from the mesh.

    Args:
        module: the model, the same on all ranks.
        auto_wrap_policy: classes of the layers that become FSDP units.
        cpu_offload: if its ``offload_params`` is true, parameters are kept in host memory.
        mixed_precision: compute and reduction dtypes; None keeps the parameters' own. A
            quantised model is not cast, see ``parallel.quantized``.
        sharding_strategy: what is sharded, see ``mesh_for``. With NO_SHARD the model only goes to
            its device, unless its weights are offloaded: the loop has gradients averaged, see
            ``parallel.replicas``.
        device_mesh: a (replicate, shard) mesh, as ``hsdp_device_mesh`` makes it.
        sync_module_states: whether parameters may be deferred, and are loaded after sharding.
    """
    # on the CPU, parameters are in host memory anyway
    offloads = cpu_offload and cpu_offload.offload_params and device_type() != "cpu"
    places = move_deferred_to_meta(module) if sync_module_states else {}
    if sharding_strategy == ShardingStrategy.NO_SHARD and not offloads:
        load_shards(module, places, own_device())
        return module if is_quantized(module) else module.to(own_device())
    policy = mixed_precision or MixedPrecisionPolicy()
    if is_quantized(module):
        policy = replace(policy, param_dtype=None)
    arguments: dict[str, Any] = {
        "mesh": device_mesh or mesh_for(sharding_strategy),
        "mp_policy": policy,
        "offload_policy": CPUOffloadPolicy() if offloads else OffloadPolicy(),
    }
    resharding = sharding_strategy in (ShardingStrategy.FULL_SHARD, ShardingStrategy.HYBRID_SHARD)
    if sharding_strategy == ShardingStrategy.NO_SHARD:
        # replicated, and never trained
        arguments["ignored_params"] = quantized_parameters(module)
    else:
        shard_as_words(module)
    layers = tuple(auto_wrap_policy or ())
    for layer in [child for child in module.modules() if isinstance(child, layers)]:
        fully_shard(layer, reshard_after_forward=resharding, **arguments)
    # by default the root stays gathered from the loss to the backward pass, which begins with it
    fully_shard(module, reshard_after_forward=None if resharding else False, **arguments)
    setattr(module, _GATHERED_ONCE, not resharding)
    load_shards(module, places, torch.device("cpu") if offloads else own_device())
    return module


def mesh_for(strategy: ShardingStrategy) -> DeviceMesh:
    """Return the device mesh of a sharding strategy.

    FULL_SHARD and SHARD_GRAD_OP shard over all ranks. NO_SHARD replicates over all ranks, which is
    DDP. HYBRID_SHARD shards inside a host and replicates across hosts.
    """
    ranks = world_size()
    if strategy == ShardingStrategy.NO_SHARD:
        return init_device_mesh(device_type(), (ranks, 1), mesh_dim_names=("replicate", "shard"))
    if strategy in (ShardingStrategy.HYBRID_SHARD, ShardingStrategy._HYBRID_SHARD_ZERO2):
        return hsdp_device_mesh(ranks // _ranks_per_host(), _ranks_per_host())
    return init_device_mesh(device_type(), (ranks,), mesh_dim_names=("shard",))


def hsdp_device_mesh(
    replica_group_size: int, sharding_group_size: int, device: str | None = None
) -> DeviceMesh:
    """Return the (replicate, shard) mesh of hybrid sharding, like upstream's function.

    Args:
        replica_group_size: number of replicas of the model.
        sharding_group_size: number of ranks that each replica is sharded over.
        device: device type; None means CUDA if there is one.

    Raises:
        ValueError: if the product of the sizes is not the number of ranks.
    """
    ranks = world_size()
    if not replica_group_size or not sharding_group_size:
        raise ValueError("Both replica_group_size and sharding_group_size must be provided.")
    if replica_group_size * sharding_group_size != ranks:
        raise ValueError(
            f"replica_group_size {replica_group_size} times sharding_group_size "
            f"{sharding_group_size} must be the number of ranks, {ranks}."
        )
    return init_device_mesh(
        device or device_type(),
        (replica_group_size, sharding_group_size),
        mesh_dim_names=("replicate", "shard"),
    )


def fsdp_auto_wrap_policy(
    model: nn.Module, transformer_layer_names: Collection[type[nn.Module]]
) -> frozenset[type[nn.Module]]:
    """Return the layer classes that become FSDP units; FSDP2 needs no function over modules."""
    return frozenset(transformer_layer_names)


def get_policies(
    cfg: configs.fsdp_config, rank: int
) -> tuple[MixedPrecisionPolicy | None, frozenset[type[nn.Module]]]:
    """Return the mixed-precision policy and the classes of the layers to wrap.

    On CUDA compute is in bfloat16 (float16 with ``use_fp16``) and gradients are reduced in float32.
    On the CPU there is no mixed precision: float32 is the faster dtype there.
    """
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer
    from transformers.models.mllama.modeling_mllama import (
        MllamaCrossAttentionDecoderLayer,
        MllamaSelfAttentionDecoderLayer,
        MllamaVisionEncoderLayer,
    )

    layers: frozenset[type[nn.Module]] = frozenset(
        {
            LlamaDecoderLayer,
            MllamaSelfAttentionDecoderLayer,
            MllamaCrossAttentionDecoderLayer,
            MllamaVisionEncoderLayer,
        }
    )
    if not cfg.mixed_precision or device_type() == "cpu":
        return None, layers
    compute = torch.float16 if cfg.use_fp16 else torch.bfloat16
    return MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32), layers


def compute_device(model: nn.Module) -> torch.device:
    """Return the device that a model computes on; with CPU offload its weights are elsewhere."""
    return own_device() if isinstance(model, FSDPModule) else next(model.parameters()).device


def own_device() -> torch.device:
    """Return this rank's CUDA device, or the CPU if there is none."""
    if device_type() == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def set_gradient_sync(model: nn.Module, enabled: bool) -> None:
    """Set whether backward passes reduce gradients over ranks, or accumulate them locally.

    While they accumulate, weights that stay gathered for the backward pass stay gathered for the
    next micro-batch.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(enabled)
        model.set_reshard_after_backward(enabled, recurse=getattr(model, _GATHERED_ONCE, False))


def reshard(model: nn.Module) -> None:
    """Free the full parameters that a forward pass gathered; each rank keeps its shards."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full tensor for one that may be sharded; all ranks must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _ranks_per_host() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
