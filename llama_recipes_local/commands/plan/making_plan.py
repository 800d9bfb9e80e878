"""Finds the settings of a run on GPUs that its flags and the command's own describe."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_recipes_local.commands.plan.data_size import DataPlan, data_of
from llama_recipes_local.commands.plan.flag_rules import check_planned, check_several
from llama_recipes_local.commands.plan.given import Target, stored_bits, target_of
from llama_recipes_local.errors import Problem, caught, refuse
from llama_recipes_local.planning.asked import setting, with_data
from llama_recipes_local.planning.flags import changes, free_of
from llama_recipes_local.planning.search import Outcome, ranked
from llama_recipes_local.planning.setting import Setting
from llama_recipes_local.preflight.flags import check_values
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.run.weight_bits import KEY, packed_bits

METHOD_FLAGS = {
    *("use_peft", "peft_method", "quantization", "train_only", "top_layers"),
    *("freeze_layers", "from_peft_checkpoint"),
}
QLORA = {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": "True"}
METHODS_TRIED: dict[str, dict[str, str]] = {
    "full fine-tuning": {},
    "LoRA": {"use_peft": "True"},
    "QLoRA": {"use_peft": "True", **QLORA},
}
"""What is tried where the flags do not say what is trained."""


@dataclass(frozen=True)
class Method:
    """A run, and what may be chosen for it.

    Attributes:
        run: what is started, before anything is chosen.
        asked: its setting.
        outcomes: first the fastest that fits, or what needs the least.
    """

    run: Run
    asked: Setting
    outcomes: list[Outcome]


@dataclass(frozen=True)
class Plan(Method):
    """What is printed.

    Attributes:
        model: as it was named.
        target: what it is planned for.
        methods: all that were tried, by name; none if the flags say what is trained.
        data: of an epoch.
    """

    model: str
    target: Target
    methods: dict[str, Method]
    data: DataPlan


def make_plan(
    flags: dict[str, Any], args: argparse.Namespace, problems: Sequence[Problem] = ()
) -> Plan:
    """Return the plan for a run's flags on the machines that the command's own flags describe.

    Args:
        flags: of the run, those that can be used.
        args: the command's own.
        problems: that are known already.

    Raises:
        UsageError: with all problems.
    """
    model = str(flags.get("model_name", flags.get("train_config.model_name", "")))
    target, unknown = target_of(model, args)
    problems = [*problems, *unknown]
    if target.world > 1:
        problems += check_several(resolve(flags), target.world)
        flags = {**flags, "enable_fsdp": "True"}
    wrong_values = _wrong_values(_tried(flags, target))
    problems += dict.fromkeys(each for found in wrong_values.values() for each in found)
    flags = {flag: flags[flag] for flag in flags if flag.rpartition(".")[2] not in wrong_values}
    runs, data = _tried(flags, target), DataPlan()
    if not problems:
        with caught() as problems:
            data = data_of(next(iter(runs.values())), args.tokens)
    found, wrong = _planned(runs, target, args.node_link, data)
    refuse([*problems, *([] if found else wrong)])
    each = [*found.values()]
    best = next((method for method in each if method.outcomes[0].fits), each[-1])
    methods = found if len(found) > 1 else {}
    return Plan(best.run, best.asked, best.outcomes, model, target, methods, data)


def _tried(flags: dict[str, Any], target: Target) -> dict[str, Run]:
    """Return the runs that are compared: of each method, or the one that the flags ask for."""
    given = resolve(flags).given
    if "use_fast_kernels" not in given and not target.card.on_cpu:
        flags = {**flags, "use_fast_kernels": "True"}
    tried = {"": {}} if given & METHOD_FLAGS else METHODS_TRIED
    if KEY in target.config and len(tried) > 1:  # the folder's own quantisation stays
        tried = {"LoRA": METHODS_TRIED["LoRA"]}
    return {name: _run({**flags, **more}, target.config) for name, more in tried.items()}


def _wrong_values(runs: Mapping[str, Run]) -> dict[str, list[Problem]]:
    """Return what is wrong with values, by the names of their fields."""
    found = {name: check_values(run, only={name}) for run in runs.values() for name in run.given}
    return {name: problems for name, problems in found.items() if problems}


def _planned(
    runs: Mapping[str, Run], target: Target, node_link: float, data: DataPlan
) -> tuple[dict[str, Method], list[Problem]]:
    """Return the runs that can be started, with what each asks for and its variants.

    And what is wrong with one of the others, the one with the fewest problems.
    """
    found: dict[str, Method] = {}
    wrong: list[list[Problem]] = []
    for name, run in runs.items():
        packed, on_cpu = packed_bits(target.config), target.card.on_cpu
        asked = setting(run, target.shape, target.world, target.nodes, on_cpu, packed)
        asked = with_data(asked, data.training, data.validation)
        outcomes = ranked(asked, target.card, free_of(run), node_link)
        started = _run({**run.flags, **changes(outcomes[0].setting, asked)}, target.config)
        started.automatic = run.automatic
        if problems := check_planned(started, target):
            wrong.append(problems)
        else:
            found[name] = Method(run, asked, outcomes)
    return found, min(wrong, key=len, default=[])


def _run(flags: dict[str, Any], config: dict[str, Any]) -> Run:
    """Return the run of some flags and a model's ``config.json``."""
    run = resolve(flags)
    run.model = config
    run.train.quantization = run.train.quantization or stored_bits(config)
    return run
