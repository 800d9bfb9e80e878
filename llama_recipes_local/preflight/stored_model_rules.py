"""Rules for models that are stored quantised: what can be trained on them, and how."""

from pathlib import Path

from llama_recipes_local.adapters.lora_flags import ALL_LINEAR
from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.model_folders.stored_quantization import (
    StoredQuantization,
    stored_quantization,
)
from llama_recipes_local.preflight.quantization_rules import ONLY_4BIT
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import BEFORE, quantized_bits


def adopt_stored_bits(run: Run) -> None:
    """Set ``--quantization`` of a run whose model is stored in bitsandbytes' 4 or 8 bits."""
    stored = stored_weights(run)
    if stored is not None and stored.bits and not run.train.quantization:
        run.train.quantization = stored.bits


def stored_weights(run: Run) -> StoredQuantization | None:
    """Return how the weights of a run's model are quantised in its folder; None if they are not."""
    if not run.train.model_name:
        return None
    folder = Path(run.train.model_name).expanduser().resolve()
    return stored_quantization(folder, read_config(folder))


def check_stored_weights(run: Run) -> list[Problem]:
    """Find settings that cannot be combined with weights that are stored quantised."""
    stored = stored_weights(run)
    if stored is None or stored.method is None:
        return []
    problems = []
    if not run.train.use_peft:
        why = "quantised weights cannot be trained, only an adapter on them can"
        problems.append(Problem(stored.what, why, f"add --use_peft, or {BEFORE}"))
    asked = quantized_bits(run.train)
    if asked is not None and asked != stored.bits:
        what = f"--quantization {run.train.quantization}: {stored.what}"
        fix = f"leave --quantization out, or {BEFORE}"
        problems.append(Problem(what, "they are not quantised a second time", fix))
    problems += [
        Problem(f"--{flag}: {stored.what}", "the folder has its own setting", f"leave --{flag} out")
        for flag in ONLY_4BIT
        if flag in run.given
    ]
    return problems + _check_all_linear(run, stored) + _check_sharding(run, stored)


def _check_all_linear(run: Run, stored: StoredQuantization) -> list[Problem]:
    """Find layers chosen by their type, which gptqmodel has replaced."""
    if stored.name not in ("gptq", "awq"):
        return []
    if getattr(run.peft, "target_modules", None) != ALL_LINEAR:
        return []
    fix = "--target_modules q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    why = "PEFT finds no linear layers among gptqmodel's"
    return [Problem(f"--target_modules {ALL_LINEAR}: {stored.what}", why, fix)]


def _check_sharding(run: Run, stored: StoredQuantization) -> list[Problem]:
    """Find quantised weights that ranks would shard, or read one by one."""
    flag = "--low_cpu_fsdp" if run.train.low_cpu_fsdp else "--enable_fsdp"
    shardable = stored.bits or stored.name == "fp8"
    if not run.train.enable_fsdp or (shardable and not run.train.low_cpu_fsdp):
        return []
    why = "they are read whole, on one device"
    return [Problem(f"{flag}: {stored.what}", why, f"leave {flag} out, or {BEFORE}")]
