"""transformers' loaders, from local folders only and with the run's dtype, kernel and device.

``finetuning.main`` and ``inference.model_utils`` import the classes below in place of transformers'
classes of the same names, and call their ``from_pretrained``.
"""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
import transformers

from llama_recipes_local import configs
from llama_recipes_local.configs.trained_part import trains_all
from llama_recipes_local.console import no_loading_bars
from llama_recipes_local.errors import refuse
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.kernels.registry import (
    choose_attention,
    install_model_kernels,
    register_attention,
)
from llama_recipes_local.model_folders.adapter_files import check_no_adapter
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.model_folders.stored_quantization import stored_quantization
from llama_recipes_local.models.deferred import load_deferred
from llama_recipes_local.models.embedding_rows import give_rows
from llama_recipes_local.models.folder_checks import check_loaded
from llama_recipes_local.models.freezing import freeze_all_but_chosen
from llama_recipes_local.models.precision import keep_frequencies, weight_dtype
from llama_recipes_local.models.quantization import (
    bnb_config,
    compute_plainly,
    keep_packing,
    reading_config,
)
from llama_recipes_local.models.tokenizer_rules import has_pieces_only, restore_rules
from llama_recipes_local.models.top_layers import LlamaWithTopLayersForCausalLM, zero_top_layers
from llama_recipes_local.models.weight_values import check_all
from llama_recipes_local.parallel import device_type
from llama_recipes_local.run import Run, active_run
from llama_recipes_local.run.weight_bits import quantized_bits

if TYPE_CHECKING:
    from llama_recipes_local.models.new_tokens import NewTokens

Loaded = TypeVar("Loaded")

register_attention()


def local_folder(name: str | Path) -> Path:
    """Return a model folder's absolute path.

    Raises:
        FileNotFoundError: if it is not a folder; nothing is ever fetched.
    """
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; models are loaded from local folders only"
        )
    return folder


def _load(cls: Any, name: str | Path, **kwargs: object) -> Any:
    kwargs.update(local_files_only=True, trust_remote_code=False)
    active = active_run()
    verbose = active is not None and active.train.verbose
    with contextlib.nullcontext() if verbose else no_loading_bars():
        return cls.from_pretrained(local_folder(name), **kwargs)


class _InstancesOfTransformers(type):
    """Makes transformers' objects instances of the classes below, for ``isinstance``."""

    instances: type

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.instances)


class _FromLocalFolder(Generic[Loaded], metaclass=_InstancesOfTransformers):
    """Loads the same as transformers' class of this name, from local folders only.

    A subclass names that class as ``loader``, and as ``instances`` the class of the loaded objects,
    if it is another one.
    """

    loader: ClassVar[Any]

    def __init_subclass__(cls, loader: type, instances: type | None = None) -> None:
        super().__init_subclass__()
        cls.loader = loader
        cls.instances = instances or loader

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: object) -> Loaded:
        """Load from the folder ``name``; ``kwargs`` are transformers' own.

        Raises:
            FileNotFoundError: if there is no such folder.
        """
        return _load(cls.loader, name, **kwargs)


class AutoConfig(
    _FromLocalFolder[transformers.PreTrainedConfig],
    loader=transformers.AutoConfig,
    instances=transformers.PreTrainedConfig,
):
    """``transformers.AutoConfig`` from a local folder."""


class LlamaConfig(_FromLocalFolder[transformers.LlamaConfig], loader=transformers.LlamaConfig):
    """``transformers.LlamaConfig`` from a local folder."""


class AutoTokenizer(
    _FromLocalFolder[transformers.PreTrainedTokenizerBase],
    loader=transformers.AutoTokenizer,
    instances=transformers.PreTrainedTokenizerBase,
):
    """``transformers.AutoTokenizer`` from a local folder, with the folder's own rules."""

    @classmethod
    def from_pretrained(
        cls, name: str | Path, **kwargs: object
    ) -> transformers.PreTrainedTokenizerBase:
        """Load from the folder ``name``; ``kwargs`` are transformers' own.

        In a run, the tokenizer that was loaded for the data is returned.

        Raises:
            FileNotFoundError: if there is no such folder.
        """
        active = active_run()
        if active is not None and not kwargs and _has_tokenizer_of(active, name):
            tokenizer = active.tokenizer
        else:
            tokenizer = cls._load_anew(name, **kwargs)
        if active is not None and active.data is not None:
            pad_with_a_row(tokenizer, active.data.new_tokens)
        return tokenizer

    @classmethod
    def _load_anew(cls, name: str | Path, **kwargs: object) -> transformers.PreTrainedTokenizerBase:
        tokenizer = super().from_pretrained(name, **kwargs)
        if isinstance(tokenizer, transformers.CodeLlamaTokenizer):
            # a place for an infilling, which transformers 5 makes a token beyond the model's rows
            tokenizer = super().from_pretrained(name, **{"fill_token": None, **kwargs})
        if has_pieces_only(tokenizer, local_folder(name)):
            # its begin token, and a space before each part of a text, as in tokenizer.json
            rules = {"legacy": True, "add_bos_token": True}
            tokenizer = _load(transformers.LlamaTokenizer, name, **{**rules, **kwargs})
        restore_rules(tokenizer, local_folder(name))
        return tokenizer


def _has_tokenizer_of(run: Run, name: str | Path) -> bool:
    own = run.train.tokenizer_name or run.train.model_name
    return run.tokenizer is not None and local_folder(name) == local_folder(own)


def pad_with_a_row(tokenizer: Any, new: "NewTokens | None") -> None:
    """Pad with another token if the model has no row for the tokenizer's; both are masked."""
    if new is None or tokenizer.pad_token_id is None or new.has_row(tokenizer.pad_token_id):
        return
    end = tokenizer.eos_token_id
    tokenizer.pad_token_id = end if end is not None and new.has_row(end) else 0


class AutoProcessor(
    _FromLocalFolder[transformers.ProcessorMixin],
    loader=transformers.AutoProcessor,
    instances=transformers.ProcessorMixin,
):
    """``transformers.AutoProcessor`` from a vision model's local folder."""


def load_tokenizer(train_config: configs.train_config) -> transformers.PreTrainedTokenizerBase:
    """Load a run's tokenizer as ``main`` does."""
    folder = train_config.tokenizer_name or train_config.model_name
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.pad_token_id:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def run_tokenizer(run: Run) -> transformers.PreTrainedTokenizerBase:
    """Return the tokenizer that a run's data is checked and prepared with, loaded once."""
    if run.tokenizer is None:
        run.tokenizer = load_tokenizer(run.train)
    tokenizer: transformers.PreTrainedTokenizerBase = run.tokenizer
    return tokenizer


def _load_weights(cls: Any, name: str | Path, model_type: str, **kwargs: object) -> Any:
    """Load safetensors weights as the active run specifies; without one, as the caller does.

    Args:
        cls: the transformers class.
        name: the model's folder.
        model_type: as in ``config.json``, for "auto" to choose the attention by.
        **kwargs: upstream's arguments; ``torch_dtype`` is transformers' old name for ``dtype``, and
            None means not specified.
    """
    folder = local_folder(name)
    refuse(check_no_adapter(folder))
    old_name = kwargs.pop("torch_dtype", None)
    kwargs["dtype"] = kwargs.get("dtype", old_name)
    active = active_run()
    if active is not None:
        asked = active.train.attn_implementation
        kwargs["attn_implementation"] = choose_attention(asked, model_type)
        kwargs["dtype"] = weight_dtype(active.train)
        kwargs["use_cache"] = False
        kwargs["quantization_config"] = bnb_config(active)
        kept_in_fp8 = active.train.fp8 and not trains_all(active.train)
        quantizes = quantized_bits(active.train) or kept_in_fp8
        on_device = quantizes or not active.train.enable_fsdp
        cuda = device_type() == "cuda" and on_device
        kwargs["device_map"] = {"": torch.cuda.current_device()} if cuda else None
    stored = stored_quantization(folder, read_config(folder))
    if stored is not None:
        kwargs["quantization_config"] = reading_config(stored)
    options = {option: value for option, value in kwargs.items() if value is not None}
    if active is not None and active.train.low_cpu_fsdp:
        del options["dtype"]
        # with pure_bf16 main casts to bfloat16, which would take the weights' memory
        dtype = torch.bfloat16 if active.fsdp.pure_bf16 else weight_dtype(active.train)
        model = load_deferred(cls, folder, dtype, **options)
    else:
        model, report = _load(cls, name, use_safetensors=True, output_loading_info=True, **options)
        refuse(check_loaded(folder, report, new="model.top_layers."))
        refuse(check_all(folder, model.named_parameters()))
        keep_packing(model)
        compute_plainly(model)
    keep_frequencies(model)
    return model


class LlamaForCausalLM(
    _FromLocalFolder[transformers.LlamaForCausalLM], loader=transformers.LlamaForCausalLM
):
    """``transformers.LlamaForCausalLM`` from a local folder."""

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: object) -> transformers.LlamaForCausalLM:
        """Load a Llama, with top layers if it was saved with some or the run adds some.

        Without an adapter, only the weights that the run trains require a gradient. Upstream
        freezes layers only with FSDP; here it is done for every run. New tokens get their rows.
        """
        active = active_run()
        if active is None:
            return _load_weights(_llama_class(name), name, "llama", **kwargs)
        if active.train.top_layers:
            model = _with_top_layers(name, active.train.top_layers, **kwargs)
            if not active.fsdp.pure_bf16:
                model.model.top_layers.float()
        else:
            model = _load_weights(_llama_class(name), name, "llama", **kwargs)
        give_rows(model, active)
        if not active.train.use_peft:
            freeze_all_but_chosen(model, active.train)
        if active.train.fp8:
            keep_in_fp8(model, adapted=active.train.use_peft)
        install_model_kernels(model, active.train)
        return model


def _with_top_layers(name: str | Path, number: int, **kwargs: object) -> Any:
    """Load a Llama with its top layers, or with new ones if it has none."""
    cls = LlamaWithTopLayersForCausalLM
    model = _load_weights(cls, name, "llama", top_layers=number, **kwargs)
    if not top_layers_in(name):
        zero_top_layers(model)
        print(f"--> New layers between the last hidden state and the head: {number}")
    return model


def _llama_class(folder: str | Path) -> type[transformers.LlamaForCausalLM]:
    """Return the class of a folder's Llama."""
    has_some = top_layers_in(folder)
    return LlamaWithTopLayersForCausalLM if has_some else transformers.LlamaForCausalLM


def top_layers_in(folder: str | Path) -> int:
    """Return the number of top layers in a model's folder."""
    config = json.loads((local_folder(folder) / "config.json").read_text("utf-8"))
    return int(config.get("top_layers", 0))


class AutoModelForCausalLM(
    _FromLocalFolder[Any],
    loader=transformers.AutoModelForCausalLM,
    instances=transformers.PreTrainedModel,
):
    """``transformers.AutoModelForCausalLM`` from a local folder."""

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: object) -> Any:
        """Load a causal language model, with its top layers if it was saved with some."""
        loader = LlamaWithTopLayersForCausalLM if top_layers_in(name) else cls.loader
        return _load_weights(loader, name, "llama", **kwargs)


class MllamaForConditionalGeneration(
    _FromLocalFolder[transformers.MllamaForConditionalGeneration],
    loader=transformers.MllamaForConditionalGeneration,
):
    """``transformers.MllamaForConditionalGeneration`` from a local folder."""

    @classmethod
    def from_pretrained(
        cls, name: str | Path, **kwargs: Any
    ) -> transformers.MllamaForConditionalGeneration:
        """Load a Llama vision model."""
        return _load_weights(cls.loader, name, "mllama", **kwargs)
