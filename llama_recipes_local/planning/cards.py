"""What is known of cards: memory, and the speed of products, of memory and of links."""

import re
from dataclasses import dataclass, replace

REACHED = 0.78
"""What a large bfloat16 product reaches of the rate in a data sheet: 772 of 989 on an H100 (8192
cubed, random values)."""

NVLINK = 450
PCIE = 25
NODES = 50
"""GB/s from one card to others on other hosts: 400 Gbit/s a card."""

SOCKETS = 1.0
"""GB/s from one process to another of a host through gloo: what FSDP2's gathers took of two ranks
of one thread each."""


@dataclass(frozen=True)
class Card:
    """A card.

    Attributes:
        name: as people say it.
        memory: GiB that torch can allocate.
        rate: TFLOP/s of a large bfloat16 product.
        bandwidth: TB/s of its memory; of an H200's 4.8 only as much as speeds up a step in
            comparison with an H100.
        link: GB/s to another card of its host, in one direction.
        measured: whether ``rate`` was measured; otherwise it is the data sheet's times ``REACHED``.
        probed: whether ``rate`` and ``bandwidth`` were measured on this machine.
        on_cpu: whether it is a CPU, and its memory the host's.
        rows: the share of ``rate`` that attention reaches over rows of one long document each: by
            cuDNN on Hopper, from 470 + 1,450 microseconds for two rows of 4,096 tokens with 32
            heads of 128 on an H200.
        like: the known card whose speed is assumed, if none has this memory.
        fp8: TFLOP/s of a large product in 8 bits; 0 before Hopper, where ``--fp8`` is refused.
    """

    name: str
    memory: float
    rate: float
    bandwidth: float
    link: float = PCIE
    measured: bool = False
    fp8: float = 0.0
    probed: bool = False
    on_cpu: bool = False
    rows: float = 0.0
    like: str = ""


def _sheet(name: str, memory: float, rate: float, bandwidth: float, link: float = PCIE) -> Card:
    return Card(name, memory, round(rate * REACHED), bandwidth, link)


CARDS = (
    Card("H200", 139.8, 797, 3.6, NVLINK, measured=True, fp8=1516, rows=0.76),
    Card("H100", 79.1, 772, 3.35, NVLINK, measured=True, fp8=1429, rows=0.76),
    replace(_sheet("B200", 178, 2250, 8.0, 900), fp8=3500),
    _sheet("A100 80GB", 79.1, 312, 2.04, 300),
    _sheet("A100 40GB", 39.4, 312, 1.56, 300),
    _sheet("L40S", 44.4, 362, 0.864),
    _sheet("A40", 44.4, 150, 0.696),
    _sheet("RTX 6000 Ada", 47.4, 364, 0.96),
    replace(_sheet("RTX 5090", 31.3, 210, 1.79), fp8=300),
    _sheet("RTX 4090", 23.5, 165, 1.01),
    _sheet("RTX 3090", 23.5, 71, 0.936),
    _sheet("A10", 22.1, 125, 0.6),
    _sheet("L4", 22.0, 121, 0.3),
    _sheet("RTX 4080", 15.6, 97, 0.717),
    _sheet("RTX 4060 Ti", 15.6, 44, 0.288),
    _sheet("RTX 3060", 11.6, 25, 0.36),
)
"""Known cards; of several with as much memory the first one is meant."""

_OVERHEAD = 0.97
"""What torch can allocate of a card's memory in GiB, beside a CUDA context of some 0.5 GiB."""


def card(memory_gb: float, name: str = "") -> Card:
    """Return a card by its name, or by the memory that it is sold with, in GB.

    Without a name, it is the first known card with about this memory, given exactly this memory. If
    no card has about this memory, the speed of the nearest one is assumed. A memory of 0 is the
    named card's own.

    Raises:
        KeyError: if there is no card of that name.
    """
    if name:
        wanted = _plain(name)
        found = next((each for each in CARDS if wanted == _plain(each.name)), None)
        found = found or next((each for each in CARDS if wanted in _short_names(each)), None)
        found = found or next((each for each in CARDS if _is_driver_name(wanted, each)), None)
        if found is None:
            raise KeyError(name)
        return replace(found, memory=usable(memory_gb)) if memory_gb else found
    has = usable(memory_gb)
    about = next((each for each in CARDS if abs(has - each.memory) <= 0.08 * each.memory), None)
    if about is not None:
        return replace(about, memory=has)
    near = min(CARDS, key=lambda each: abs(has - each.memory))
    return replace(near, memory=has, name=f"GPU of {memory_gb:g} GB", like=near.name)


def _short_names(known: Card) -> set[str]:
    """Return a card's short names: without its maker's series, and without its memory."""
    words = [word for word in known.name.lower().split() if not word.endswith("gb")]
    return {"".join(words), "".join(words[1:])} - {""}


def _is_driver_name(wanted: str, known: Card) -> bool:
    """Return whether a plain name is that of nvidia-smi: with the maker and the memory."""
    own = wanted.removeprefix("nvidia").removeprefix("geforce")
    rest = own.removeprefix(_plain(known.name))
    return rest != own and re.match(r"(pcie|sxm\d?|nvl)*(\d+gb\w*)?$", rest) is not None


def of_device(name: str, memory_bytes: int) -> Card:
    """Return a card by the name and memory that CUDA reports, such as ``NVIDIA H100 80GB HBM3``."""
    memory = memory_bytes / 2**30
    return replace(_by_device(name) or card(memory_bytes / 1e9), memory=memory, name=name)


def is_known(name: str) -> bool:
    """Return whether the table has the speed of a card by the name that CUDA reports."""
    return _by_device(name) is not None


def _by_device(name: str) -> Card | None:
    plain = _plain(name)
    known = sorted(CARDS, key=lambda each: -len(each.name))
    return next((each for each in known if _plain(each.name) in plain), None)


def usable(memory_gb: float) -> float:
    """Return the GiB that torch can allocate on a card sold with so many GB."""
    sold = {24: 22.5, 40: 39.4, 48: 44.4, 80: 79.1, 141: 139.8}
    return sold.get(round(memory_gb), memory_gb * _OVERHEAD)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
