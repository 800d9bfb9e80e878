"""Quantised weights: what goes with them, and what they need."""

from llama_recipes_local.errors import Problem
from llama_recipes_local.models.quantization import quantized_bits
from llama_recipes_local.preflight.values import choice
from llama_recipes_local.run.resolution import Run

QUANTIZATIONS = (None, False, True, "4bit", "8bit")
ONLY_4BIT = ("quant_type", "use_double_quant", "quant_storage", "compute_dtype")


def check_quantization(run: Run) -> list[Problem]:
    """Return what is wrong with how weights are quantised."""
    problems = [
        *choice("quantization", run.train.quantization, QUANTIZATIONS),
        *_unused(run),
    ]
    if quantized_bits(run.train) is None or problems:
        return problems
    return [
        *choice("quant_type", run.quantization.quant_type, ("nf4", "fp4")),
        *_without_adapter(run),
        *_sharding(run),
    ]


def _unused(run: Run) -> list[Problem]:
    if quantized_bits(run.train) == "4bit":
        return []
    return [
        Problem(
            f"--{flag} without --quantization 4bit",
            "it would be ignored: it says how 4-bit weights are made",
            "add --quantization 4bit, or leave it out",
        )
        for flag in ONLY_4BIT
        if flag in run.given
    ]


def _without_adapter(run: Run) -> list[Problem]:
    if run.train.use_peft:
        return []
    return [
        Problem(
            f"--quantization {run.train.quantization} without --use_peft",
            "quantised weights cannot be trained, only an adapter on them can",
            "add --use_peft, or leave --quantization out",
        )
    ]


def _sharding(run: Run) -> list[Problem]:
    if not run.is_sharded or quantized_bits(run.train) != "8bit":
        return []
    return [
        Problem(
            "--quantization 8bit with weights that are sharded",
            "a row of 8-bit weights and its scale do not go through FSDP's all-gather",
            "use --quantization 4bit, or whole weights on each rank: --sharding_strategy NO_SHARD",
        )
    ]
