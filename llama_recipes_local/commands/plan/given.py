"""What ``plan`` is told of the model, the GPUs and the data, and where it looks."""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_recipes_local.configs.model_types import LLAMA
from llama_recipes_local.errors import Problem, caught, refusal
from llama_recipes_local.messages import nearest
from llama_recipes_local.planning.cards import CARDS, Card, card
from llama_recipes_local.planning.shapes import KNOWN, Shape, config_of, shape_of
from llama_recipes_local.run.weight_bits import KEY

SOLD = 80
"""GB of a GPU of which nothing is said."""
VARIANT = re.compile(r"(-(hf|instruct|chat|v\d[\d.]*))+$")
"""What follows the name of a model of the same shape."""


@dataclass(frozen=True)
class Target:
    """What is planned for.

    Attributes:
        config: the model's ``config.json``; empty if there is no such model.
        shape: of the model.
        known: the name of the known model that it is taken for; "" for a folder.
        card: each GPU.
        card_is_named: whether it is known which card it is.
        world: how many there are.
        nodes: on how many machines.
        node_link: GB/s from each to other nodes.
    """

    config: dict[str, Any]
    shape: Shape
    known: str
    card: Card
    card_is_named: bool
    world: int
    nodes: int
    node_link: float


def target_of(model: str, args: argparse.Namespace) -> tuple[Target, list[Problem]]:
    """Return what is planned for, and what of it is not known: there stands any other.

    Args:
        model: its folder or name.
        args: the command's own flags.
    """
    config: dict[str, Any] = {}
    shape, known, has = next(iter(KNOWN.values())), "", card(SOLD)
    with caught() as of_model:
        config, shape, known = model_shape(model)
    with caught() as of_card:
        has = card_of(args)
    if not model and any(flag.rpartition(".")[2] == "model_name" for flag in args.flags):
        of_model = []  # it was named: what is wrong with the word is reported already
    card_is_named, world = bool(args.gpu or args.probe), args.gpus * args.nodes
    target = Target(config, shape, known, has, card_is_named, world, args.nodes, args.node_link)
    return target, [*of_model, *of_card]


def model_shape(name: str) -> tuple[dict[str, Any], Shape, str]:
    """Return a model's ``config.json``, its shape, and its name among the known; "" for a folder.

    Raises:
        UsageError: if there is neither such a folder nor such a name.
    """
    fix = f"name a folder, or one of {', '.join(KNOWN)}"
    if not name:
        raise refusal("no model was named", "a plan is for a model", f"--model_name: {fix}")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        wanted = VARIANT.sub("", name.lower().rpartition("/")[2].removeprefix("meta-"))
        if wanted in KNOWN:
            return config_of(KNOWN[wanted]), KNOWN[wanted], wanted
        near = nearest(wanted, KNOWN)
        fix = f"did you mean {near}?" if near else fix
        raise refusal(f"--model_name {name}", "there is no such folder, and no such name", fix)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise refusal(f"{path} cannot be read", why, fix) from None
    shape = shape_of(config) if isinstance(config, dict) else None
    if shape is None:
        raise refusal(f"{path} is not that of a Llama", _why_not(config), fix)
    return config, shape, ""


def _why_not(config: object) -> str:
    """Return why what is in a ``config.json`` has no shape."""
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind == LLAMA:
        return "its sizes are not those of any: a missing one, or heads that do not divide others"
    return f"its model_type is {kind!r}, of which no sizes are known here"


def stored_bits(config: Mapping[str, Any]) -> str | None:
    """Return "4bit" or "8bit" if a model's folder has its weights so; None if not."""
    stored = config.get(KEY)
    stored = stored if isinstance(stored, dict) else {}
    return next((bits for bits in ("4bit", "8bit") if stored.get(f"load_in_{bits}") is True), None)


def card_of(args: argparse.Namespace) -> Card:
    """Return the card.

    Raises:
        UsageError: if none has that name.
    """
    if args.probe:
        return _this_device(args)
    if not args.gpu:
        return card(args.gpu_memory or SOLD)
    try:
        return card(args.gpu_memory or 0, args.gpu)
    except KeyError:
        names = ", ".join(each.name for each in CARDS)
        why = "its speed is not known here; training is on GPUs that torch reaches by CUDA, or CPUs"
        near = nearest(args.gpu, [each.name for each in CARDS])
        fix = f"did you mean '{near}'? " if near else ""
        fix += f"leave it out and give --gpu_memory GB, or --probe on its machine, or name {names}"
        raise refusal(f"--gpu {args.gpu}", why, fix) from None


def _this_device(args: argparse.Namespace) -> Card:
    """Return this machine's GPU, or a rank's part of its CPUs, with its measured speed.

    Raises:
        UsageError: if another card is named too.
    """
    if args.gpu or args.gpu_memory:
        what = "--probe with " + ("--gpu" if args.gpu else "--gpu_memory")
        raise refusal(what, "it is this machine that is measured", "leave one of them out")
    from llama_recipes_local.preflight.device_card import probed_card  # which imports torch

    return probed_card(args.gpus)
