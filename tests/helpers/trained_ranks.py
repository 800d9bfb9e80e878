"""Gradients of a model that ranks train by the kernels, beside one process without them."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy, ShardingStrategy
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import configs, parallel
from llama_recipes_local.kernels import frozen
from llama_recipes_local.kernels.fp8.store import store
from llama_recipes_local.training.stepping import Stepper

MICRO_BATCHES, LENGTH = 3, 37
REDUCED = MixedPrecisionPolicy(reduce_dtype=torch.float32)


def compare_trained_gradients(output: Path, model_name: str) -> None:
    """Report by how much gradients of a step of three micro-batches differ, in fp8 and without.

    The reference is the same model in one process: without kernels transformers' own modules, in
    fp8 each micro-batch by itself, so that nothing is added to an earlier gradient.
    """
    report = {}
    for fp8 in (False, True):
        torch.manual_seed(0)
        plain: Any = LlamaForCausalLM.from_pretrained(model_name, dtype=torch.float32).train()
        if fp8:
            store(plain.model.layers)
        ours = copy.deepcopy(plain)
        frozen.install(ours)
        want = summed_alone(ours if fp8 else plain)
        for strategy in ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD"):
            got = summed_by_ranks(copy.deepcopy(ours), ShardingStrategy[strategy])
            off = [(got[n] - want[n]).norm() / want[n].norm() for n in want if want[n].any()]
            report[f"{strategy} {fp8}"] = {"gradients": len(off), "off": float(max(off))}
    output.mkdir(exist_ok=True)
    (output / f"report-{parallel.rank()}.json").write_text(json.dumps(report))


def rows_of_rank(rank: int) -> list[dict[str, torch.Tensor]]:
    """Return the micro-batches of a rank."""
    torch.manual_seed(rank)
    rows = torch.randint(3, 300, (MICRO_BATCHES, 1, LENGTH))
    return [{"input_ids": ids, "labels": ids} for ids in rows]


def labels_of_all() -> int:
    """Return the label tokens of a step."""
    return parallel.world_size() * MICRO_BATCHES * (LENGTH - 1)


def summed_alone(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of a step that one process takes."""
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for rank in range(parallel.world_size()):
        for row in rows_of_rank(rank):
            model(**row, num_items_in_batch=float(labels_of_all())).loss.backward()
            for name, parameter in model.named_parameters():
                found[name] += parameter.grad
                parameter.grad = None
    return found


def summed_by_ranks(model: Any, strategy: ShardingStrategy) -> dict[str, torch.Tensor]:
    """Return the gradients of a step that all ranks take."""
    sharded: Any = parallel.FullyShardedDataParallel(
        model, [LlamaDecoderLayer], None, REDUCED, strategy
    )
    shared = parallel.with_shared_gradients(sharded)
    optimizer = torch.optim.SGD(shared.parameters())
    stepper = Stepper(shared, optimizer, configs.train_config())
    stepper.backward(rows_of_rank(parallel.rank()), labels_of_all())
    return {n: parallel.full_tensor(p.grad) for n, p in sharded.named_parameters()}
