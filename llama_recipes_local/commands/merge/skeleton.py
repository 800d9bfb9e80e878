"""The adapted model without weights, to see which layers are adapted, and by which tensors."""

import copy
from collections.abc import Container
from typing import Any

import peft
import transformers
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from llama_recipes_local.adapters.compatibility import PEFT_PREFIX, adapt_empty, base_name, is_copy
from llama_recipes_local.commands.merge.adapter import Adapter, use_unmerged
from llama_recipes_local.errors import Problem, UsageError, door, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.adapter_files import ADAPTER_CONFIG, vocabulary_of_adapter
from llama_recipes_local.models.deferred import empty_model, weight_name


class Skeleton:
    """An adapted model on the meta device.

    Attributes:
        tied: whether the base model's head is its embedding, as PEFT is told.
        model: the model with PEFT's layers.
        parameters: its parameters by name, all on the meta device; one that is shared has each of
            its names.
        shapes: the shapes of the base model's own tensors, by the names that its files give them.
        bases: the parameters by the names of the base model's own tensors.
        sources: the name of the adapter's tensor for each parameter that has one.
        embedding: the embedding's name in the base model's files.
        head: the head's.
        linears: the weights that bitsandbytes quantises: all of torch's linear layers but the head.
        vocabulary: rows of the embedding.
        grows: whether the base model has fewer.
    """

    def __init__(
        self, config: transformers.PreTrainedConfig, adapter: Adapter, stored: Container[str]
    ) -> None:
        """Build the model that the adapter was trained on, with the adapter's vocabulary.

        Args:
            config: the base model's.
            adapter: the adapter.
            stored: the names of the base model's tensors; a tied head is not among them.

        Raises:
            UsageError: if the adapter's tensors do not match this model.
        """
        plain = empty_model(config)
        self.embedding = weight_name(plain, plain.get_input_embeddings())
        self.head = weight_name(plain, plain.get_output_embeddings())
        self.tied = bool(config.tie_word_embeddings) and self.head not in stored
        self.vocabulary = max(vocabulary_of_adapter(adapter.folder) or 0, config.vocab_size)
        self.grows = self.vocabulary > config.vocab_size
        if self.tied or self.vocabulary != config.vocab_size:
            plain = empty_model(config, self.vocabulary, self.tied)
        # not the new layers on top, which have another class
        linears = (module for module in plain.modules() if type(module) is nn.Linear)
        self.linears = {weight_name(plain, module) for module in linears} - {self.head}
        self.shapes = {name: tensor.shape for name, tensor in _all_parameters(plain).items()}
        self.model = _adapted(plain, adapter)
        self.parameters = _all_parameters(self.model)
        named = {base_name(name): name for name in self.parameters}
        self.bases = {name: named[name] for name in self.shapes}
        self.sources = self._find_sources(adapter)
        self._layers = {
            name.removeprefix(PEFT_PREFIX)
            for name, module in self.model.named_modules()
            if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
        }
        self._check_biases(adapter)

    def _check_biases(self, adapter: Adapter) -> None:
        """Refuse trained biases of LoRA on layers without a bias to add them to."""
        if not adapter.config.lora_bias:
            return
        without = [
            path
            for path in sorted(self._layers)
            if isinstance(layer := self.model.get_submodule(PEFT_PREFIX + path), LoraLayer)
            and getattr(layer.get_base_layer(), "bias", None) is None
        ]
        if without:
            raise refusal(
                f"--adapter {adapter.folder} has lora_bias, which cannot be merged into this model",
                f"these layers have no bias to add it to: {join_names(without)}",
                use_unmerged(adapter.folder),
            )

    def _find_sources(self, adapter: Adapter) -> dict[str, str]:
        """Return the name of the adapter's tensor for each parameter that has one.

        In addition to PEFT's own, an adapter may have replacements of the base model's tensors:
        trained biases, and embeddings with rows for new tokens.

        Raises:
            UsageError: if tensors are missing, unknown, or of another shape.
        """
        own = _own_keys(self.model, self.parameters)
        missing = [key for key in own if key not in adapter.tensors]
        sources: dict[str, str] = {}
        unknown: list[str] = []
        misshapen: list[str] = []
        for key, tensor in adapter.tensors.items():
            name = own.get(key) or self.bases.get(base_name(key))
            if name is None:
                if not is_copy(key, own):
                    unknown.append(key)
            elif tensor.shape != self.parameters[name].shape:
                wanted = tuple(self.parameters[name].shape)
                misshapen.append(f"{key} of shape {tuple(tensor.shape)} instead of {wanted}")
            else:
                sources |= dict.fromkeys(self._names_of(name), key)
        mismatches = {"missing": missing, "unexpected": unknown, "shape mismatch": misshapen}
        for kind, keys in mismatches.items():
            if keys:
                raise UsageError([_incompatible(adapter, f"{kind}: {join_names(keys)}")])
        return sources

    @property
    def tied_by_peft(self) -> bool:
        """Whether PEFT trained one change for head and embedding."""
        ensured = getattr(self.model.peft_config["default"], "ensure_weight_tying", False)
        return bool(ensured) and all(map(self.layer_of, (self.head, self.embedding)))

    def _names_of(self, name: str) -> list[str]:
        """Return all names of a parameter that several layers share, as tied layers may."""
        if name in self.bases.values():  # head and embedding, which the merge may part
            return [name]
        shared = self.parameters[name]
        return [other for other, each in self.parameters.items() if each is shared]

    def is_replaced(self, name: str) -> bool:
        """Return whether the adapter has a replacement of a base tensor."""
        return self.bases[name] in self.sources

    def has_new_rows(self, name: str) -> bool:
        """Return whether a tensor has rows that the base model's files do not have."""
        return self.grows and name in (self.embedding, self.head)

    def layer_of(self, name: str) -> str | None:
        """Return the outermost PEFT layer that a tensor of the base model is in, if any."""
        parts = name.split(".")
        paths = (".".join(parts[:end]) for end in range(1, len(parts)))
        return next((path for path in paths if path in self._layers), None)

    def layer(self, path: str) -> Any:
        """Return a copy of a PEFT layer, to load weights into and to merge."""
        return copy.deepcopy(self.model.get_submodule(PEFT_PREFIX + path))


def _all_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters(remove_duplicate=False))


def _adapted(plain: nn.Module, adapter: Adapter) -> peft.PeftModel:
    what = f"{adapter.folder / ADAPTER_CONFIG} is not a PEFT configuration"
    with door(what, "copy the adapter again"):  # a field has another type than PEFT's
        try:
            return adapt_empty(plain, adapter.config)
        except ValueError as error:  # no layer has a name that the configuration gives
            raise UsageError([_incompatible(adapter, str(error))]) from error


def _own_keys(model: peft.PeftModel, parameters: dict[str, nn.Parameter]) -> dict[str, str]:
    """Return the parameters that PEFT saves, by their names in its file."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    saved: Any = peft.get_peft_model_state_dict(
        model, state_dict=parameters, save_embedding_layers=False
    )
    return {key: names[id(parameter)] for key, parameter in saved.items()}


def _incompatible(adapter: Adapter, why: str) -> Problem:
    return Problem(
        f"--adapter {adapter.folder} is not compatible with the base model",
        why,
        "name the model that it was trained on: --model DIR",
    )
