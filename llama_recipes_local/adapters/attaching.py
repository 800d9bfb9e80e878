"""Puts adapters on models: the calls that upstream's ``main`` makes, with PEFT behind them."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils import load_peft_weights, set_peft_model_state_dict
from torch import nn

from llama_recipes_local import configs
from llama_recipes_local.adapters.base import EMBEDDING, HEAD
from llama_recipes_local.adapters.registry import METHODS, method_of
from llama_recipes_local.field_values import update_config
from llama_recipes_local.kernels.registry import print_fallbacks
from llama_recipes_local.model_folders.base_record import compare_base
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.models.loading import local_folder
from llama_recipes_local.run import active_run


def generate_peft_config(
    train_config: configs.train_config, kwargs: dict[str, Any]
) -> peft.PeftConfig:
    """Return PEFT's configuration for ``train_config.peft_method`` and the flags in ``kwargs``.

    Raises:
        RuntimeError: if the method is unknown.
    """
    name = train_config.peft_method
    if name not in METHODS:
        raise RuntimeError(f"Peft config not found: {name}")
    method = METHODS[name]
    config = method.config()
    update_config(config, **kwargs)
    settings = asdict(config)
    if train_config.train_new_tokens:
        settings["trainable_token_indices"] = _trainable_tokens(train_config)
    made = method.peft_config or peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.peft_type)]
    return made(**settings)


def _trainable_tokens(train_config: configs.train_config) -> dict[str, list[int]] | list[int]:
    """Return PEFT's setting for the rows of new tokens, also of a head that is not tied."""
    active = active_run()
    new = active.data.new_tokens if active is not None and active.data is not None else None
    ids = list(new.trained) if new is not None else []
    tied = read_config(Path(train_config.model_name).expanduser()).get("tie_word_embeddings")
    return ids if tied else {EMBEDDING: ids, HEAD: ids}


def get_peft_model(model: nn.Module, peft_config: peft.PeftConfig) -> peft.PeftModel:
    """Put a new adapter on ``model``, to be trained.

    Its weights are in float32, which keeps small updates that bfloat16 would round away; with
    ``pure_bf16`` they are in the dtype of the model's weights. In both cases products are computed
    in the compute dtype, see ``models.precision``.
    """
    adapted = peft.get_peft_model(model, peft_config)
    method = method_of(adapted)
    if method is not None:
        method.prepare(adapted)
    return _for_training(adapted)


def _for_training(adapted: peft.PeftModel) -> peft.PeftModel:
    """Give the adapter its dtype, and replace PEFT's computation by this package's."""
    active = active_run()
    base: Any = adapted.get_base_model()
    pure = active is not None and active.fsdp.pure_bf16
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(base.dtype if pure else torch.float32)
    method = method_of(adapted)
    if method is not None:
        method.install(adapted)
    adapted.print_trainable_parameters = partial(_print_trained, adapted)  # type: ignore[method-assign]
    if active is not None:
        print_fallbacks(adapted, active.train)
    return adapted


def _print_trained(adapted: peft.PeftModel) -> None:
    """Print how many parameters are trained; ``main`` calls this on an adapted model."""
    trained, every = adapted.get_nb_trainable_parameters()
    print(f"--> Trained: {trained:,} of {every:,} parameters ({trained / every:.2%})")


class _PeftConfigs(dict[str, peft.PeftConfig]):
    """The configurations by adapter name; callable, because ``main`` calls the attribute."""

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
        config = peft.PeftConfig.from_pretrained(folder, local_files_only=True)
        if is_trainable:
            _tell_base(Path(folder))
        if is_trainable and config.is_prompt_learning:
            adapted = _prompts_to_train(model, config, folder)
        else:
            kwargs["local_files_only"] = True
            adapted = peft.PeftModel.from_pretrained(
                model, folder, is_trainable=is_trainable, **kwargs
            )
        if is_trainable:  # what is saved names the model of this run, not one that has moved
            base: Any = adapted.get_base_model()
            adapted.active_peft_config.base_model_name_or_path = base.name_or_path
        adapted.peft_config = _PeftConfigs(adapted.peft_config)  # type: ignore[misc]
        return _for_training(adapted) if is_trainable else adapted


def _tell_base(adapter: Path) -> None:
    """Print how the active run's model differs in form from the adapter's base model."""
    active = active_run()
    if active is None:
        return
    base = Path(active.train.model_name).expanduser().resolve()
    note = compare_base(adapter, base, "--model_name", active.train.allow_other_base).note
    if note:
        print(f"--> {note}")


def _prompts_to_train(model: nn.Module, config: peft.PeftConfig, folder: str) -> peft.PeftModel:
    """Load learned prompts, such as a prefix, for further training, which PEFT refuses."""
    config.inference_mode = False
    config.base_model_name_or_path = None  # the model's own; PEFT warns where the base has moved
    adapted = peft.get_peft_model(model, config)
    set_peft_model_state_dict(adapted, load_peft_weights(folder, device="cpu"))
    return adapted
