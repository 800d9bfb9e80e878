"""The checks that need only a run's flags and its model's ``config.json``, and no torch.

``plan`` runs them too, so that it never prints a command that a run would refuse.
"""

from collections.abc import Callable

from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight import (
    automatic_rules,
    fp8_rules,
    loop_rules,
    low_memory_rules,
    method_rules,
    mixture_rules,
    model_sizes,
    precision_rules,
    quantization_rules,
    unread_settings,
    validation_rules,
)
from llama_recipes_local.preflight.flags import check_needs
from llama_recipes_local.run import Run

Check = Callable[[Run], list[Problem]]

PRECISION: tuple[Check, ...] = (
    precision_rules.check_one_half_precision,
    fp8_rules.check_fp8_weights,
)
LOOP: tuple[Check, ...] = (
    loop_rules.check_warmup,
    loop_rules.check_samples,
    loop_rules.check_schedule_settings,
    loop_rules.check_optimizer,
    loop_rules.check_validation,
    validation_rules.check_early_stopping,
    validation_rules.check_best_metric,
    loop_rules.check_gradient_checkpointing,
    loop_rules.check_activation_policy,
    loop_rules.check_selective,
    loop_rules.check_profiling,
)
QUANTIZATION: tuple[Check, ...] = (
    quantization_rules.check_4bit_settings,
    quantization_rules.check_adapter_on_quantized,
    quantization_rules.check_8bit_sharding,
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
)
FLAG_CHECKS: tuple[Check, ...] = (
    check_needs,
    *PRECISION,
    *LOOP,
    *QUANTIZATION,
    low_memory_rules.check_low_memory,
    *METHOD,
    mixture_rules.check_mixture,
    unread_settings.check_data_settings,
    model_sizes.check_positions,
    automatic_rules.check_automatic,
)
