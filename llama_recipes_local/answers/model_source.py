"""Finds the model that completes prompts, an adapter with its base or a full model."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig

from llama_recipes_local import extras
from llama_recipes_local.adapters.unread_keys import unread_keys
from llama_recipes_local.checkpoints.layout import check_converted
from llama_recipes_local.configs import quantization_config
from llama_recipes_local.errors import Problem, UsageError, refuse
from llama_recipes_local.model_folders.adapter_files import (
    ADAPTER_WEIGHTS,
    read_adapter_config,
    unnamed_base,
)
from llama_recipes_local.model_folders.architectures import check_architecture
from llama_recipes_local.model_folders.base_record import compare_base
from llama_recipes_local.model_folders.find_tokenizer import find_tokenizer
from llama_recipes_local.model_folders.model_config import check_config, check_generation_config
from llama_recipes_local.model_folders.tensors import StoredTensors
from llama_recipes_local.models.folder_checks import check_stored_model
from llama_recipes_local.models.weight_values import check_adapter_values
from llama_recipes_local.parallel import device_type
from llama_recipes_local.run.record import (
    CONFIGURATION_FILE,
    CUSTODY_FILE,
    SavedRun,
    find_in_run,
)


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What to load.

    Attributes:
        adapter: folder of the saved adapter; None for a full model.
        model: folder of the model, or of the adapter's base model.
        tokenizer: the tokenizer's folder.
        dtype: dtype of the weights.
        quantization: "4bit", "8bit" or "none".
        run: the record of the run that saved the adapter or model.
    """

    adapter: Path | None
    model: Path
    tokenizer: Path
    dtype: torch.dtype
    quantization: str
    run: SavedRun

    @property
    def folder(self) -> Path:
        """The folder that training saved."""
        return self.adapter or self.model

    @property
    def brought_tokenizer(self) -> bool:
        """Whether another program saved an adapter with the tokenizer that it was trained with."""
        own = (CONFIGURATION_FILE, CUSTODY_FILE)
        return self.tokenizer == self.adapter and not any(
            find_in_run(self.folder, name) for name in own
        )

    def bitsandbytes(self) -> BitsAndBytesConfig | None:
        """Return how bitsandbytes quantises the weights, as in training; None if not at all."""
        if self.quantization == "none":
            return None
        config = quantization_config()
        for name in ("quant_type", "use_double_quant"):
            trained = self.run.get("quantization_config", name, getattr(config, name))
            setattr(config, name, trained)
        return config.create_bnb_config(self.quantization)


def find_source(
    adapter: Path | None = None,
    model: Path | None = None,
    tokenizer: Path | None = None,
    dtype: torch.dtype | None = None,
    quantization: str | None = None,
    allow_other_base: bool = False,
) -> ModelSource:
    """Find what to load; no weight is read.

    Args:
        adapter: folder of a saved adapter; None for a full model.
        model: the model's folder; None means the one that the adapter names.
        tokenizer: the tokenizer's folder; None means the one used in training, or the model's.
        dtype: dtype of the weights; None means bfloat16 on CUDA and float32 on the CPU.
        quantization: "4bit", "8bit" or "none"; None means as the adapter was trained.
        allow_other_base: whether the base model may be another than the adapter was trained on.

    Raises:
        UsageError: if a folder is missing or not what it should be.
    """
    adapter = adapter.expanduser().resolve() if adapter else None
    named = base_model(adapter) if adapter else None
    if model is None and named is None:
        raise UsageError([_unnamed(adapter)])
    model = Path(model or named or "").expanduser().resolve()
    _check_model(model, is_base=adapter is not None)
    if adapter:
        refuse(check_adapter_values(adapter))
        compared = compare_base(adapter, model, "--model_name", allow_other_base)
        refuse(compared.problems)
        if compared.note:
            print(f"--> {compared.note}", file=sys.stderr)
    for line in unread_keys(model, adapter):
        print(line, file=sys.stderr)
    run = SavedRun(adapter or model)
    return ModelSource(
        adapter=adapter,
        model=model,
        tokenizer=find_tokenizer(tokenizer, model, run.fields("train_config"), adapter),
        dtype=dtype or (torch.bfloat16 if device_type() == "cuda" else torch.float32),
        quantization=_choose_quantization(quantization, run if adapter else None),
        run=run,
    )


def _check_model(model: Path, is_base: bool) -> None:
    """Check a model's folder without reading its weights.

    Args:
        model: the folder.
        is_base: whether it is the base of an adapter.

    Raises:
        UsageError: if the model cannot be loaded from it.
    """
    refuse(check_architecture(model, "--model_name"))
    has_config = (model / "config.json").is_file()
    if is_base and not has_config:
        raise UsageError([_no_base_model(model)])
    refuse(check_converted(model, "--model_name"))
    refuse(check_stored_model(model) if has_config else [])
    check_config(model, "--model_name")
    refuse(check_generation_config(model))


def base_model(adapter: Path) -> Path | None:
    """Return the folder of the base model that an adapter names; None if it names none.

    Raises:
        UsageError: if the folder has no adapter, or a corrupt one.
    """
    fix = "name the --output_dir of a run with --use_peft, or a full model: --model_name DIR"
    name = read_adapter_config(adapter, fix).get("base_model_name_or_path")
    StoredTensors([adapter / ADAPTER_WEIGHTS])
    return Path(str(name)) if name else None


def _choose_quantization(asked: str | None, run: SavedRun | None) -> str:
    trained = run.get("train_config", "quantization") if run else None
    # upstream's older value for 8 bits is True
    trained = "8bit" if trained is True else trained
    chosen = asked or trained or "none"
    if chosen != "none":
        what = f"--quantization {chosen}"
        if asked is None and run is not None:
            what = f"an adapter trained on {chosen} weights (by {run.path})"
        extras.require("bitsandbytes", what, "quantization")
    return chosen


def _unnamed(adapter: Path | None) -> Problem:
    if adapter is None:
        fix = "name a saved adapter, --adapter DIR, or a full model, --model_name DIR"
        return Problem("no model to load", "neither an adapter nor a model was named", fix)
    return unnamed_base(adapter, "name the model's folder: --model_name DIR")


def _no_base_model(base: Path) -> Problem:
    return Problem(
        f"the base model is not in {base}",
        "an adapter needs the model that it was trained on",
        "name the model's folder: --model_name DIR",
    )
