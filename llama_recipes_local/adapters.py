"""Adapters: PEFT behind the two calls that upstream's ``main`` makes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
from torch import nn

from llama_recipes_local import run
from llama_recipes_local.models.loading import local_folder

_PEFT_CLASSES = {
    "lora": peft.LoraConfig,
    "llama_adapter": peft.AdaptionPromptConfig,
    "prefix": peft.PrefixTuningConfig,
}


def generate_peft_config(train_config: Any, kwargs: dict[str, Any]) -> peft.PeftConfig:
    """Return PEFT's configuration for ``train_config.peft_method`` and the flags in ``kwargs``.

    Raises:
        RuntimeError: if the method is unknown, or cannot be used with these settings.
    """
    method = train_config.peft_method
    if method not in _PEFT_CLASSES:
        raise RuntimeError(f"Peft config not found: {method}")
    reason = unsupported(method, train_config.enable_fsdp)
    if reason:
        raise RuntimeError(reason)
    config = run.PEFT_CONFIGS[method]()
    run.update_config(config, **kwargs)
    return _PEFT_CLASSES[method](**asdict(config))


def unsupported(method: str, enable_fsdp: bool) -> str | None:
    """Return why a method cannot be used, or None if it can."""
    if method == "prefix":
        return "prefix tuning is not supported (llama-recipes issue 359)"
    if method == "llama_adapter" and enable_fsdp:
        return "LLaMA-Adapter is not supported with FSDP (llama-recipes issue 359)"
    return None


def get_peft_model(model: nn.Module, peft_config: peft.PeftConfig) -> peft.PeftModel:
    """Put an adapter on ``model``, in float32; with ``pure_bf16`` in the weights' own dtype.

    Float32 keeps the small updates that bfloat16 rounds away; the adapter is still multiplied in
    the compute dtype, see ``models.precision``.
    """
    active = run.active()
    in_weights_dtype = active is not None and active.fsdp.pure_bf16
    return peft.get_peft_model(model, peft_config, autocast_adapter_dtype=not in_weights_dtype)


class _PeftConfigs(dict[str, peft.PeftConfig]):
    """The configurations by adapter name; ``main`` calls the attribute as if it were a method."""

    def __call__(self) -> "_PeftConfigs":
        return self


class PeftModel:
    """``peft.PeftModel`` from a local folder."""

    @staticmethod
    def from_pretrained(
        model: nn.Module, model_id: str | Path, is_trainable: bool = False, **kwargs: Any
    ) -> peft.PeftModel:
        """Put the adapter saved in the folder ``model_id`` on ``model``."""
        folder = str(local_folder(model_id))
        kwargs["local_files_only"] = True
        adapted = peft.PeftModel.from_pretrained(model, folder, is_trainable=is_trainable, **kwargs)
        adapted.peft_config = _PeftConfigs(adapted.peft_config)  # type: ignore[misc]
        return adapted
