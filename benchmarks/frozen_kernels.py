"""Times optimiser steps in one process, with the kernels of ``kernels.frozen`` and without them.

The model has a Llama's shape and random bfloat16 weights, the rows are packed with documents of 30
to 89 random tokens, of which the last 40% have labels. Two micro-batches a step, upstream's dropout
of 0.05. The median over the steps after four; memory is torch's peak allocation from the first step
on. Beside ``methods.py``, which times whole commands, it takes 20 seconds for a cell. Prints a
table, writes JSON:

    python benchmarks/frozen_kernels.py --out FILE.json [--only REGEX] [--steps 12]
"""

import argparse
import gc
import re
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from runs import WARM_UP, report
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local import configs
from llama_recipes_local.configs.training import FULL, KEEP, OFFLOAD, RECOMPUTING, SELECTIVE
from llama_recipes_local.kernels import frozen, fused
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.kernels.registry import register_attention
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.policies import apply_fsdp_checkpointing
from llama_recipes_local.policies.offload import offload_inputs
from llama_recipes_local.training import batches

SHAPES: dict[str, dict[str, Any]] = {
    "7B": {"intermediate_size": 11008, "num_key_value_heads": 32, "vocab_size": 32000},
    "8B": {"intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128256},
}
LABELLED = 0.4


@dataclass(frozen=True)
class Work:
    """What a cell trains: LoRA of a rank, or with rank 0 all weights."""

    shape: str
    targets: str | list[str]
    rank: int
    rows: int = 2
    tokens: int = 4096
    policy: str = KEEP
    four_bit: bool = False
    fp8: bool = False


QV = ["q_proj", "v_proj"]
ALL = "all-linear"
WORK = {
    "7B, LoRA r=8 on q and v": Work("7B", QV, 8),
    "7B, LoRA r=8 on all linear layers": Work("7B", ALL, 8),
    "8B, LoRA r=16 on all linear layers": Work("8B", ALL, 16),
    "8B, the same, norms again": Work("8B", ALL, 16, policy=SELECTIVE),
    "8B, the same, recomputation": Work("8B", ALL, 16, policy=FULL),
    "8B, the same, offload": Work("8B", ALL, 16, policy=OFFLOAD),
    "8B, QLoRA r=16, recomputation": Work("8B", ALL, 16, policy=FULL, four_bit=True),
    "8B, QLoRA r=16, offload": Work("8B", ALL, 16, policy=OFFLOAD, four_bit=True),
    "8B, QLoRA r=32, a row of 350,000": Work(
        "8B", ALL, 32, rows=1, tokens=350_000, policy=OFFLOAD, four_bit=True
    ),
    "8B, LoRA r=8 on q and v, rows of 8,192": Work("8B", QV, 8, rows=1, tokens=8192),
    "7B, all weights": Work("7B", ALL, 0),
    "7B, all weights, fp8": Work("7B", ALL, 0, fp8=True),
    "7B, LoRA r=8 on q and v, fp8": Work("7B", QV, 8, fp8=True),
    "7B, LoRA r=8 on all linear layers, fp8": Work("7B", ALL, 8, fp8=True),
    "8B, LoRA r=16 on all linear layers, fp8": Work("8B", ALL, 16, fp8=True),
}
KERNELS = {
    "liger-kernel": ("liger",),
    "both": ("liger", "frozen"),
    "frozen": ("frozen",),
}


def main() -> None:
    """Time each work with each set of kernels; what runs without liger-kernel comes first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps a cell")
    parser.add_argument("--only", default="", help="regular expression of names to run")
    options = parser.parse_args()
    register_attention()
    results: list[dict[str, Any]] = []
    for kernels in sorted(KERNELS, key=lambda name: "liger" in KERNELS[name]):
        for title, work in WORK.items():
            name = f"{title}: {kernels}"
            if re.search(options.only, name):
                try:
                    results.append({"name": name, **run(work, KERNELS[kernels], options.steps)})
                except torch.OutOfMemoryError:
                    results.append({"name": name, "error": "out of memory"})
                report(results, options.out)


def run(work: Work, kernels: tuple[str, ...], steps: int) -> dict[str, Any]:
    """Train for some steps; return median speed, peak memory, first and last loss."""
    gc.collect()
    torch.cuda.empty_cache()
    model = make_model(work)
    if "liger" in kernels:
        fused.install(model)
    if "frozen" in kernels:
        frozen.install(model)
    adapted = (with_lora(model, work) if work.rank else model).train()
    apply_policy(adapted, work.policy)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    losses, seconds = [], []
    for _ in range(steps):
        micro_batches = [make_batch(work, generator) for _ in range(2)]
        torch.cuda.synchronize()
        began = time.perf_counter()
        losses.append(step(adapted, micro_batches, optimizer))
        seconds.append(time.perf_counter() - began)
    return {
        "tokens_per_second": round(2 * work.rows * work.tokens / median(seconds[WARM_UP:])),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def with_lora(model: LlamaForCausalLM, work: Work) -> PeftModel:
    """Return a model with a new adapter."""
    settings = LoraConfig(
        r=work.rank,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=work.targets,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, settings)
    assert isinstance(adapted, PeftModel)
    return adapted


def apply_policy(model: nn.Module, policy: str) -> None:
    """Keep of each layer what ``--activation_policy`` would."""
    if policy in RECOMPUTING:
        apply_fsdp_checkpointing(model)
    if policy == OFFLOAD:
        offload_inputs(model)
    if policy == SELECTIVE:
        frozen.remake_norms(model)


def step(
    model: nn.Module, micro_batches: list[batches.Batch], optimizer: torch.optim.Optimizer
) -> float:
    """Take an optimiser step, wait for it, and return its loss."""
    labels = sum(batches.label_tokens(batch) for batch in micro_batches)
    total = 0.0
    with compute_context(model, configs.train_config()):
        for batch in micro_batches:
            inputs = batches.prepare(batch, torch.device("cuda"))
            loss = model(**inputs, num_items_in_batch=float(labels)).loss
            loss.backward()
            total += float(loss.detach())
    optimizer.step()
    optimizer.zero_grad()
    torch.cuda.synchronize()
    return round(total, 4)


def make_model(work: Work) -> LlamaForCausalLM:
    """Return a model with random weights on the device, in 4 bits where the work asks for it."""
    settings: dict[str, Any] = {
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "max_position_embeddings": 8192,
        "use_cache": False,
        "attn_implementation": "documents",
    }
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(**settings, **SHAPES[work.shape]))
    torch.set_default_dtype(torch.float32)
    if work.four_bit:
        keep_in_four_bits(model)
    model.requires_grad_(not work.rank)
    if work.fp8:
        keep_in_fp8(model, adapted=bool(work.rank))
    return model


def keep_in_four_bits(model: LlamaForCausalLM) -> None:
    """Replace the linear layers of a model's decoder layers by ones in 4 bits."""
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if type(linear) is nn.Linear:
                    setattr(part, name, in_four_bits(linear))
    setattr(model, "is_loaded_in_4bit", True)  # noqa: B010 (no field of the class)


def in_four_bits(linear: nn.Linear) -> nn.Module:
    """Return a layer with its weight in nf4 with double quantisation, as QLoRA has it."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    settings: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}
    made = Linear4bit(
        *(linear.in_features, linear.out_features),
        bias=False,
        compute_dtype=torch.bfloat16,
        device="meta",
        **settings,
    )
    made.weight = Params4bit(linear.weight.data, requires_grad=False, **settings).cuda()
    return made


def make_batch(work: Work, generator: torch.Generator) -> batches.Batch:
    """Return packed rows of random documents, (rows, tokens) each, in host memory."""
    shape = work.rows, work.tokens
    vocabulary = int(SHAPES[work.shape]["vocab_size"])
    ids = torch.randint(3, vocabulary, shape, generator=generator)
    positions, labels = torch.zeros(shape, dtype=torch.long), ids.clone()
    for row in range(work.rows):
        first = 0
        while first < work.tokens:
            length = int(torch.randint(30, 90, (), generator=generator))
            length = min(length, work.tokens - first)
            positions[row, first : first + length] = torch.arange(length)
            labels[row, first : first + int(length * (1 - LABELLED))] = -100
            first += length
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


if __name__ == "__main__":
    main()
