"""The folder of a saved adapter, as PEFT lays it out."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from llama_recipes_local.errors import Problem, door, refuse
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders.linked_files import check_links

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# with LoRA on it, the embedding is in a layer of PEFT's
_EMBEDDING = re.compile(r"embed_tokens\.(base_layer\.)?weight$")


def check_adapter_files(folder: Path, flag: str, fix: str) -> list[Problem]:
    """Return a problem if a flag's folder holds no adapter, or links to files elsewhere."""
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    if not missing:
        return check_links(folder, [folder / ADAPTER_WEIGHTS])
    return [
        Problem(f"{flag} {folder} has no {' and no '.join(missing)}", describe_folder(folder), fix)
    ]


def check_no_adapter(folder: Path) -> list[Problem]:
    """Return a problem if an adapter lies in a model's folder: transformers would attach it."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return []
    names = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if (folder / name).is_file()]
    place = shlex.quote(str(folder))
    return [
        Problem(
            f"an adapter lies in the model's folder {folder}: {', '.join(names)}",
            "whether it belongs to the model or was merged into it cannot be told",
            f"move it away: cd {place} && mkdir adapter && mv {' '.join(names)} adapter; it is "
            "then used where it is named: --adapter, or --from_peft_checkpoint in training",
        )
    ]


def unnamed_base(adapter: Path, fix: str) -> Problem:
    """Return the problem with an adapter that does not name its base model."""
    why = f"base_model_name_or_path in its {ADAPTER_CONFIG} is empty"
    return Problem(f"--adapter {adapter} does not name its base model", why, fix)


def read_adapter_config(
    folder: Path, fix: str = "name the --output_dir of a run with --use_peft"
) -> dict[str, Any]:
    """Return an adapter's configuration, as JSON has it.

    Args:
        folder: the folder, absolute.
        fix: what the user can do if it holds no adapter.

    Raises:
        UsageError: if configuration or weights are missing, or the configuration is corrupt.
    """
    refuse(check_adapter_files(folder, "--adapter", fix))
    path = folder / ADAPTER_CONFIG
    with door(f"{path} is not a PEFT configuration", "copy the adapter again"):
        config = json.loads(path.read_text("utf-8"), parse_constant=_not_a_number)
        if not isinstance(config, dict) or "peft_type" not in config:
            raise ValueError("it has no peft_type")
    return config


def _not_a_number(text: str) -> None:
    raise ValueError(f"it has {text} for a number")


def trained_tokens(folder: Path) -> list[int]:
    """Return the tokens whose rows an adapter stores separately; none if it stores no such rows."""
    return tokens_of(_json(folder / ADAPTER_CONFIG).get("trainable_token_indices"))


def tokens_of(indices: object) -> list[int]:
    """Return the tokens of PEFT's ``trainable_token_indices``: a list, or one for each layer."""
    lists = indices.values() if isinstance(indices, dict) else [indices]
    found = [each for each in lists if isinstance(each, list)]
    return sorted({token for each in found for token in each if isinstance(token, int)})


def vocabulary_of_adapter(folder: Path) -> int | None:
    """Return how many rows an adapter's model must have; None if the adapter does not tell.

    It tells if it holds an embedding, or rows of single tokens, which may be new.
    """
    tokens = trained_tokens(folder)
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            names = [name for name in file.keys() if _EMBEDDING.search(name)]  # noqa: SIM118
            if names:
                return int(file.get_slice(names[0]).get_shape()[0])
    except (OSError, SafetensorError):
        return None
    return tokens[-1] + 1 if tokens else None


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty if it cannot be read, which a check reports."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
