"""The adapted model without its weights: which layers are adapted, and what goes where in them."""

import copy
from typing import Any

import peft
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from llama_recipes_local.adapters.compatibility import PREFIX, adapted_empty, base_name
from llama_recipes_local.commands.merge.adapter import Adapter
from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders import ADAPTER_CONFIG
from llama_recipes_local.models.empty import empty_model, weight_name


class Skeleton:
    """An adapted model on the meta device, its head a tensor apart from its embedding.

    Attributes:
        model: the model with PEFT's layers in it.
        parameters: its parameters by name, all on the meta device.
        shapes: the shapes of the base model's own tensors, by the names that its files give them.
        bases: the parameters by the names of the base model's own tensors.
        sources: the adapter's tensors by the parameters that they are; both are names.
        embedding: the embedding's name in the base model's files.
        head: the head's.
        linears: those of what bitsandbytes quantises, all of torch's linear layers but the head.
        vocabulary: rows of the embedding.
    """

    def __init__(self, config: transformers.PreTrainedConfig, adapter: Adapter) -> None:
        """Build the model that the adapter was trained on, with the adapter's vocabulary.

        Raises:
            UsageError: if the adapter's tensors are not those that this model would have.
        """
        plain = empty_model(config)
        self.embedding = weight_name(plain, plain.get_input_embeddings())
        self.head = weight_name(plain, plain.get_output_embeddings())
        self.vocabulary = _rows(adapter, self.embedding) or config.vocab_size
        if self.vocabulary != config.vocab_size:
            plain = empty_model(config, self.vocabulary)
        # not the new layers on top, which are of a class of their own
        linears = (module for module in plain.modules() if type(module) is nn.Linear)
        self.linears = {weight_name(plain, module) for module in linears} - {self.head}
        self.shapes = {name: tensor.shape for name, tensor in plain.named_parameters()}
        self.model = _adapted(plain, adapter)
        self.parameters = dict(self.model.named_parameters())
        named = {base_name(name): name for name in self.parameters}
        self.bases = {name: named[name] for name in self.shapes}
        self.sources = self._find_sources(adapter)
        self._layers = {
            name.removeprefix(PREFIX)
            for name, module in self.model.named_modules()
            if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
        }

    def _find_sources(self, adapter: Adapter) -> dict[str, str]:
        """Tell which parameter each of the adapter's tensors is.

        Beside PEFT's own an adapter may hold tensors of the base model's, to stand in their place:
        trained biases, and embeddings with rows for new tokens.

        Raises:
            UsageError: if the adapter lacks tensors, or holds others, or of another shape.
        """
        own = _own_keys(self.model, self.parameters)
        lacking = [key for key in own if key not in adapter.tensors]
        sources, unknown, misshapen = {}, [], []
        for key, tensor in adapter.tensors.items():
            name = own.get(key) or self.bases.get(base_name(key))
            if name is None:
                unknown.append(key)
            elif tensor.shape != self.parameters[name].shape:
                wanted = tuple(self.parameters[name].shape)
                misshapen.append(f"{key} of shape {tuple(tensor.shape)} instead of {wanted}")
            else:
                sources[name] = key
        for verb, keys in (("lacks", lacking), ("holds", unknown), ("holds", misshapen)):
            if keys:
                raise UsageError([_of_another(adapter, f"it {verb} {join_names(keys)}")])
        return sources

    def is_replaced(self, name: str) -> bool:
        """Tell whether the adapter holds what stands in the place of a tensor of the base's."""
        return self.bases[name] in self.sources

    def layer_of(self, name: str) -> str | None:
        """Return the outermost PEFT layer that a tensor of the base model is in, if any."""
        parts = name.split(".")
        paths = (".".join(parts[:end]) for end in range(1, len(parts)))
        return next((path for path in paths if path in self._layers), None)

    def layer(self, path: str) -> Any:
        """Return a copy of a PEFT layer, to be filled and merged."""
        return copy.deepcopy(self.model.get_submodule(PREFIX + path))


def _rows(adapter: Adapter, embedding: str) -> int | None:
    """Return the rows of the embedding that came with the adapter, if one did."""
    saved = [name for name in adapter.tensors if base_name(name) == embedding]
    return adapter.tensors[saved[0]].shape[0] if saved else None


def _adapted(plain: Any, adapter: Adapter) -> peft.PeftModel:
    try:
        return adapted_empty(plain, adapter.config)
    except ValueError as error:  # no layer of the model is named as the configuration says
        raise UsageError([_of_another(adapter, str(error))]) from error
    except (TypeError, AttributeError) as error:  # a field is of another type than PEFT's
        what = f"{adapter.folder / ADAPTER_CONFIG} is no configuration of PEFT"
        raise refusal(what, str(error), "copy the adapter again") from error


def _own_keys(model: peft.PeftModel, parameters: dict[str, nn.Parameter]) -> dict[str, str]:
    """Return the parameters that PEFT saves, by the names that it saves them under."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    saved: Any = peft.get_peft_model_state_dict(
        model, state_dict=parameters, save_embedding_layers=False
    )
    return {key: names[id(parameter)] for key, parameter in saved.items()}


def _of_another(adapter: Adapter, why: str) -> Problem:
    return Problem(
        f"--adapter {adapter.folder} does not fit the base model",
        why,
        "name the model that it was trained on: --model DIR",
    )
