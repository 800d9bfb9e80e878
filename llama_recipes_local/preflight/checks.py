"""Every check of a run, by subject; a new one is a function in a module of rules, and a line here.

A check takes the run, its flags resolved, and returns the problems that it finds: an empty list if
all is well. It reads files, but no weight, and writes nothing. What a single value may be is not a
check: the field declares it, see ``fields``, and ``check_values`` compares them all.
"""

from collections.abc import Callable, Iterable

from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight import (
    adapter_rules,
    checkpoint_rules,
    data_rules,
    earlier_results,
    fp8_rules,
    launch_rules,
    loop_rules,
    low_memory_rules,
    machine,
    memory_rules,
    method_rules,
    model,
    new_token_rules,
    precision_rules,
    quantization_rules,
    saved_adapter_rules,
    stored_model_rules,
)
from llama_recipes_local.preflight.flags import check_needs, check_values
from llama_recipes_local.run import Run

Check = Callable[[Run], list[Problem]]

BATCHES: tuple[Check, ...] = (
    data_rules.check_row_length,
    data_rules.check_stream,
)
LAUNCH: tuple[Check, ...] = (
    launch_rules.check_environment,
    launch_rules.check_torchrun,
    launch_rules.check_group_sizes,
    launch_rules.check_devices,
)
PRECISION: tuple[Check, ...] = (
    precision_rules.check_float16,
    precision_rules.check_one_half_precision,
    fp8_rules.check_fp8_device,
    fp8_rules.check_fp8_weights,
)
LOOP: tuple[Check, ...] = (
    loop_rules.check_warmup,
    loop_rules.check_samples,
    loop_rules.check_schedule_settings,
    loop_rules.check_optimizer,
    loop_rules.check_validation,
    loop_rules.check_gradient_checkpointing,
    loop_rules.check_activation_policy,
    loop_rules.check_selective,
    loop_rules.check_host_memory,
    loop_rules.check_profiling,
)
CHECKPOINTS: tuple[Check, ...] = (
    checkpoint_rules.check_resumed,
    earlier_results.check_earlier_result,
    earlier_results.check_names_are_free,
)
QUANTIZATION: tuple[Check, ...] = (
    quantization_rules.check_4bit_settings,
    quantization_rules.check_adapter_on_quantized,
    quantization_rules.check_8bit_sharding,
    stored_model_rules.check_stored_weights,
)
METHOD: tuple[Check, ...] = (
    method_rules.check_use_peft,
    method_rules.check_adapter_settings,
    method_rules.check_lora_plus,
    method_rules.check_one_part_is_trained,
    method_rules.check_frozen_layers,
    method_rules.check_train_only,
    method_rules.check_top_layers,
    method_rules.check_top_layers_in_shards,
    method_rules.check_vision_model,
    new_token_rules.check_new_tokens,
    adapter_rules.check_adapter,
    saved_adapter_rules.check_saved_adapter,
)
CHECKS: tuple[Check, ...] = (
    check_values,
    check_needs,
    *BATCHES,
    *LAUNCH,
    *PRECISION,
    *LOOP,
    *CHECKPOINTS,
    *QUANTIZATION,
    low_memory_rules.check_low_memory,
    *METHOD,
    model.check_model,
    data_rules.check_vision_data,
    data_rules.check_data_files,
    memory_rules.check_memory,
    machine.check_output,
    machine.check_sharded_output,
    machine.check_workers,
    machine.check_packages,
)


def find_problems(run: Run, checks: Iterable[Check] = CHECKS) -> list[Problem]:
    """Return what the checks find, in their order; what two of them find is reported once."""
    return list(dict.fromkeys(problem for check in checks for problem in check(run)))
