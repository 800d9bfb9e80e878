"""transformers' loaders, from local folders only and with this run's dtype, kernel and device.

Each class below stands where ``finetuning.main`` and ``inference.model_utils`` import
transformers' class of the same name and call its ``from_pretrained``.
"""

from pathlib import Path
from typing import Any

import torch
import transformers

from llama_recipes_local import run
from llama_recipes_local.models import attention
from llama_recipes_local.models.fused import use_fused_kernels
from llama_recipes_local.models.precision import weight_dtype
from llama_recipes_local.parallel import device_type

attention.register()


def local_folder(name: str | Path) -> Path:
    """Return a model folder's absolute path.

    Raises:
        FileNotFoundError: if there is no such folder; nothing is ever fetched.
    """
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; models are loaded from local folders only")
    return folder


def _load(cls: Any, name: str | Path, *args: Any, **kwargs: Any) -> Any:
    kwargs.update(local_files_only=True, trust_remote_code=False)
    return cls.from_pretrained(local_folder(name), *args, **kwargs)


class AutoConfig:
    """``transformers.AutoConfig`` from a local folder."""

    @staticmethod
    def from_pretrained(name: str | Path, **kwargs: Any) -> transformers.PreTrainedConfig:
        """Read ``config.json`` of a local folder."""
        return _load(transformers.AutoConfig, name, **kwargs)


class LlamaConfig:
    """``transformers.LlamaConfig`` from a local folder."""

    @staticmethod
    def from_pretrained(name: str | Path, **kwargs: Any) -> transformers.LlamaConfig:
        """Read a Llama's ``config.json`` of a local folder."""
        return _load(transformers.LlamaConfig, name, **kwargs)


class AutoTokenizer:
    """``transformers.AutoTokenizer`` from a local folder."""

    @staticmethod
    def from_pretrained(name: str | Path, **kwargs: Any) -> transformers.PreTrainedTokenizerBase:
        """Load the tokenizer of a local folder."""
        return _load(transformers.AutoTokenizer, name, **kwargs)


def load_tokenizer(train_config: Any) -> transformers.PreTrainedTokenizerBase:
    """Load a run's tokenizer as ``main`` does."""
    folder = train_config.tokenizer_name or train_config.model_name
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.pad_token_id:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


class AutoProcessor:
    """``transformers.AutoProcessor`` from a local folder."""

    @staticmethod
    def from_pretrained(name: str | Path, **kwargs: Any) -> Any:
        """Load the processor of a vision model's local folder."""
        return _load(transformers.AutoProcessor, name, **kwargs)


def _load_weights(cls: Any, name: str | Path, best_kernel: str, **kwargs: Any) -> Any:
    """Load safetensors weights as the active run asks for, or as the caller does if there is none.

    Args:
        cls: the transformers class.
        name: the model's folder.
        best_kernel: the attention implementation that "auto" means for this class.
        **kwargs: what upstream passes; ``torch_dtype`` is transformers' old name for ``dtype``, and
            an option of None means that it was not chosen.
    """
    kwargs["dtype"] = kwargs.pop("torch_dtype", None)
    active = run.active()
    if active is not None:
        chosen = active.train.attn_implementation
        kwargs["attn_implementation"] = best_kernel if chosen == "auto" else chosen
        kwargs["dtype"] = weight_dtype(active.train)
        kwargs["use_cache"] = False
        if not active.train.enable_fsdp and device_type() == "cuda":
            kwargs["device_map"] = {"": torch.cuda.current_device()}
    options = {option: value for option, value in kwargs.items() if value is not None}
    return _load(cls, name, use_safetensors=True, **options)


class LlamaForCausalLM:
    """``transformers.LlamaForCausalLM`` from a local folder."""

    @staticmethod
    def from_pretrained(name: str | Path, **kwargs: Any) -> transformers.LlamaForCausalLM:
        """Load a Llama; with ``--freeze_layers`` its first layers come frozen.

        Upstream freezes layers with FSDP only, so it is done here for every run.
        """
        model = _load_weights(transformers.LlamaForCausalLM, name, attention.NAME, **kwargs)
        active = run.active()
        if active is None:
            return model
        if active.train.use_fast_kernels:
            use_fused_kernels(model)
        if active.train.freeze_layers and not active.train.use_peft:
            freeze_transformer_layers(model, active.train.num_freeze_layers)
        return model


class AutoModelForCausalLM:
    """``transformers.AutoModelForCausalLM`` from a local folder."""

    @staticmethod
    def from_pretrained(name: str | Path, **kwargs: Any) -> Any:
        """Load a causal language model."""
        return _load_weights(transformers.AutoModelForCausalLM, name, attention.NAME, **kwargs)


class MllamaForConditionalGeneration:
    """``transformers.MllamaForConditionalGeneration`` from a local folder."""

    @staticmethod
    def from_pretrained(name: str | Path, **kwargs: Any) -> Any:
        """Load a Llama vision model."""
        return _load_weights(transformers.MllamaForConditionalGeneration, name, "sdpa", **kwargs)


def freeze_transformer_layers(model: Any, num_layer: int) -> None:
    """Keep a Llama's first ``num_layer`` decoder layers as they are in training."""
    for layer in model.model.layers[:num_layer]:
        layer.requires_grad_(False)
