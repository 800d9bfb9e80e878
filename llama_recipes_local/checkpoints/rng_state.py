"""A process's RNG state: Python's, numpy's, torch's on CPU and on CUDA."""

import base64
import random
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import numpy as np
import torch


def state_dict() -> dict[str, Any]:
    """Return the RNG state as JSON-ready data; of CUDA devices, the current one's."""
    version, numbers, gauss = random.getstate()
    kind, keys, *place = np.random.get_state(legacy=True)
    found: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *place],
        "torch": _text(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        found["cuda"] = _text(torch.cuda.get_rng_state())
    return found


def load_state_dict(found: dict[str, Any]) -> None:
    """Set the RNG states that ``state_dict`` returned; CUDA's where both have it."""
    version, numbers, gauss = found["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = found["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_tensor(found["torch"]))
    if "cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(found["cuda"]))


def check(found: dict[str, Any]) -> None:
    """Check an RNG state by loading it into generators that nothing else uses.

    Raises:
        Exception: of any kind, if it is not a state that ``state_dict`` returns.
    """
    version, numbers, gauss = found["python"]
    kind, keys, place, has_gauss, cached = found["numpy"]
    for words, last in ((numbers[:-1], numbers[-1]), (keys, place)):
        in_range = all(type(word) is int and 0 <= word < 2**32 for word in words)
        if not in_range or type(last) is not int or not 0 <= last <= len(words) == 624:
            raise ValueError("the words of a generator")
    drawn = [cached, 0.0 if gauss is None else gauss]
    if has_gauss not in (0, 1) or not all(type(x) is float and isfinite(x) for x in drawn):
        raise ValueError("a normal number that was drawn ahead")
    random.Random().setstate((version, tuple(numbers), gauss))
    np.random.RandomState().set_state((kind, np.array(keys, np.uint32), place, has_gauss, cached))
    torch.Generator().set_state(_tensor(found["torch"]))
    if "cuda" in found and torch.cuda.is_available():
        torch.Generator("cuda").set_state(_tensor(found["cuda"]))


def seed_all(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def fork_rng(seed: int | None = None) -> Iterator[None]:
    """Restore the RNG state when the block is left.

    Args:
        seed: of torch's generator on CPU inside the block; None keeps its state.
    """
    before = state_dict()
    try:
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield
    finally:
        load_state_dict(before)


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
