"""``--preset``: settings by the name of the method that they are from.

A preset is expanded into flags before these are checked; explicit flags override it. What it sets
is printed.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_recipes_local.planning.shapes import shape_of
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import KEY

Values = dict[str, tuple[Any, str]]
"""Flags without their dashes: the value of each, and the reason for it, which may be empty."""

LARGE = 15e9
"""Parameters above which a model counts as larger than 13B, in table 9 of the paper."""

OF_LORA = ("r", "lora_alpha", "lora_dropout", "target_modules")
OF_4BIT = ("quant_type", "use_double_quant")

STEPS_OF_A_CPU = 24
"""Steps of 512 tokens that one CPU takes in some two minutes in float32, in ``first_run``."""
MOST_STEPS = 240
STORED = ("quantization", *OF_4BIT)


def qlora(run: Run) -> Values:
    """Return the settings of QLoRA (2305.14314, sections 3 and B.2) for a run's model."""
    size = _parameters(run)
    large = size is not None and size > LARGE
    counted = f"{size / 1e9:.1f}B parameters" if size is not None else ""
    values: Values = {
        "use_peft": (True, ""),
        "quantization": ("4bit", ""),
        "quant_type": ("nf4", ""),
        "use_double_quant": (True, ""),
        "target_modules": ("all-linear", ""),
        "r": (64, ""),
        "lora_alpha": (16, ""),
        "lora_dropout": (0.05 if large else 0.1, counted),
        "lr": (1e-4 if large else 2e-4, counted),
        "scheduler": ("constant", ""),
        "gradient_clipping": (True, ""),
        "gradient_clipping_threshold": (0.3, ""),
        "optimizer": _optimizer(run),
    }
    if not run.train.enable_fsdp:  # fsdp_activation_checkpointing is on by default
        values["gradient_checkpointing"] = (True, "")
    if run.train.use_peft and run.train.peft_method != "lora":
        values = {name: value for name, value in values.items() if name not in OF_LORA}
    if run.train.quantization not in (None, "4bit"):
        values = {name: value for name, value in values.items() if name not in OF_4BIT}
    if KEY in model_config(run):  # the folder decides by itself
        values = {name: value for name, value in values.items() if name not in STORED}
    return values


def first_run(run: Run) -> Values:
    """Return settings with which a small model learns the grammar data while one watches.

    They are for SmolLM2-135M-Instruct: a whole epoch on a GPU, as many steps as take some two
    minutes on a CPU.
    """
    grammar, lora = run.train.dataset == "grammar_dataset", run.train.peft_method == "lora"
    values: Values = {"use_peft": (True, "")}
    if lora:
        values |= {"r": (16, ""), "lora_alpha": (32, ""), "target_modules": ("all-linear", "")}
        if grammar and not run.train.enable_fsdp:
            values["samples"] = (5, "")
    on_cpu = _device(run) == "cpu"
    context = 512 if grammar else 1024
    rows = 1 if on_cpu else 8192 // context
    values |= {
        "lr": (1e-3 if on_cpu else 2e-3, "a small model, and few steps"),
        "scheduler": ("linear", ""),
        "context_length": (context, ""),
        "batch_size_training": (rows, f"{rows * context:,} tokens a step"),
        "num_epochs": (1, "" if on_cpu else "all of the data"),
    }
    return values | (_limits_on_cpu(context) if on_cpu else {"val_batch_size": (32, "")})


def _limits_on_cpu(context: int) -> Values:
    """Return how much of the data some two minutes of a CPU take, and the dtype that is faster.

    Args:
        context: tokens in a row, of which a step has one.
    """
    cpus, fast = len(os.sched_getaffinity(0)), _multiplies_bfloat16()
    steps = min(STEPS_OF_A_CPU * cpus * (2 if fast else 1), MOST_STEPS) * 512 // context
    counted = f"{cpus} CPU{'s' if cpus > 1 else ''}"
    dtype: Values = {"dtype": ("bfloat16", "this CPU multiplies it twice as fast")} if fast else {}
    return dtype | {
        "max_train_step": (steps, f"some two minutes on {counted}; 0 trains all"),
        "max_eval_step": (8, "seconds; 0 validates on all"),
    }


def _parameters(run: Run) -> int | None:
    """Return the parameters of a run's model; None if they are not known."""
    if run.model is not None:
        shape = shape_of(run.model)
        return shape.weights if shape is not None else None
    from llama_recipes_local.model_folders import parameter_count  # which imports torch

    return parameter_count(Path(run.train.model_name))


def _device(run: Run) -> str:
    """Return the type of device that a run is for: what is planned is for GPUs."""
    if run.model is not None:
        return "cuda"
    from llama_recipes_local.parallel import device_type  # which imports torch

    return device_type()


def _multiplies_bfloat16() -> bool:
    """Return whether the CPU has instructions for products of bfloat16 matrices."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16"})


PRESETS: dict[str, Callable[[Run], Values]] = {"first_run": first_run, "qlora": qlora}


def chosen(run: Run) -> Values:
    """Return what a run's preset sets, without the flags that are given."""
    if run.train.preset not in PRESETS:
        return {}
    values = PRESETS[run.train.preset](run)
    return {name: value for name, value in values.items() if name not in run.given}


def describe(name: str, values: Values) -> str:
    """Return the lines that say which flags a preset sets, and why if that depends on the run."""
    if not values:
        return f"--> Preset {name}: all its settings were given as flags"
    lines = [
        f"      --{flag} {value}" + (f"  ({reason})" if reason else "")
        for flag, (value, reason) in values.items()
    ]
    return "\n".join([f"--> Preset {name} sets (explicit flags override it):", *lines])


def _optimizer(run: Run) -> tuple[str, str]:
    """Return the paper's paged optimiser where it works, else AdamW."""
    if run.is_sharded:
        return "AdamW", "not paged_adamw: bitsandbytes cannot update sharded parameters"
    if _device(run) != "cuda":
        return "AdamW", "not paged_adamw: it needs a CUDA device to page from"
    return "paged_adamw", ""
