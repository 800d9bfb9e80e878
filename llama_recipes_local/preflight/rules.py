"""Choices that do not exist, and settings that do not go together."""

import os
from typing import Any

import torch

from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import DTYPES
from llama_recipes_local.kernels.registry import ATTENTION_CHOICES
from llama_recipes_local.parallel import launched_by_torchrun
from llama_recipes_local.preflight.presets import PRESETS
from llama_recipes_local.preflight.values import ABOVE_0, AT_LEAST_0, choice, out_of_range
from llama_recipes_local.run.resolution import Run

RANGES = {
    "batch_size_training": ABOVE_0,
    "val_batch_size": ABOVE_0,
    "gradient_accumulation_steps": ABOVE_0,
    "num_epochs": ABOVE_0,
    "lr": ABOVE_0,
    "max_train_step": AT_LEAST_0,
    "max_eval_step": AT_LEAST_0,
    "num_workers_dataloader": AT_LEAST_0,
    "weight_decay": AT_LEAST_0,
}
# upstream's profiler waits for one step, warms up for two and records three
PROFILED_STEPS = 7


def check_rules(run: Run) -> list[Problem]:
    """Return what is wrong with the configurations by themselves."""
    train = run.train
    return [
        *choice("preset", train.preset, ("", *PRESETS)),
        *choice("peft_method", train.peft_method, METHODS),
        *choice("dtype", train.dtype, ("auto", *DTYPES)),
        *choice("attn_implementation", train.attn_implementation, ATTENTION_CHOICES),
        *out_of_range(train, RANGES),
        *_sharding(train),
        *_hybrid_sharding(run.fsdp),
        *_profiling(train),
        *_precision(train),
        *_forgotten(run),
    ]


def _hybrid_sharding(fsdp: Any) -> list[Problem]:
    sizes = fsdp.replica_group_size * fsdp.sharding_group_size
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if not fsdp.hsdp or sizes == ranks:
        return []
    return [
        Problem(
            f"--hsdp with --replica_group_size {fsdp.replica_group_size} and "
            f"--sharding_group_size {fsdp.sharding_group_size}",
            f"their product is the number of ranks, which is {ranks}",
            "give both, or leave --hsdp out to shard inside each host",
        )
    ]


def _profiling(train: Any) -> list[Problem]:
    if train.use_profiler and train.flop_counter:
        return [
            Problem(
                "--use_profiler with --flop_counter",
                "both watch the same steps",
                "leave one of them out",
            )
        ]
    steps = PROFILED_STEPS if train.use_profiler else train.flop_counter_start + 1
    asked = train.use_profiler or train.flop_counter
    if not asked or not 0 < train.max_train_step < steps:
        return []
    return [
        Problem(
            f"--max_train_step {train.max_train_step} with a profiler or FLOP counter",
            "the first steps warm up and are not measured",
            f"give --max_train_step {steps} or more",
        )
    ]


def _sharding(train: Any) -> list[Problem]:
    problems = []
    if train.enable_fsdp and not launched_by_torchrun():
        problems.append(
            Problem(
                "--enable_fsdp in a process that torchrun did not start",
                "FSDP trains with several processes, which torchrun starts and numbers",
                "start it with: torchrun --nproc_per_node 2 finetuning.py --enable_fsdp ...",
            )
        )
    if launched_by_torchrun() and not train.enable_fsdp:
        problems.append(
            Problem(
                "torchrun without --enable_fsdp",
                "every process would train the same model on the same data by itself",
                "add --enable_fsdp, or start it with: python finetuning.py ...",
            )
        )
    return problems


def _precision(train: Any) -> list[Problem]:
    if train.use_fp16 and not torch.cuda.is_available():
        return [
            Problem(
                "--use_fp16 on a machine without CUDA",
                "training in float16 needs a CUDA device",
                "leave it out: on CPU training is in float32",
            )
        ]
    return []


def _forgotten(run: Run) -> list[Problem]:
    """Find LoRA settings that nothing uses, for the run would train every weight."""
    if "peft_method" in run.given and not run.train.use_peft:
        return [
            Problem(
                f"--peft_method {run.train.peft_method} without --use_peft",
                "no adapter would be made, all weights would be trained",
                "add --use_peft, or leave --peft_method out",
            )
        ]
    return []
