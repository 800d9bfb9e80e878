"""The list of all checks of a run, by subject.

To add a check, write a function in one of the modules of rules and a line here; a check that needs
only flags and ``config.json`` goes into ``checks_by_flags``, which ``plan`` uses too. A check is
given the run with its flags resolved and returns the problems that it finds, or an empty list. It
may read files, but no weights, and writes nothing. Which values a single flag accepts is not a
check: the field declares it, see ``fields``, and ``check_values`` compares all of them.
"""

from collections.abc import Iterable

from llama_recipes_local.errors import Problem
from llama_recipes_local.parallel import device_type
from llama_recipes_local.preflight import (
    adapter_rules,
    answer_rules,
    automatic_rules,
    checkpoint_rules,
    checks_by_flags,
    data_rules,
    disk_rules,
    earlier_results,
    fp8_rules,
    launch_rules,
    low_memory_rules,
    machine,
    memory_rules,
    mixture_rules,
    model,
    model_sizes,
    new_token_rules,
    precision_rules,
    recomputation_rules,
    saved_adapter_rules,
    stored_model_rules,
    token_rules,
    unread_settings,
)
from llama_recipes_local.preflight.checks_by_flags import Check
from llama_recipes_local.preflight.flags import check_needs, check_values
from llama_recipes_local.run import Run

BATCHES: tuple[Check, ...] = (
    data_rules.check_row_length,
    data_rules.check_stream,
    mixture_rules.check_mixture,
    unread_settings.check_data_settings,
    token_rules.check_tokens,
)
LAUNCH: tuple[Check, ...] = (
    launch_rules.check_environment,
    launch_rules.check_torchrun,
    launch_rules.check_rehearsal,
    launch_rules.check_group_sizes,
    launch_rules.check_devices,
)
DEVICE: tuple[Check, ...] = (
    precision_rules.check_float16,
    fp8_rules.check_fp8_device,
    recomputation_rules.check_selective_kernels,
)
"""What a CPU cannot do; a rehearsal there is of a run on a GPU."""
PRECISION: tuple[Check, ...] = (*DEVICE, *checks_by_flags.PRECISION)
LOOP: tuple[Check, ...] = (
    *checks_by_flags.LOOP,
    recomputation_rules.check_host_memory,
)
CHECKPOINTS: tuple[Check, ...] = (
    checkpoint_rules.check_resumed,
    earlier_results.check_earlier_result,
    earlier_results.check_names_are_free,
)
QUANTIZATION: tuple[Check, ...] = (
    *checks_by_flags.QUANTIZATION,
    stored_model_rules.check_stored_weights,
)
METHOD: tuple[Check, ...] = (
    *checks_by_flags.METHOD,
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
    low_memory_rules.check_low_memory_model,
    *METHOD,
    model.check_model,
    model_sizes.check_positions,
    automatic_rules.check_automatic,
    data_rules.check_vision_data,
    data_rules.check_data_files,
    answer_rules.check_scored_rows,
    memory_rules.check_memory,
    disk_rules.check_disk,
    machine.check_output,
    machine.check_sharded_output,
    machine.check_workers,
    machine.check_packages,
)


def checks_of(run: Run) -> tuple[Check, ...]:
    """Return the checks of a run, or of one that is rehearsed on a machine without a GPU."""
    if not run.train.rehearse or device_type() == "cuda":
        return CHECKS
    return tuple(check for check in CHECKS if check not in DEVICE)


def find_problems(run: Run, checks: Iterable[Check] = CHECKS) -> list[Problem]:
    """Return what the checks find, in their order; what two of them find is reported once."""
    return list(dict.fromkeys(problem for check in checks for problem in check(run)))
