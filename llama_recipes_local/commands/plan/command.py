"""``llama-recipes-local plan``: finds the settings, and prints them as text or JSON."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.commands.plan.flag_rules import check_asked, check_method, check_several
from llama_recipes_local.commands.plan.given import card_of, model_shape
from llama_recipes_local.commands.plan.report import as_json, as_text
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import UsageError, refusal, refuse
from llama_recipes_local.fields import update_config
from llama_recipes_local.planning.asked import Asked, setting, words_of
from llama_recipes_local.planning.cards import Card
from llama_recipes_local.planning.flags import free_of
from llama_recipes_local.planning.search import Outcome, ranked
from llama_recipes_local.planning.setting import Setting
from llama_recipes_local.planning.shapes import Shape
from llama_recipes_local.planning.tokens import BYTES_A_TOKEN, bytes_of
from llama_recipes_local.preflight.flags import check_arguments, check_flags

OWN = ("gpus", "nodes", "gpu_memory", "gpu", "node_link", "tokens", "json")
METHOD_FLAGS = {
    *("use_peft", "peft_method", "quantization", "preset", "train_only", "top_layers"),
    *("freeze_layers", "from_peft_checkpoint"),
}
QLORA = {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": "True"}
METHODS_TRIED: dict[str, dict[str, str]] = {
    "full fine-tuning": {},
    "LoRA": {"use_peft": "True"},
    "QLoRA": {"use_peft": "True", **QLORA},
}
"""What is tried where the flags do not say what is trained."""

SHORT = 1024


@dataclass(frozen=True)
class Plan:
    """What is printed.

    Attributes:
        model: as it was named.
        shape: of the model.
        card: each GPU.
        flags: what the run is started with, before anything is chosen.
        asked: its setting.
        outcomes: first the fastest that fits.
        others: of the methods that were tried, the fastest that fits, or what needs the least.
        tokens: of an epoch; None if they are not known.
        counted: where the tokens are from.
    """

    model: str
    shape: Shape
    card: Card
    flags: dict[str, Any]
    asked: Setting
    outcomes: list[Outcome]
    others: dict[str, Outcome]
    tokens: int | None
    counted: str

    @property
    def train(self) -> configs.train_config:
        """The run's configuration, for what planning does not choose."""
        train = configs.train_config()
        update_config(train, **self.flags)
        return train


def plan(args: argparse.Namespace) -> None:
    """Print which settings fit and which is the fastest.

    Raises:
        UsageError: if a flag is wrong, or nothing fits.
    """
    given, named_twice = with_data_path(args.flags)
    flags, problems = check_flags(given, OWN)
    refuse([*check_arguments(args.arguments), *problems, *named_twice])
    made = make_plan(flags, args)
    print(json.dumps(as_json(made), indent=2) if args.json else as_text(made))
    if not made.outcomes[0].fits:
        raise _nothing_fits(made, flags, args)


def make_plan(flags: dict[str, Any], args: argparse.Namespace) -> Plan:
    """Return the plan for a run's flags on the machines that the command's own flags describe.

    Raises:
        UsageError: if a value cannot be used.
    """
    flags = _with_preset(flags)
    model = str(flags.get("model_name", flags.get("train_config.model_name", "")))
    shape, stored = model_shape(model)
    has = card_of(args)
    world = args.gpus * args.nodes
    if world > 1:
        refuse(check_several(_asked(flags), flags, world))
        flags = {**flags, "enable_fsdp": "True"}
    given = {flag.rpartition(".")[2] for flag in flags}
    flags |= {name: value for name, value in stored.items() if name not in given}
    if not given & {"use_fast_kernels"}:
        flags["use_fast_kernels"] = "True"
    tried = {"": {}} if given & METHOD_FLAGS else METHODS_TRIED
    if stored and len(tried) > 1:  # the folder's own quantisation stays
        tried = {"LoRA": METHODS_TRIED["LoRA"]}
    refuse(check_asked(_asked(flags), shape, given))
    wrong = {
        name: check_method(_asked({**flags, **more}), shape, has, given)
        for name, more in tried.items()
    }
    if all(wrong.values()):
        refuse(min(wrong.values(), key=len))
    tried = {name: more for name, more in tried.items() if not wrong[name]}
    found: dict[str, tuple[dict[str, Any], Setting, list[Outcome]]] = {}
    for name, more in tried.items():
        its = {**flags, **more}
        asked = setting(_asked(its), shape, world, args.nodes)
        outcomes = ranked(asked, has, free_of(given), args.node_link)
        found[name] = its, asked, outcomes
    chosen = next((name for name, each in found.items() if each[2][0].fits), list(found)[-1])
    its, asked, outcomes = found[chosen]
    others = {name: each[2][0] for name, each in found.items() if len(found) > 1}
    tokens, counted = epoch_tokens(args.tokens, flags)
    return Plan(model, shape, has, its, asked, outcomes, others, tokens, counted)


def _asked(flags: Mapping[str, Any]) -> Asked:
    train = configs.train_config()
    update_config(train, **flags)
    peft = None
    if train.use_peft and train.peft_method in METHODS:
        peft = METHODS[train.peft_method].config()
        update_config(peft, **flags)
    fsdp = words_of(configs.fsdp_config, flags)
    return Asked(train, fsdp, words_of(configs.quantization_config, flags), peft)


def epoch_tokens(given: int | None, flags: Mapping[str, Any]) -> tuple[int | None, str]:
    """Return an epoch's tokens, and where the figure is from: a flag, or the files' bytes."""
    if given is not None:
        return given, "--tokens"
    declared = DATASETS.get(str(flags.get("dataset", flags.get("train_config.dataset"))))
    if declared is None:
        return None, ""
    config = declared.config()
    update_config(config, **flags)
    if (size := bytes_of(config)) is None:
        return None, "its files are not here, or not plain text: give --tokens N"
    return size // BYTES_A_TOKEN, f"about {BYTES_A_TOKEN} bytes of {size / 1e6:.1f} MB a token"


def _with_preset(flags: dict[str, Any]) -> dict[str, Any]:
    """Return flags with what ``--preset`` sets, which takes torch to know."""
    if not flags.get("preset", flags.get("train_config.preset")):
        return dict(flags)
    from llama_recipes_local.preflight.presets import chosen
    from llama_recipes_local.run.resolution import resolve

    values = chosen(resolve(dict(flags)))
    return {name: value for name, (value, _) in values.items()} | flags


def _nothing_fits(made: Plan, flags: dict[str, Any], args: argparse.Namespace) -> UsageError:
    """Return the error that names what would need less."""
    least, asked = made.outcomes[0], made.asked
    fixes = []
    if (enough := _enough_gpus(flags, args)) is not None:
        fixes.append(f"--gpus {enough}")
    if not asked.weights.bits:
        peft = "" if asked.adapter else "--use_peft "
        fixes.append(f"{peft}--quantization 4bit (an adapter of weights in 4 bits)")
    if asked.batch.length > SHORT:
        fixes.append(f"--context_length {asked.batch.length // 2} (longer rows are truncated)")
    why = f"the least that does this work needs {least.needs:.1f} GiB of each GPU"
    what = f"nothing fits into {made.card.memory:.1f} GiB"
    return refusal(what, why, "; or ".join(fixes))


def _enough_gpus(flags: dict[str, Any], args: argparse.Namespace) -> int | None:
    """Return the fewest GPUs of a node, a power of two, that would be enough; None up to 64."""
    for gpus in (2, 4, 8, 16, 32, 64):
        more = argparse.Namespace(**{**vars(args), "gpus": gpus})
        if gpus > args.gpus and make_plan(flags, more).outcomes[0].fits:
            return gpus
    return None
