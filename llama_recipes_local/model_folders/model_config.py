"""A model's ``config.json``: read as JSON, or as transformers reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from llama_recipes_local.configs.model_types import LLAMA
from llama_recipes_local.errors import Problem, UsageError, caught, door, refuse
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders.weight_files import in_meta_layout, meta_layout

# What other models' layers do and a Llama's do not, by its name in config.json, with the values
# that leave it out. transformers reads such a field and computes as if it was not there.
_OF_OTHERS: dict[str, tuple[object, ...]] = {
    "attn_logit_softcapping": (),
    "attention_multiplier": (),
    "clip_qkv": (),
    "embedding_multiplier": (1,),
    "final_logit_softcapping": (),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "num_local_experts": (0, 1),
    "partial_rotary_factor": (1,),
    "residual_multiplier": (1,),
    "use_qk_norm": (False,),
}


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's ``config.json``; an empty dict if it cannot be read."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def check_config(folder: Path, flag: str) -> None:
    """Refuse a folder without a configuration that transformers can read.

    Raises:
        UsageError: if there is no ``config.json``, or it is corrupt, or of an unknown model.
    """
    path = folder / "config.json"
    fix = f"name the folder of a model in the Hugging Face layout: {flag} DIR"
    if in_meta_layout(folder):
        raise UsageError([meta_layout(folder)])
    if not path.is_file():
        what = f"{folder} has no config.json"
        raise UsageError([Problem(what, describe_folder(folder), fix)])
    with door(f"{path} cannot be read", fix):
        if not isinstance(json.loads(path.read_text("utf-8")), dict):
            raise ValueError("it is not a JSON object")
    load_config(folder, fix)


def load_config(folder: Path, fix: str) -> transformers.PreTrainedConfig:
    """Return a model's configuration as transformers reads it.

    Args:
        folder: the folder with ``config.json``.
        fix: what the user can do if it cannot be read.

    Raises:
        UsageError: if it is missing or corrupt, or of an unknown model.
    """
    with door(f"{folder / 'config.json'} cannot be read", fix):
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        _check_numbers(config)
        written = read_config(folder)
        _check_rotary(getattr(config, "rope_parameters", None), written)
        if config.model_type == LLAMA:
            refuse(_check_layers(folder / "config.json", written))
        return config


def _check_layers(path: Path, written: Mapping[str, Any]) -> list[Problem]:
    """Find what a Llama's layers do not compute, although ``config.json`` says that they do."""
    off = {name: (None, *values) for name, values in _OF_OTHERS.items()}
    if written.get("use_sliding_window") is not False:
        # one of all positions leaves nothing out
        off["sliding_window"] = (None, 0, False, written.get("max_position_embeddings"))
    found = [f"{name} {written[name]!r:.40}" for name in off if written.get(name) not in off[name]]
    if not found:
        return []
    why = "a Llama's layers do not have it: without it the model computes something else"
    fix = "remove it from config.json if the model was trained without it, or name another model"
    return [Problem(f"{path} has {', '.join(found)}", why, fix)]


def _check_numbers(config: transformers.PreTrainedConfig) -> None:
    """Check numbers that transformers does not check, but fails or computes NaN with later.

    Raises:
        ValueError: if one is out of its range.
    """
    for name, low, high in (
        ("vocab_size", 1, 2**40),
        ("max_position_embeddings", 1, 2**40),
        ("rms_norm_eps", 0, 1),
        ("attention_dropout", 0, 1),
    ):
        value = getattr(config, name, low)
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not known or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}, and must be from {low} to {high}")
    _check_ids(config, getattr(config, "vocab_size", None))


def _check_rotary(rotary: Any, written: Mapping[str, Any]) -> None:
    """Check rotary settings that transformers would ignore, or of which it would use one of two.

    Args:
        rotary: the settings as transformers reads them; those of models with several kinds of
            layers are not checked.
        written: ``config.json``.

    Raises:
        ValueError: if it would compute something else than ``config.json`` says.
    """
    if not isinstance(rotary, dict) or "rope_type" not in rotary:
        return
    kind, factor = rotary["rope_type"], rotary.get("factor")
    for name, known, value in (
        ("type", kind, rotary.get("type", kind)),
        ("rope_theta", rotary.get("rope_theta"), written.get("rope_theta")),
    ):
        if value not in (None, known):
            raise ValueError(f"it has {name} {value!r} and {known!r} for the rotary embedding")
    _check_one_rotary(written.get("rope_scaling"), written.get("rope_parameters"))
    if factor is None:
        return
    if kind == "default":
        raise ValueError(f"its rotary scaling has the factor {factor!r}, and no rope_type")
    if not isinstance(factor, (int, float)) or factor < 1:
        raise ValueError(f"its rotary scaling has the factor {factor!r}, and must have 1 or more")


def _check_one_rotary(scaling: Any, parameters: Any) -> None:
    """Check that the old and the new name of rotary settings agree: transformers reads one.

    Raises:
        ValueError: if they do not.
    """
    if not isinstance(scaling, dict) or not isinstance(parameters, dict):
        return
    old, new = (
        {("rope_type" if name == "type" else name): value for name, value in each.items()}
        for each in (scaling, parameters)
    )
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            values = f"{old[name]!r} in rope_scaling and {new[name]!r} in rope_parameters"
            raise ValueError(f"it has {name} {values}")


def _check_ids(config: object, rows: Any) -> None:
    """Check that a model has rows for the tokens that its configuration names.

    Raises:
        ValueError: if one is not; a model would never stop at it.
    """
    known = type(rows) is int and rows > 0
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(config, name, None)
        least = -1 if name == "pad_token_id" else 0  # which the first Llamas have for none
        for each in value if isinstance(value, list) else [value]:
            if each is None:
                continue
            if type(each) is not int:
                raise ValueError(f"{name} is {value!r}, and must be the number of a token")
            if each < least or (known and each >= rows):
                wanted = f"from 0 to {rows - 1} (vocab_size)" if known else "0 or more"
                raise ValueError(f"{name} is {value!r}, and must be {wanted}")


def check_generation_config(folder: Path) -> list[Problem]:
    """Return a problem if a model has a ``generation_config.json`` that cannot be used."""
    path = folder / transformers.utils.GENERATION_CONFIG_NAME
    if not path.is_file():
        return []
    fix = "copy it again, or remove it: the defaults are used then"
    with caught() as problems, door(f"{path} cannot be read", fix):
        config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
        _check_ids(config, read_config(folder).get("vocab_size"))
    return problems
