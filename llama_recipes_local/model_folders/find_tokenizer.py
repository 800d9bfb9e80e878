"""Finds the tokenizer of a trained model: adapters and sharded checkpoints contain none."""

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
    """Return the first folder with a tokenizer among those where the run's may be.

    Args:
        named: the folder that the user named; if given, no other is searched.
        model: the model's folder; the run that wrote it may have left a record there.
        trained: the ``tokenizer_name`` and ``model_name`` of the run whose result is used.
        adapter: the folder of the adapter on the model; it names its base model, which may have
            moved without its tokenizer.

    Raises:
        UsageError: if there is none.
    """
    places = [named] if named else _places(model, trained, adapter)
    for place in (_expanded(place) for place in places if place):
        if has_tokenizer(place):
            return place.resolve()
    place = (named or model).expanduser().resolve()
    raise refusal(
        f"{place} has no tokenizer",
        f"{' or '.join(TOKENIZERS)} is needed; {describe_folder(place)}",
        "name the folder that has it: --tokenizer_name DIR",
    )


def _expanded(place: str | Path) -> Path:
    try:
        return Path(place).expanduser()
    except RuntimeError:  # of a user who is not on this machine
        return Path(place)


def _places(model: Path, trained: Mapping[str, Any], adapter: Path | None) -> list[Any]:
    before = SavedRun(model).fields("train_config")
    places = [adapter, trained.get("tokenizer_name"), model, trained.get("model_name")]
    places += [before.get("tokenizer_name"), before.get("model_name")]
    if adapter:
        places.append(str(read_adapter_config(adapter).get("base_model_name_or_path") or ""))
    return places
