"""Which part of a model is trained, according to ``--train_only``."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_recipes_local.configs.training import train_config

LM_HEAD = "lm_head"
_LAST = re.compile(r"last:(\d+)", re.ASCII)


def last_layers(choice: str) -> int | None:
    """Return the N of ``last:N``, or None for another choice."""
    found = _LAST.fullmatch(choice)
    return int(found[1]) if found else None


def trains_all(train: "train_config") -> bool:
    """Return whether all weights are trained, and none is frozen."""
    return not (train.use_peft or train.freeze_layers or train.train_only or train.top_layers)
