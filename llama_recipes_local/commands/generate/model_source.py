"""Finds what completes prompts: an adapter and its base model, or a whole model; its tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local import extras
from llama_recipes_local.checkpoints.layout import check_converted
from llama_recipes_local.configs import quantization_config
from llama_recipes_local.errors import Problem, UsageError, refuse
from llama_recipes_local.model_folders import (
    ADAPTER_WEIGHTS,
    StoredTensors,
    find_tokenizer,
    model_tensors,
    read_adapter_config,
    unnamed_base,
)
from llama_recipes_local.parallel import device_type
from llama_recipes_local.run.record import SavedRun


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What to load.

    Attributes:
        adapter: the folder that training saved; None means the model alone.
        model: the model's folder, under the adapter if there is one.
        tokenizer: the tokenizer's folder.
        dtype: what the weights are held in.
        quantization: "4bit", "8bit" or "none".
        run: what the run wrote about itself.
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

    def bitsandbytes(self) -> Any:
        """Return how bitsandbytes quantises the weights, as in training; None if it does not."""
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
) -> ModelSource:
    """Find what is to be loaded; no weight is read.

    Args:
        adapter: the folder that training saved; None means the model alone.
        model: the model's folder; None means the one that the adapter names.
        tokenizer: the tokenizer's folder; None means the one that training used, or the model's.
        dtype: what the weights are held in; None means bfloat16 on CUDA and float32 on the CPU.
        quantization: "4bit", "8bit" or "none"; None means as the adapter was trained.

    Raises:
        UsageError: if a folder is not what it should be.
    """
    adapter = adapter.expanduser().resolve() if adapter else None
    named = base_model(adapter) if adapter else None
    if model is None and named is None:
        raise UsageError([_unnamed(adapter)])
    model = Path(model or named or "").expanduser().resolve()
    if adapter and not (model / "config.json").is_file():
        raise UsageError([_no_base_model(model)])
    refuse(check_converted(model, "--model_name"))
    model_tensors(model, "--model_name")
    run = SavedRun(adapter or model)
    return ModelSource(
        adapter=adapter,
        model=model,
        tokenizer=find_tokenizer(tokenizer, model, run.fields("train_config"), adapter),
        dtype=dtype or (torch.bfloat16 if device_type() == "cuda" else torch.float32),
        quantization=_choose_quantization(quantization, run if adapter else None),
        run=run,
    )


def base_model(adapter: Path) -> Path | None:
    """Return the folder of the base model that an adapter names; None if it names none.

    Raises:
        UsageError: if the folder holds no adapter, or a damaged one.
    """
    fix = "name the --output_dir of a run with --use_peft, or a whole model: --model_name DIR"
    name = read_adapter_config(adapter, fix).get("base_model_name_or_path")
    StoredTensors([adapter / ADAPTER_WEIGHTS])
    return Path(str(name)) if name else None


def _choose_quantization(asked: str | None, run: SavedRun | None) -> str:
    trained = run.get("train_config", "quantization") if run else None
    # upstream's old name for 8 bits is True
    trained = "8bit" if trained is True else trained
    chosen = asked or trained or "none"
    if chosen != "none":
        extras.require("bitsandbytes", f"--quantization {chosen}", "quantization")
    return chosen


def _unnamed(adapter: Path | None) -> Problem:
    if adapter is None:
        fix = "name what training saved, --adapter DIR, or a whole model, --model_name DIR"
        return Problem("there is no model to load", "none was named", fix)
    return unnamed_base(adapter, "name the model's folder: --model_name DIR")


def _no_base_model(base: Path) -> Problem:
    return Problem(
        f"the base model is not in {base}",
        "an adapter is a small addition to the model it was trained on",
        "name the model's folder: --model_name DIR",
    )
