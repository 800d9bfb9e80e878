"""Rules for quantised weights: their settings, and what they need."""

from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import KEY, or_unquantized, quantized_bits, quantized_by

ONLY_4BIT = ("quant_type", "use_double_quant", "quant_storage", "compute_dtype")


def check_4bit_settings(run: Run) -> list[Problem]:
    """Find settings for 4-bit weights in a run that has none."""
    stored = KEY in model_config(run)  # ``stored_model_rules`` says that the flags change nothing
    if quantized_bits(run.train) == "4bit" or stored:
        return []
    return [
        Problem(
            f"--{flag} without --quantization 4bit",
            "it only applies to 4-bit weights",
            "add --quantization 4bit, or leave it out",
        )
        for flag in ONLY_4BIT
        if flag in run.given
    ]


def check_adapter_on_quantized(run: Run) -> list[Problem]:
    """Find quantised weights without an adapter: nothing would be trained."""
    if run.train.use_peft or quantized_bits(run.train) not in ("4bit", "8bit"):
        return []
    if "quantization" not in run.given:  # the folder's own weights, see ``stored_model_rules``
        return []
    return [untrainable(f"--quantization {run.train.quantization}")]


def untrainable(flag: str) -> Problem:
    """Return the problem that ``flag`` quantises weights that have no adapter."""
    return Problem(
        f"{flag} without --use_peft",
        "quantised weights cannot be trained, only an adapter on them can",
        f"add --use_peft, or leave {flag.partition(' ')[0]} out",
    )


def check_8bit_sharding(run: Run) -> list[Problem]:
    """Find 8-bit weights that FSDP would shard."""
    if not run.is_sharded or quantized_bits(run.train) != "8bit":
        return []
    return [
        Problem(
            f"{quantized_by(run)} with weights that are sharded",
            "FSDP's all-gather does not keep a row of 8-bit weights with its scale",
            f"{or_unquantized(run, 'use --quantization 4bit')}, "
            "or replicate the weights: --sharding_strategy NO_SHARD",
        )
    ]
