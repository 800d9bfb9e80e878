"""The device of this process, as ``planning`` describes cards."""

from dataclasses import replace

import torch

from llama_recipes_local import launch
from llama_recipes_local.errors import refusal
from llama_recipes_local.parallel import device_type
from llama_recipes_local.planning.cards import SOCKETS, Card, is_known, of_device
from llama_recipes_local.preflight.card_probe import rates
from llama_recipes_local.storage.host_memory import available_bytes, total_bytes

OF_HOST = 0.8
"""Share of a host's memory that its ranks may take together."""


def this_card() -> Card | None:
    """Return this process's CUDA device; None without one.

    Its speed is taken from the table of known cards, or measured if the table does not have it.
    """
    if device_type() != "cuda":
        return None
    launched = launch.launch()
    number = launched.local_rank if launched else 0
    if number >= torch.cuda.device_count():
        return None  # reported
    found = torch.cuda.get_device_properties(number)
    card = of_device(found.name, found.total_memory)
    return card if is_known(found.name) else _probed(card, "cuda")


def probed_card(ranks: int) -> Card:
    """Return this machine's CUDA device, or a rank's part of its CPUs, with its measured speed.

    Args:
        ranks: number on this host.

    Raises:
        UsageError: if the size of the memory is unknown.
    """
    if (card := this_card()) is not None:
        return _probed(card, "cuda")
    if (cpu := this_cpu(ranks)) is not None:
        return cpu
    why, fix = "this machine does not say how much memory it has", "give --gpu_memory GB instead"
    raise refusal("--probe", why, fix)


def this_cpu(ranks: int | None = None) -> Card | None:
    """Return a rank's part of this host's CPUs; None if the size of its memory is unknown.

    The whole memory counts, not only what is free now, so that all ranks plan the same.

    Args:
        ranks: number on this host; None means those that were launched.
    """
    total = total_bytes()
    if total is None:
        return None
    share = OF_HOST * total / 2**30 / (ranks or launch.ranks_of_host())
    return _probed(Card("this CPU", share, 0.0, 0.0, SOCKETS, on_cpu=True), "cpu")


def this_host() -> Card | None:
    """Return a rank's part of a host's free memory, to train on its CPUs of unknown speed.

    None with CUDA, or if it is unknown how much is free.
    """
    available = available_bytes()
    if available is None or device_type() == "cuda":
        return None
    share = available / 2**30 / launch.ranks_of_host()
    return Card("this CPU", share, 1.0, 1.0, SOCKETS, on_cpu=True)


def _probed(card: Card, device: str) -> Card:
    try:
        rate, copies = rates(device)
    except RuntimeError:  # no memory left, or no bfloat16: the assumed speed stays
        return card
    return replace(card, rate=rate, bandwidth=copies, measured=True, probed=True)
