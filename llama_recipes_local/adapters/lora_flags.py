"""Checks LoRA's flags without looking at the model's files; imports no torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from llama_recipes_local.adapters.base import EMBEDDING, HEAD
from llama_recipes_local.errors import Problem
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import or_unquantized, quantized_bits, quantized_by

if TYPE_CHECKING:
    from llama_recipes_local.adapters.lora import lora_config

ALL_LINEAR = "all-linear"
PISSA = re.compile(r"pissa(_niter_[1-9]\d*)?")


def check_lora_flags(run: Run, lora: lora_config) -> list[Problem]:
    """Return what is wrong with LoRA's flags, except with its layers."""
    found = _check_initialization(run, lora)
    found += untrained_head(run, lora.target_modules, f"--target_modules {HEAD}")
    if lora.inference_mode:
        why, fix = "nothing would be trained", "leave --inference_mode out"
        found.append(Problem("--inference_mode True", why, fix))
    return found


def untrained_head(run: Run, targets: Collection[str], what: str) -> list[Problem]:
    """Find LoRA on a head that would not be trained: the fused loss uses the head's own weight."""
    if not run.train.use_fast_kernels or HEAD not in targets:
        return []
    why = "the fused loss uses the head's own weight, so an adapter on it is never trained"
    fix = "leave it out, or use --use_fast_kernels False"
    return [Problem(f"{what} with --use_fast_kernels", why, fix)]


def missing_targets(targets: list[str] | str, names: Sequence[str], flag: str) -> list[Problem]:
    """Return the layers of LoRA that a model does not have; none if its names are unknown."""
    if targets in (ALL_LINEAR, [ALL_LINEAR]) or not names:
        return []
    last = sorted({name.rpartition(".")[2] for name in names})
    problems = []
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in names):
            continue
        near = get_close_matches(target, last, n=1)
        problems.append(
            Problem(
                f"--{flag} {target}",
                f"the model has {', '.join(last)}",
                f"did you mean --{flag} {near[0]}?" if near else f"use --{flag} {ALL_LINEAR}",
            )
        )
    return problems


def _check_initialization(run: Run, lora: lora_config) -> list[Problem]:
    init = lora.init_lora_weights
    if isinstance(init, bool) or init == "gaussian":
        return []
    what = f"--init_lora_weights {init}"
    if not PISSA.fullmatch(init):
        why = "choose true, false, gaussian, pissa or pissa_niter_N"
        return [Problem(what, why, "leave it out, or use --init_lora_weights pissa_niter_16")]
    if quantized_bits(run.train):
        return [
            Problem(
                f"{what} with {quantized_by(run)}",
                "PiSSA initialises the adapter from the weights and changes them; "
                "quantised ones cannot be changed",
                or_unquantized(run, "leave one of them out"),
            )
        ]
    if EMBEDDING in lora.target_modules:
        return [
            Problem(
                f"{what} with --target_modules {EMBEDDING}",
                "PiSSA is for linear layers",
                f"leave {EMBEDDING} out of --target_modules",
            )
        ]
    return []
