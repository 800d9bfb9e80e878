"""A model's ``config.json``: read as JSON, or as transformers reads it."""

import json
from pathlib import Path
from typing import Any

import transformers

from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import describe_folder


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's ``config.json``; an empty dict if it cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def check_config(folder: Path, flag: str) -> None:
    """Refuse a folder without a configuration that transformers can read.

    Raises:
        UsageError: if there is no ``config.json``, or it is corrupt, or of an unknown model.
    """
    path = folder / "config.json"
    fix = f"name the folder of a model in the Hugging Face layout: {flag} DIR"
    if not path.is_file():
        what = f"{folder} has no config.json"
        raise UsageError([Problem(what, describe_folder(folder), fix)])
    try:
        if not isinstance(json.loads(path.read_text("utf-8")), dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise refusal(f"{path} cannot be read", str(error), fix) from error
    load_config(folder, fix)


def load_config(folder: Path, fix: str) -> transformers.PreTrainedConfig:
    """Return a model's configuration as transformers reads it.

    Args:
        folder: the folder with ``config.json``.
        fix: what the user can do if it cannot be read.

    Raises:
        UsageError: if it is missing or corrupt, or of an unknown model.
    """
    try:
        return transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises a different error for each field
        why = " ".join(str(error).split("\n\n")[0].split())
        raise refusal(f"{folder / 'config.json'} cannot be read", why, fix) from error
