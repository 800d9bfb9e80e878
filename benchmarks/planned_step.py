"""Measures some optimiser steps of a ``planning`` setting, on this process's device.

A model of the setting's shape with random bfloat16 weights is made on the device, layer by layer or
a rank's shards of it, with this package's kernels, sharding and recomputation. It is trained on
packed rows of random documents. Memory is torch's peak allocation over the steps, the largest of
all ranks; speed is the median of the later steps, of all ranks together. ``planned_runs.py`` and
``planned_choices.py`` measure with it.
"""

import time
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from frozen_kernels import apply_policy, in_four_bits
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.fsdp import ShardingStrategy
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_recipes_local import configs
from llama_recipes_local.kernels import frozen, fused
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.parallel import with_shared_gradients
from llama_recipes_local.parallel.sharding import (
    FullyShardedDataParallel,
    get_policies,
    own_device,
)
from llama_recipes_local.planning.memory import GIB
from llama_recipes_local.planning.setting import FROZEN, FUSED, REPLICATED, Setting
from llama_recipes_local.training import batches
from llama_recipes_local.training.stepping import gradient_sync, unwrapped

WARM_UP = 2


def measure(setting: Setting, steps: int) -> dict[str, Any]:
    """Take some optimiser steps; return the speed of all ranks and the peak of the fullest one."""
    on_cuda = own_device().type == "cuda"
    model = with_shared_gradients(_model(setting))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    generator = torch.Generator().manual_seed(_rank())
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        micro_batches = [_batch(setting, generator) for _ in range(setting.batch.accumulation)]
        _wait()
        began = time.perf_counter()
        _step(model, micro_batches, optimizer)
        _wait()
        seconds.append(time.perf_counter() - began)
    tokens = setting.batch.tokens * setting.batch.accumulation * setting.ranks.world
    peak = torch.cuda.max_memory_allocated() / GIB if on_cuda else 0.0
    return {
        "tokens_per_second": round(tokens / median(seconds[min(WARM_UP, steps - 1) :])),
        "peak_gib": round(_largest(peak), 2),
    }


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _wait() -> None:
    """Wait for this rank's device, and for the other ranks."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if dist.is_initialized():
        dist.barrier()


def _largest(number: float) -> float:
    found = torch.tensor(number, device=own_device())
    if dist.is_initialized():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def _step(
    model: nn.Module, micro_batches: list[batches.Batch], optimizer: torch.optim.Optimizer
) -> None:
    labels = float(sum(batches.label_tokens(batch) for batch in micro_batches))
    with compute_context(unwrapped(model), configs.train_config()):
        for number, batch in enumerate(micro_batches, 1):
            with gradient_sync(model, number == len(micro_batches)):
                inputs = batches.prepare(batch, own_device())
                model(**inputs, num_items_in_batch=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _model(setting: Setting) -> nn.Module:
    """Return the model as it is trained, on this rank's device."""
    config = _config(setting)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    is_sharded = setting.ranks.uses_fsdp and setting.ranks.sharding != REPLICATED
    if not is_sharded:
        _fill_by_layer(model, in_4_bits=bool(setting.weights.bits))
    model.requires_grad_(setting.adapter is None)
    if setting.weights.fp8:
        keep_in_fp8(model, adapted=True)
    if setting.kernels == FUSED:
        fused.install(model)
    elif setting.kernels == FROZEN:
        frozen.install(model)
    adapted: nn.Module = model if setting.adapter is None else _with_lora(model, setting)
    apply_policy(adapted, setting.policy)
    if is_sharded:
        adapted = _sharded(adapted, setting.ranks.sharding)
        _fill(adapted)
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(own_device())
    return adapted.train()


def _config(setting: Setting) -> LlamaConfig:
    shape = setting.shape
    sizes: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "head_dim": shape.head_dim or None,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": setting.batch.length,
        "use_cache": False,
        "attn_implementation": "documents",
    }
    return LlamaConfig(**sizes)


def _fill_by_layer(model: LlamaForCausalLM, in_4_bits: bool) -> None:
    """Put random weights on the device, of one layer at a time in 16 bits where they have 4."""
    for layer in model.model.layers:
        _fill(layer)
        for part in (layer.self_attn, layer.mlp) if in_4_bits else ():
            for name, linear in list(part.named_children()):
                if isinstance(linear, nn.Linear):
                    setattr(part, name, in_four_bits(linear))
    for module in (model.model.embed_tokens, model.model.norm, model.lm_head):
        _fill(module)
    if in_4_bits:
        setattr(model, "is_loaded_in_4bit", True)  # noqa: B010 (no field of the class)
    model.tie_weights()


@torch.no_grad()
def _fill(module: nn.Module) -> None:
    """Give the parameters of a module on the meta device memory, and random values."""
    module.to_empty(device=own_device())
    for name, parameter in module.named_parameters():
        own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if "lora_B" in name:
            own.zero_()
        elif parameter.dim() == 1:
            own.fill_(1.0)
        else:
            own.normal_(0.0, 0.02)


def _with_lora(model: LlamaForCausalLM, setting: Setting) -> nn.Module:
    adapter = setting.adapter
    assert adapter is not None
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=32,
        lora_dropout=0.05 if adapter.drops else 0.0,
        target_modules=sorted(adapter.targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def _sharded(model: nn.Module, sharding: str) -> nn.Module:
    precision, layers = get_policies(configs.fsdp_config(), _rank())
    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=layers,
        mixed_precision=precision,
        sharding_strategy=ShardingStrategy[sharding],
    )


def _batch(setting: Setting, generator: torch.Generator) -> batches.Batch:
    """Return packed rows of random documents, (rows, length) each, in host memory."""
    batch = setting.batch
    shape = batch.rows, batch.length
    ids = torch.randint(3, setting.shape.vocabulary, shape, generator=generator)
    positions, labels = torch.zeros(shape, dtype=torch.long), ids.clone()
    for row in range(batch.rows):
        first = 0
        while first < batch.length:
            length = int(batch.document * (0.5 + torch.rand((), generator=generator)))
            length = min(max(length, 2), batch.length - first)
            if batch.document >= batch.length:
                length = batch.length
            positions[row, first : first + length] = torch.arange(length)
            labels[row, first : first + int(length * (1 - batch.labelled))] = -100
            first += length
    return {"input_ids": ids, "position_ids": positions, "labels": labels}
