"""Choices that do not exist, and settings that do not go together."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import torch

from llama_recipes_local.configs.fields import DTYPES
from llama_recipes_local.errors import Problem
from llama_recipes_local.models.attention import NAME as DOCUMENT_ATTENTION
from llama_recipes_local.parallel import launched_by_torchrun
from llama_recipes_local.presets import PRESETS
from llama_recipes_local.run import DATASET_CONFIGS, PEFT_CONFIGS, Run

ATTENTION = ("auto", DOCUMENT_ATTENTION, "sdpa", "eager", "flash_attention_2")
POSITIVE = (
    "batch_size_training",
    "val_batch_size",
    "gradient_accumulation_steps",
    "num_epochs",
    "lr",
)
# upstream's profiler waits for one step, warms up for two and records three
PROFILED_STEPS = 7
NOT_NEGATIVE = ("max_train_step", "max_eval_step", "num_workers_dataloader", "weight_decay")


def check_rules(run: Run, given: dict[str, Any]) -> list[Problem]:
    """Return what is wrong with the configurations by themselves."""
    train = run.train
    return [
        *check_data_choices(run),
        *choice("preset", train.preset, ("", *PRESETS)),
        *choice("peft_method", train.peft_method, PEFT_CONFIGS),
        *choice("dtype", train.dtype, ("auto", *DTYPES)),
        *choice("attn_implementation", train.attn_implementation, ATTENTION),
        *_numbers(train, POSITIVE, NOT_NEGATIVE),
        *_sharding(train),
        *_hybrid_sharding(run.fsdp),
        *_profiling(train),
        *_precision(train),
        *_forgotten(train, given),
    ]


def check_data_choices(run: Run) -> list[Problem]:
    """Return what is wrong with the choices that shape the data."""
    train = run.train
    return [
        *choice("dataset", train.dataset, DATASET_CONFIGS),
        *choice("batching_strategy", train.batching_strategy, ("packing", "padding")),
        *_numbers(train, ("context_length",), ()),
        *_seed(train.seed),
    ]


def choice(flag: str, value: Any, choices: Iterable[Any]) -> list[Problem]:
    """Return what is wrong with a flag whose value is one of some choices."""
    names = [name for name in choices if isinstance(name, str) and name]
    if value in choices:
        return []
    near = get_close_matches(str(value), names, n=1)
    mend = f"did you mean --{flag} {near[0]}?" if near else f"choose one: --{flag} {names[0]}"
    return [Problem(f"--{flag} {value} does not exist", f"there are {', '.join(names)}", mend)]


def _numbers(train: Any, positive: Iterable[str], not_negative: Iterable[str]) -> list[Problem]:
    too_small = [(name, "above 0") for name in positive if getattr(train, name) <= 0]
    too_small += [(name, "0 or more") for name in not_negative if getattr(train, name) < 0]
    return [
        Problem(f"--{name} is {getattr(train, name)}", f"it must be {bound}", f"give it {bound}")
        for name, bound in too_small
    ]


def _seed(seed: int) -> list[Problem]:
    if -(2**63) <= seed < 2**63:
        return []
    return [Problem(f"--seed is {seed}", "torch's seeds have 64 bits", "give a smaller number")]


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


def _forgotten(train: Any, given: dict[str, Any]) -> list[Problem]:
    """Find LoRA settings that nothing uses, for the run would train every weight."""
    named = {"peft_method", "train_config.peft_method"} & given.keys()
    if named and not train.use_peft:
        return [
            Problem(
                f"--peft_method {train.peft_method} without --use_peft",
                "no adapter would be made, all weights would be trained",
                "add --use_peft, or leave --peft_method out",
            )
        ]
    return []
