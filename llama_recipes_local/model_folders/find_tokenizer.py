"""Finds the tokenizer that goes with a model, for training saves none beside whole weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import refusal
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders.adapter_files import read_adapter_config
from llama_recipes_local.model_folders.auxiliary_files import TOKENIZERS, has_tokenizer
from llama_recipes_local.run.record import SavedRun


def find_tokenizer(
    named: Path | None, model: Path, trained: Mapping[str, Any], adapter: Path | None = None
) -> Path:
    """Return the first folder with a tokenizer of those that may have the one of training.

    Args:
        named: the folder that the user named, which alone counts then.
        model: the model's folder; the run that wrote it may have left a record there.
        trained: the ``tokenizer_name`` and ``model_name`` of the run whose result is used.
        adapter: the folder of the adapter on the model; the model that it names may have moved, and
            its tokenizer not.

    Raises:
        UsageError: if none has one.
    """
    places = [named] if named else _places(model, trained, adapter)
    for place in (Path(place).expanduser() for place in places if place):
        if has_tokenizer(place):
            return place.resolve()
    place = (named or model).expanduser().resolve()
    raise refusal(
        f"{place} has no tokenizer",
        f"{' or '.join(TOKENIZERS)} is needed; {describe_folder(place)}",
        "name the folder that has it: --tokenizer_name DIR",
    )


def _places(model: Path, trained: Mapping[str, Any], adapter: Path | None) -> list[Any]:
    before = SavedRun(model).fields("train_config")
    places = [adapter, trained.get("tokenizer_name"), model, trained.get("model_name")]
    places += [before.get("tokenizer_name"), before.get("model_name")]
    if adapter:
        places.append(str(read_adapter_config(adapter).get("base_model_name_or_path") or ""))
    return places
