"""Adapters: each method's own settings, and the model and adapter that they are for."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from llama_recipes_local.errors import Problem
from llama_recipes_local.kernels.attention import NAME as DOCUMENT_ATTENTION
from llama_recipes_local.models.quantization import quantized_bits
from llama_recipes_local.parallel import device_type
from llama_recipes_local.preflight.values import ABOVE_0, AT_LEAST_1, Range, choice, out_of_range
from llama_recipes_local.run.resolution import Run

ALL_LINEAR = "all-linear"
LORA_RANGES = {
    "r": AT_LEAST_1,
    "lora_alpha": ABOVE_0,
    "lora_dropout": Range("at least 0 and less than 1", lambda share: 0 <= share < 1),
}
LORA_BIASES = ("none", "all", "lora_only")
PISSA = re.compile(r"pissa(_niter_[1-9]\d*)?")
EMBEDDING = "embed_tokens"


def check_adapter(run: Run, config: dict[str, Any], folder: Path) -> list[Problem]:
    """Return what is wrong with the adapter that a run makes.

    Args:
        run: the run.
        config: the model's ``config.json``; empty if it cannot be read.
        folder: the model's folder.
    """
    if not run.train.use_peft or run.peft is None or run.train.from_peft_checkpoint:
        return []
    checks = {"lora": _lora, "llama_adapter": _llama_adapter, "prefix": _prefix}
    problems = choice("task_type", run.peft.task_type, ("CAUSAL_LM",))
    return problems + checks[run.train.peft_method](run, config, folder)


def _lora(run: Run, config: dict[str, Any], folder: Path) -> list[Problem]:
    lora = run.peft
    problems = out_of_range(lora, LORA_RANGES)
    if lora.inference_mode:
        problems.append(
            Problem(
                "--inference_mode True", "nothing would be trained", "leave --inference_mode out"
            )
        )
    problems += choice("bias", lora.bias, LORA_BIASES)
    problems += check_targets(lora.target_modules, folder, "target_modules")
    return problems + _first_weights(run) + _dora(run)


def check_targets(targets: list[str] | str, folder: Path, flag: str) -> list[Problem]:
    """Compare what LoRA is to be put on with the names in the model's files."""
    names = linear_layers(folder)
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


def linear_layers(folder: Path) -> list[str]:
    """Return the layers whose weight is a matrix, by the names in a folder's safetensors files."""
    names = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is no dict)
                    if name.endswith(".weight") and len(file.get_slice(name).get_shape()) == 2:
                        names.append(name.removesuffix(".weight"))
        except (OSError, SafetensorError):
            return []
    return names


def _first_weights(run: Run) -> list[Problem]:
    first = run.peft.init_lora_weights
    if isinstance(first, bool) or first == "gaussian":
        return []
    what = f"--init_lora_weights {first}"
    if not PISSA.fullmatch(first):
        why = "there are true, false, gaussian, pissa, pissa_niter_N"
        return [Problem(what, why, "leave it out, or use --init_lora_weights pissa_niter_16")]
    if quantized_bits(run.train):
        return [
            Problem(
                f"{what} with --quantization {run.train.quantization}",
                "PiSSA takes its part out of the weights, which quantised ones do not allow",
                "leave one of them out",
            )
        ]
    if EMBEDDING in run.peft.target_modules:
        return [
            Problem(
                f"{what} with --target_modules {EMBEDDING}",
                "PiSSA is for linear layers",
                f"leave {EMBEDDING} out of --target_modules",
            )
        ]
    return []


def _dora(run: Run) -> list[Problem]:
    eight_bits_on_cpu = quantized_bits(run.train) == "8bit" and device_type() == "cpu"
    if not run.peft.use_dora or not eight_bits_on_cpu:
        return []
    return [
        Problem(
            "--use_dora with --quantization 8bit on the CPU",
            "there PEFT loses the scales of 8-bit weights",
            "use --quantization 4bit, or a CUDA device",
        )
    ]


def _llama_adapter(run: Run, config: dict[str, Any], folder: Path) -> list[Problem]:
    layers = config.get("num_hidden_layers")
    problems = out_of_range(run.peft, {"adapter_len": AT_LEAST_1, "adapter_layers": AT_LEAST_1})
    if isinstance(layers, int) and run.peft.adapter_layers > layers:
        problems.append(
            Problem(
                f"--adapter_layers {run.peft.adapter_layers}",
                f"the model in {folder} has {layers} layers (num_hidden_layers)",
                f"add --adapter_layers {layers}, or less",
            )
        )
    return problems


def _prefix(run: Run, config: dict[str, Any], folder: Path) -> list[Problem]:
    problems = out_of_range(run.peft, {"num_virtual_tokens": AT_LEAST_1})
    problems += check_prefix_kernel(run, "--peft_method prefix")
    longest = config.get("max_position_embeddings") or 0
    room = longest - run.peft.num_virtual_tokens
    if run.train.batching_strategy == "packing" and room < run.train.context_length <= longest:
        problems.append(
            Problem(
                f"--context_length {run.train.context_length} with "
                f"--num_virtual_tokens {run.peft.num_virtual_tokens}",
                f"the model takes {longest} positions (max_position_embeddings), the prefix's too",
                f"add --context_length {room}, or less",
            )
        )
    return problems


def check_prefix_kernel(run: Run, prefix: str) -> list[Problem]:
    """Find an attention that a prefix cannot be computed with; ``prefix`` is what named it."""
    kernel = run.train.attn_implementation
    if kernel in ("auto", DOCUMENT_ATTENTION):
        return []
    return [
        Problem(
            f"--attn_implementation {kernel} with {prefix}",
            "that attention knows no prefix before each of a row's documents",
            f"leave it out, or use --attn_implementation {DOCUMENT_ATTENTION}",
        )
    ]
