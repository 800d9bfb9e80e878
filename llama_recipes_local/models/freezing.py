"""Which weights of a model are trained when it has no adapter."""

import re
from typing import Any

LM_HEAD = "lm_head"
_LAST = re.compile(r"last:(\d+)")


def last_layers(choice: str) -> int | None:
    """Return the N of ``last:N``, or None for another choice."""
    found = _LAST.fullmatch(choice)
    return int(found[1]) if found else None


def freeze_all_but_chosen(model: Any, train_config: Any) -> None:
    """Freeze what ``freeze_layers``, ``train_only`` and ``top_layers`` leave out of training.

    Args:
        model: a Llama with its head.
        train_config: see ``configs.train_config``; none of the three trains every weight.
    """
    if train_config.freeze_layers:
        freeze_transformer_layers(model, train_config.num_freeze_layers)
    chosen = _chosen(model, train_config)
    if chosen:
        model.requires_grad_(False)
        for module in chosen:
            module.requires_grad_(True)


def _chosen(model: Any, train_config: Any) -> list[Any]:
    if train_config.top_layers:
        return [model.model.top_layers]
    if train_config.train_only == LM_HEAD:
        return [model.lm_head]
    last = last_layers(train_config.train_only)
    return list(model.model.layers[-last:]) if last else []


def freeze_transformer_layers(model: Any, num_layer: int) -> None:
    """Keep a Llama's first ``num_layer`` decoder layers as they are in training."""
    for layer in model.model.layers[:num_layer]:
        layer.requires_grad_(False)
