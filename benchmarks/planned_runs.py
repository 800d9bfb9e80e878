"""Measures settings of ``planning`` in one process, beside what is predicted for each.

A model of the setting's shape with random bfloat16 weights takes some optimiser steps on packed
rows of random documents, with this package's kernels. Memory is torch's peak allocation over the
steps, speed the median after two. A cell takes some seconds. Prints a table, writes JSON:

    python benchmarks/planned_runs.py --out FILE.json [--only REGEX] [--max_seconds 90]
"""

import argparse
import gc
import re
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from frozen_kernels import keep_in_four_bits, step
from peft import LoraConfig, get_peft_model
from runs import report
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import frozen, fused
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.kernels.registry import register_attention
from llama_recipes_local.planning.cards import of_device
from llama_recipes_local.planning.memory import GIB, memory
from llama_recipes_local.planning.setting import (
    FULL,
    FUSED,
    KEEP,
    OFFLOAD,
    Adapter,
    Batch,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR
from llama_recipes_local.planning.speed import tokens_a_second
from llama_recipes_local.policies.offload import offload_inputs
from llama_recipes_local.training import batches

DEVICE = "cuda"
WARM_UP = 2
ALL_16 = Adapter(rank=16, targets=frozenset(LINEAR))
NF4 = Weights(bits=4, double=True)


def works() -> dict[str, Setting]:
    """Return the settings by name, the most telling first."""
    one, three, seven = (KNOWN[name] for name in ("llama-3.2-1b", "llama-3.2-3b", "llama-2-7b"))
    eight, thirteen = KNOWN["llama-3.1-8b"], KNOWN["llama-2-13b"]
    batch = Batch(rows=2, length=4096, accumulation=2, document=60, labelled=0.4)
    short, long = replace(batch, rows=8, length=1024), replace(batch, rows=1, length=16384)
    whole = replace(batch, rows=1, accumulation=1, document=4096)
    lora = Setting(one, adapter=ALL_16, batch=batch)
    of_8b = replace(lora, shape=eight)
    return {
        "1B, LoRA r=16": lora,
        "1B, LoRA r=16, 8 x 1,024": replace(lora, batch=short),
        "1B, full": _full(replace(lora, batch=batch)),
        "1B, full, recomputation": _full(replace(lora, batch=batch, policy=FULL)),
        "3B, LoRA r=16": replace(lora, shape=three),
        "3B, LoRA r=16, offload": replace(lora, shape=three, policy=OFFLOAD),
        "3B, LoRA r=16, 1 x 16,384": replace(lora, shape=three, batch=long),
        "3B, full": _full(replace(lora, shape=three, batch=replace(batch, rows=1))),
        "3B, LoRA r=16, documents of 4,096": replace(lora, shape=three, batch=whole),
        "8B, LoRA r=16": of_8b,
        "8B, LoRA r=16, offload": replace(of_8b, policy=OFFLOAD),
        "8B, LoRA r=16, recomputation": replace(of_8b, policy=FULL),
        "8B, LoRA r=16, fp8": replace(of_8b, weights=Weights(fp8=True)),
        "8B, LoRA r=16, 1 row": replace(of_8b, batch=replace(batch, rows=1)),
        "8B, LoRA r=16, 1 x 16,384, offload": replace(of_8b, batch=long, policy=OFFLOAD),
        "7B, LoRA r=8 q,v": replace(lora, shape=seven, adapter=Adapter()),
        "13B, LoRA r=16, offload": replace(lora, shape=thirteen, policy=OFFLOAD),
        "13B, LoRA r=16, 1 row": replace(
            lora, shape=thirteen, batch=replace(batch, rows=1), policy=KEEP
        ),
        "3B, QLoRA r=16, offload": replace(lora, shape=three, weights=NF4, policy=OFFLOAD),
        "8B, QLoRA r=16, offload": replace(of_8b, weights=NF4, policy=OFFLOAD),
    }


def _full(setting: Setting) -> Setting:
    weights = Weights(trained=setting.shape.weights)
    return replace(setting, adapter=None, weights=weights, kernels=FUSED)


def main() -> None:
    """Measure each setting, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--only", default="", help="regular expression of names to run")
    parser.add_argument("--steps", type=int, default=5, help="optimiser steps a cell")
    parser.add_argument("--max_seconds", type=float, default=1e9, help="no cell begins after them")
    parser.add_argument("--layers", type=int, help="decoder layers, for a quick try")
    options = parser.parse_args()
    register_attention()
    began, results = time.perf_counter(), list[dict[str, Any]]()
    for name, setting in works().items():
        late = time.perf_counter() - began > options.max_seconds
        if late or not re.search(options.only, name):
            continue
        if options.layers:
            setting = replace(setting, shape=replace(setting.shape, layers=options.layers))
        try:
            results.append({"name": name, **measure(setting, options.steps)})
        except (RuntimeError, ImportError) as error:  # out of memory, a kernel, a package
            results.append({"name": name, "error": str(error).partition("\n")[0][:200]})
        report(results, options.out)
        gc.collect()
        torch.cuda.empty_cache()
    for each in results:
        if "error" not in each:
            gib, speed = each["predicted_gib"], each["predicted_speed"]
            print(
                f"{each['name']:<40} {each['peak_gib']:>6} GiB {gib / each['peak_gib'] - 1:+.1%}"
                f" {each['tokens_per_second']:>8,} tok/s"
                f" {speed / each['tokens_per_second'] - 1:+.1%}"
            )


def measure(setting: Setting, steps: int) -> dict[str, Any]:
    """Take some optimiser steps; return the median speed, the peak, and both as predicted."""
    model = _model(setting)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    generator = torch.Generator().manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        micro_batches = [_batch(setting, generator) for _ in range(setting.batch.accumulation)]
        torch.cuda.synchronize()
        began = time.perf_counter()
        step(model, micro_batches, optimizer)
        seconds.append(time.perf_counter() - began)
    device = torch.cuda.get_device_properties(0)
    card = of_device(device.name, device.total_memory)
    tokens = setting.batch.tokens * setting.batch.accumulation
    return {
        "tokens_per_second": round(tokens / median(seconds[WARM_UP:])),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "predicted_gib": round(memory(setting).gib, 2),
        "predicted_speed": round(tokens_a_second(setting, card)),
    }


def _model(setting: Setting) -> nn.Module:
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
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    torch.set_default_dtype(torch.float32)
    if setting.weights.bits:
        keep_in_four_bits(model)
    if setting.adapter is None:
        fused.install(model)
    else:
        model.requires_grad_(False)
        if setting.weights.fp8:
            keep_in_fp8(model, adapted=True)
        frozen.install(model)
    if setting.recomputes:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if setting.adapter is not None:
            model.get_input_embeddings().register_forward_hook(lambda _m, _i, out: out.detach())
    if setting.policy == OFFLOAD:
        offload_inputs(model)
    if setting.adapter is None:
        return model.train()
    adapter = setting.adapter
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=32,
        lora_dropout=0.05 if adapter.drops else 0.0,
        target_modules=sorted(adapter.targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings).train()


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
            length = min(max(length, 2), batch.length - first, 10**6)
            if batch.document >= batch.length:
                length = batch.length
            positions[row, first : first + length] = torch.arange(length)
            labels[row, first : first + int(length * (1 - batch.labelled))] = -100
            first += length
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


if __name__ == "__main__":
    main()
