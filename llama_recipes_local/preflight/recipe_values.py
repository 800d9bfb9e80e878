"""Settings of the package's recipes that depend on the model and machine.

A copy of a recipe's file does not have them: it is used as it is written.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_recipes_local.planning.shapes import shape_of
from llama_recipes_local.preflight.config_file import Configured
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.preflight.unread_settings import settings_of_other_data
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.run.weight_bits import KEY

Values = dict[str, tuple[Any, str]]
"""Flags without their dashes: the value of each, and the reason for it, which may be empty."""

LARGE = 15e9
"""Parameters above which a model counts as larger than 13B, in table 9 of the paper."""

LORA_RATE, LORA_WIDTH, LORA_EXPONENT = 5e-4, 2000, 0.781
"""The best learning rate found for LoRA on Llamas of several widths; see recipes/lora.yaml."""
LORA_RANKS = ((2048, 64), (4096, 32))
"""Up to which hidden size a rank is given."""
LEAST_LORA_RANK = 16

OF_LORA = ("r", "lora_alpha", "lora_dropout", "target_modules")
OF_4BIT = ("quant_type", "use_double_quant")

STEPS_OF_A_CPU = 24
"""Steps of 512 tokens that one CPU takes in some two minutes in float32, in ``first_run``."""
MOST_STEPS = 240
STORED = ("quantization", *OF_4BIT)


def lora(run: Run, values: Values) -> Values:
    """Give LoRA the learning rate for the model's size; the recipe's file names the source."""
    hidden = model_config(run).get("hidden_size")
    if not isinstance(hidden, int) or hidden < 1:
        return values
    rate = float(f"{LORA_RATE * (LORA_WIDTH / hidden) ** LORA_EXPONENT:.2g}")
    rank = next((rank for width, rank in LORA_RANKS if hidden <= width), LEAST_LORA_RANK)
    why = f"hidden size {hidden:,}"
    return values | {"r": (rank, why), "lr": (rate, why)}


def qlora(run: Run, values: Values) -> Values:
    """Give QLoRA the settings for the model's size and the run (2305.14314, sections 3 and B.2)."""
    size = _parameters(run)
    if size is not None:
        large, counted = size > LARGE, f"{size / 1e9:.1f}B parameters"
        values |= {"lora_dropout": (0.05 if large else 0.1, counted)}
        values |= {"lr": (1e-4 if large else 2e-4, counted)}
    values |= {"optimizer": _optimizer(run)}
    if run.train.enable_fsdp:  # fsdp_activation_checkpointing is on by default
        values.pop("gradient_checkpointing", None)
    if run.train.use_peft and run.train.peft_method != "lora":
        values = {name: value for name, value in values.items() if name not in OF_LORA}
    if run.train.quantization not in (None, "4bit"):
        values = {name: value for name, value in values.items() if name not in OF_4BIT}
    return values


def first_run(run: Run, values: Values) -> Values:
    """Limit the grammar data to what a first run on this machine can train on in two minutes.

    The file's settings are for SmolLM2-135M-Instruct on a GPU, which trains a whole epoch. A CPU
    takes as many steps as it can in about two minutes.
    """
    grammar, on_cpu = run.train.dataset == "grammar_dataset", _device(run) == "cpu"
    if run.train.peft_method != "lora":
        values = {name: value for name, value in values.items() if name not in OF_LORA}
    elif not run.train.enable_fsdp:
        values |= {"samples": (5, "")}
    context = 512 if grammar else 1024
    rows = 1 if on_cpu else 8192 // context
    values |= {
        "context_length": (context, ""),
        "batch_size_training": (rows, f"{rows * context:,} tokens a step"),
    }
    if not on_cpu:
        return values
    values.pop("val_batch_size", None)
    values |= {"lr": (1e-3, "a small model, and few steps"), "num_epochs": (1, "")}
    return values | _limits_on_cpu(context)


def _limits_on_cpu(context: int) -> Values:
    """Return how many rows a CPU trains in two minutes, and its faster dtype.

    Args:
        context: tokens of a row; a step has one row.
    """
    cpus, fast = len(os.sched_getaffinity(0)), _multiplies_bfloat16()
    steps = min(STEPS_OF_A_CPU * cpus * (2 if fast else 1), MOST_STEPS) * 512 // context
    counted = f"{cpus} CPU{'s' if cpus > 1 else ''}"
    dtype: Values = {"dtype": ("bfloat16", "this CPU multiplies it twice as fast")} if fast else {}
    return dtype | {
        "max_train_step": (steps, f"some two minutes on {counted}; 0 trains all"),
        "max_eval_step": (8, "seconds; 0 validates on all"),
    }


def _multiplies_bfloat16() -> bool:
    """Return whether the CPU has instructions for products of bfloat16 matrices."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16"})


BY_RUN: dict[str, Callable[[Run, Values], Values]] = {
    "first_run": first_run,
    "lora": lora,
    "qlora": qlora,
}
"""The recipes whose values depend on the run."""


def with_values(run: Run, configured: Configured, implied: dict[str, bool]) -> Run:
    """Return the run with the settings that its activation policy, file or recipe sets.

    Args:
        run: resolved from the settings as they are written.
        configured: the file.
        implied: flags that the run's activation policy sets.
    """
    written = {
        name: run.flags[name]
        for name in configured.settings
        if name in run.flags and name not in implied
    }
    explicit = implied | {
        name: value for name, value in run.flags.items() if name not in configured.settings
    }
    values = _values_for(run, configured.recipe, written)
    if configured.recipe or configured.is_record:
        values = _without_stored(run, values)
    named = {name.rpartition(".")[2] for name in explicit} | {*settings_of_other_data(run)}
    values = {name: value for name, value in values.items() if name not in named}
    resolved = resolve({name: value for name, (value, _) in values.items()} | explicit)
    resolved.model, resolved.automatic = run.model, run.automatic
    if configured.name:
        if "dataset" in values:  # as it is written: a path has become local_dataset's
            values["dataset"] = (configured.flags["dataset"], "")
        resolved.recipe = _describe(configured.name, values, configured.left_out)
    return resolved


def _values_for(run: Run, recipe: str, settings: dict[str, Any]) -> Values:
    """Return what a recipe or a file sets for a run.

    Args:
        run: resolved from the settings as they are written.
        recipe: the recipe's name; "" for a file.
        settings: the written settings that no flag overrides.
    """
    values: Values = {name: (value, "") for name, value in settings.items()}
    if recipe in BY_RUN:
        values = BY_RUN[recipe](run, values)
    return values


def _without_stored(run: Run, values: Values) -> Values:
    """Return the values without quantisation if the model's folder is quantised itself."""
    if KEY not in model_config(run):
        return values
    return {name: value for name, value in values.items() if name.split(".")[-1] not in STORED}


def _describe(name: str, values: Values, left_out: list[str]) -> str:
    """Return the lines that say which flags a file sets, and why if that depends on the run.

    Args:
        name: the recipe's or the file's.
        values: the settings that no flag overrides.
        left_out: settings of a record that are not used.
    """
    lines = [
        f"      --{flag} {_word(value)}" + (f"  ({reason})" if reason else "")
        for flag, (value, reason) in values.items()
    ]
    none = f"--> {name}: all its settings were given as flags"
    said = [f"--> {name} sets (flags win):", *lines] if values else [none]
    if left_out:
        said.append(f"    not taken, as they are of that run or its machine: {', '.join(left_out)}")
    return "\n".join(said)


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _parameters(run: Run) -> int | None:
    """Return the parameters of a run's model; None if they are not known."""
    if run.model is not None:
        shape = shape_of(run.model)
        return shape.weights if shape is not None else None
    from llama_recipes_local.model_folders.tensors import parameter_count  # which imports torch

    return parameter_count(Path(run.train.model_name))


def _device(run: Run) -> str:
    """Return the type of device that a run is for: what is planned is for GPUs."""
    if run.model is not None:
        return "cuda"
    from llama_recipes_local.parallel import device_type  # which imports torch

    return device_type()


def _optimizer(run: Run) -> tuple[str, str]:
    """Return the paper's paged optimiser where it works, else AdamW."""
    if run.is_sharded:
        return "AdamW", "not paged_adamw: bitsandbytes cannot update sharded parameters"
    if _device(run) != "cuda":
        return "AdamW", "not paged_adamw: it needs a CUDA device to page from"
    return "paged_adamw", ""
