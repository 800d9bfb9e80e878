"""The settings of the stand-in; a change of any makes the existing one out of date."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StandInSettings:
    """Sizes and schedule, such that training and fine-tuning it take minutes on two cores."""

    vocabulary: int = 4096
    """Number of tokens, with the special ones; at least 259."""
    hidden_size: int = 192
    layers: int = 3
    heads: int = 3
    intermediate_size: int = 512
    positions: int = 4096
    """The longest sequence, in tokens: llama-recipes' default ``context_length``."""
    row_tokens: int = 512
    """Tokens in a packed row of pretraining."""
    batch_rows: int = 2
    steps: int = 480
    """Optimiser steps: a fixed number, so that the result is reproducible on a machine."""
    learning_rate: float = 2e-3
    seed: int = 0
