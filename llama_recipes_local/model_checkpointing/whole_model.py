"""Writes a fully trained model as a folder that plain transformers loads and serves."""

import json
from pathlib import Path
from typing import Any

import transformers

from llama_recipes_local import configs
from llama_recipes_local.console import no_loading_bars
from llama_recipes_local.model_folders.auxiliary_files import copy_auxiliary_files, has_tokenizer
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.model_folders.save import write_config
from llama_recipes_local.storage.publishing import write_json


def write_whole_model(
    model: transformers.PreTrainedModel,
    folder: Path,
    config: configs.train_config | None,
    **options: Any,  # save_pretrained's own
) -> None:
    """Write weights, configuration, and all that belongs to them.

    Tokenizer, chat template, generation configuration and licence are those that the run was given.
    ``use_cache`` is the base model's: training switches it off, and generation would be slow.

    Args:
        model: the trained model.
        folder: where to write.
        config: names the folders of the base model and the tokenizer; None in a script, whose
            model may come from anywhere.
        **options: for ``save_pretrained``: the gathered weights of a sharded model.
    """
    with no_loading_bars():
        model.save_pretrained(folder, **options)
    if config is None or not (Path(config.model_name).expanduser() / "config.json").is_file():
        return
    base = Path(config.model_name).expanduser().resolve()
    tokenizer = Path(config.tokenizer_name or base).expanduser().resolve()
    copy_auxiliary_files(base, folder, tokenizer if has_tokenizer(tokenizer) else base)
    restore_use_cache(folder, base)


def restore_use_cache(folder: Path, base: Path) -> None:
    """Give a saved model the ``use_cache`` of its base model."""
    use_cache = read_config(base).get("use_cache", True)
    write_config(folder, folder, use_cache=use_cache)
    generation = folder / transformers.utils.GENERATION_CONFIG_NAME
    if generation.is_file() and not (base / generation.name).is_file():
        write_json(generation, json.loads(generation.read_text("utf-8")) | {"use_cache": use_cache})
