"""``wandb_config``: upstream's, with runs kept on this machine unless asked otherwise."""

from dataclasses import dataclass

from llama_recipes_local._upstream import load


@dataclass
class wandb_config(load("configs.wandb").wandb_config):  # type: ignore[misc]
    """What Weights & Biases is told. Fields that are not listed here are upstream's."""

    mode: str | None = "offline"
    """"offline", "online" or "disabled"."""
