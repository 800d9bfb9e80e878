"""Names what a model's and an adapter's configuration say that is not read."""

import dataclasses
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import one_line
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.adapter_files import ADAPTER_CONFIG, read_adapter_config
from llama_recipes_local.model_folders.model_config import read_config


def unread_keys(model: Path, adapter: Path | None = None) -> list[str]:
    """Return a line for each configuration with something that is not read.

    Args:
        model: a model's folder.
        adapter: an adapter's folder; None without one.

    Raises:
        UsageError: if the adapter's configuration cannot be read.
    """
    lines = []
    if read_config(model).get("auto_map"):
        lines.append("--> not run: code that the model's config.json names (auto_map); it never is")
    if adapter is not None and (unknown := _unknown(adapter)):
        named = one_line(join_names(unknown))
        lines.append(
            f"--> not read: {named} in {ADAPTER_CONFIG}: the installed PEFT has no such field"
        )
    return lines


def _unknown(adapter: Path) -> list[str]:
    """Return the keys that PEFT does not know; a newer PEFT writes those that are off, too."""
    import peft

    settings = read_adapter_config(adapter)
    named: Any = str(settings["peft_type"])  # a file may have a list there
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(named)
    if kind is None:
        return []
    known = {each.name for each in dataclasses.fields(kind)}
    return sorted(key for key, value in settings.items() if key not in known and value)
