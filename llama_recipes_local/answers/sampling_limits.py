"""The allowed values of the sampling settings, for flags and for Python; imports no torch."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from llama_recipes_local.errors import Problem


class Limits(NamedTuple):
    """Numbers above ``above`` and at most ``most``, of type ``kind``."""

    kind: type[int] | type[float]
    above: float
    most: float


SAMPLING_LIMITS = {
    "max_new_tokens": Limits(int, 0, math.inf),
    "temperature": Limits(float, 0, math.inf),
    "top_p": Limits(float, 0, 1),
    "top_k": Limits(int, -1, math.inf),
    "num_return_sequences": Limits(int, 0, math.inf),
    "repetition_penalty": Limits(float, 0, math.inf),
    "seed": Limits(int, -(2**63) - 1, 2**63 - 1),
}


def sampling_problems(values: Mapping[str, object]) -> list[Problem]:
    """Return what is wrong with values that Python code passes, by the setting's name."""
    return [
        Problem(f"{name}={value!r}", *_why_and_fix(SAMPLING_LIMITS[name]))
        for name, value in values.items()
        if not _holds(value, SAMPLING_LIMITS[name])
    ]


def _holds(value: object, limits: Limits) -> bool:
    kinds = (int,) if limits.kind is int else (int, float)
    return type(value) in kinds and limits.above < value <= limits.most  # type: ignore[operator]


def _why_and_fix(limits: Limits) -> tuple[str, str]:
    if limits.kind is int:
        return "it is not a whole number that is possible here", f"give {limits.above + 1} or more"
    most = "" if limits.most == math.inf else f" and at most {limits.most}"
    return "it is not a number that is possible here", f"give a number above {limits.above}{most}"
