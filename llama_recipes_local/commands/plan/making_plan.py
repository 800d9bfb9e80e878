"""Finds the settings of a run on GPUs that its flags and the command's own describe."""

import argparse
from dataclasses import dataclass
from typing import Any

from llama_recipes_local.commands.plan.flag_rules import check_planned, check_several
from llama_recipes_local.commands.plan.given import card_of, model_shape, stored_bits
from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.planning.asked import setting
from llama_recipes_local.planning.cards import Card
from llama_recipes_local.planning.flags import changes, free_of
from llama_recipes_local.planning.search import Outcome, ranked
from llama_recipes_local.planning.setting import Setting
from llama_recipes_local.planning.shapes import Shape
from llama_recipes_local.planning.tokens import BYTES_A_TOKEN, bytes_of
from llama_recipes_local.preflight.flags import check_values
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.run.weight_bits import KEY

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
class Plan:
    """What is printed.

    Attributes:
        model: as it was named.
        known: the name of the known model that it is taken for; "" for a folder.
        shape: of the model.
        card: each GPU.
        card_is_named: whether it is known which card it is.
        run: what is started, before anything is chosen.
        asked: its setting.
        outcomes: first the fastest that fits.
        others: of the methods that were tried, the fastest that fits, or what needs the least.
        tokens: of an epoch; None if they are not known.
        counted: where the tokens are from.
    """

    model: str
    known: str
    shape: Shape
    card: Card
    card_is_named: bool
    run: Run
    asked: Setting
    outcomes: list[Outcome]
    others: dict[str, Outcome]
    tokens: int | None
    counted: str


def make_plan(flags: dict[str, Any], args: argparse.Namespace) -> Plan:
    """Return the plan for a run's flags on the machines that the command's own flags describe.

    Raises:
        UsageError: if a value cannot be used.
    """
    model = str(flags.get("model_name", flags.get("train_config.model_name", "")))
    config, shape, known = model_shape(model)
    has, world = card_of(args), args.gpus * args.nodes
    if world > 1:
        refuse(check_several(resolve(flags), world))
        flags = {**flags, "enable_fsdp": "True"}
    given = resolve(flags).given
    if "use_fast_kernels" not in given and not has.on_cpu:
        flags = {**flags, "use_fast_kernels": "True"}
    tried = {"": {}} if given & METHOD_FLAGS else METHODS_TRIED
    if KEY in config and len(tried) > 1:  # the folder's own quantisation stays
        tried = {"LoRA": METHODS_TRIED["LoRA"]}
    runs = {name: _run({**flags, **more}, config) for name, more in tried.items()}
    for run in runs.values():
        refuse(check_values(run, only=run.given))
    found: dict[str, tuple[Run, Setting, list[Outcome]]] = {}
    wrong: list[list[Problem]] = []
    for name, run in runs.items():
        asked = setting(run, shape, world, args.nodes, has.on_cpu)
        outcomes = ranked(asked, has, free_of(run), args.node_link)
        started = _run({**run.flags, **changes(outcomes[0].setting, asked)}, config)
        started.automatic = run.automatic
        if problems := check_planned(started, has, world):
            wrong.append(problems)
        else:
            found[name] = run, asked, outcomes
    if not found:
        refuse(min(wrong, key=len))
    best = next((name for name, each in found.items() if each[2][0].fits), list(found)[-1])
    run, asked, outcomes = found[best]
    others = {name: each[2][0] for name, each in found.items() if len(found) > 1}
    tokens, counted = epoch_tokens(args.tokens, run)
    return Plan(
        model,
        known,
        shape,
        has,
        bool(args.gpu or args.probe),
        run,
        asked,
        outcomes,
        others,
        tokens,
        counted,
    )


def _run(flags: dict[str, Any], config: dict[str, Any]) -> Run:
    """Return the run of some flags and a model's ``config.json``."""
    run = resolve(flags)
    run.model = config
    run.train.quantization = run.train.quantization or stored_bits(config)
    return run


def epoch_tokens(given: int | None, run: Run) -> tuple[int | None, str]:
    """Return an epoch's tokens, and where the figure is from: a flag, or the files' bytes."""
    if given is not None:
        return given, "--tokens"
    if run.dataset is None or "dataset" not in run.given:
        return None, ""
    if (size := bytes_of(run.dataset)) is None:
        return None, "its files are not here, or not plain text: give --tokens N"
    return size // BYTES_A_TOKEN, f"{size / 1e6:,.2f} MB at {BYTES_A_TOKEN} bytes a token"
