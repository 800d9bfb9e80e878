"""What the stand-in is made of; a change of any setting makes the one in place stale."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StandInSettings:
    """Sizes and schedule, chosen so that making and fine-tuning it take minutes on two cores."""

    vocabulary: int = 4096
    """Tokens, special ones included; at least 259."""
    hidden_size: int = 192
    layers: int = 3
    heads: int = 3
    intermediate_size: int = 512
    positions: int = 4096
    """The longest sequence, in tokens: llama-recipes' default ``context_length``."""
    row_tokens: int = 512
    """Positions in a packed row of pretraining."""
    batch_rows: int = 2
    steps: int = 480
    """Optimiser steps: a fixed number, so that a machine makes the same weights every time."""
    learning_rate: float = 2e-3
    seed: int = 0
