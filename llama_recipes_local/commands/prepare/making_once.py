"""Decides whether a model that a command makes is already there and up to date."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import refusal


def missing_or_stale(
    folder: Path, record_name: str, files: Sequence[str], record: Mapping[str, Any]
) -> str | None:
    """Return why a model must be made, or None if the existing one is up to date.

    Args:
        folder: the model's.
        record_name: the file in it that says what it was made from.
        files: what else must be in it.
        record: what it would be made from now.

    Raises:
        UsageError: if the folder has something else.
    """
    if not folder.exists():
        return "it does not exist yet"
    try:
        found = dict(json.loads((folder / record_name).read_text("utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise refusal(
            f"{folder} exists and was not made by this command",
            f"{record_name} cannot be read in it: {error}",
            "name another folder: --out DIR",
        ) from error
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        return f"{', '.join(missing)} is missing"
    changed = [name for name in record if found.get(name) != record[name]]
    return f"{', '.join(changed)} changed" if changed else None
