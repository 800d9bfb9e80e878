"""``wandb_config``: upstream's, with runs kept on this machine unless asked otherwise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_recipes_local._upstream import load

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.wandb import (
        wandb_config as _wandb_config,
    )
else:
    _wandb_config = load("configs.wandb").wandb_config


@dataclass
class wandb_config(_wandb_config):
    """What Weights & Biases is told. Fields that are not listed here are upstream's."""

    mode: str | None = "offline"
    """"offline", "online" or "disabled"."""
    id: str | None = None
    """A run of yours; without one, a new run, or the one that a resumed run began."""
    resume: str | None = None
    """What ``id`` means where there is such a run: "allow", "must" or "never"."""
