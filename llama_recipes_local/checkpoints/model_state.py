"""The state of a model and its optimiser, by the names of the model's parameters.

Tensors may be sharded. They are loaded in place, whichever ranks wrote them.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.optim import Optimizer

from llama_recipes_local.checkpoints.layout import CorruptCheckpointError
from llama_recipes_local.checkpoints.reading import read_tensors
from llama_recipes_local.model_checkpointing.saved_adapter import resized_embeddings

Tensors = dict[str, torch.Tensor]


def model_tensors(model: nn.Module) -> Tensors:
    """Return what training changes in a model: trained parameters and persistent buffers.

    Embeddings that were resized under an adapter are included, because the model's folder has no
    rows for the new tokens. Everything else is the base model's, unchanged.
    """
    resized = resized_embeddings(model) if isinstance(model, PeftModel) else []
    kept = {id(parameter) for parameter in resized}
    tensors: Tensors = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or id(parameter) in kept
    }
    return tensors | dict(_persistent_buffers(model))


def _persistent_buffers(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                yield name, buffer


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> Tensors:
    """Return the tensors of an optimiser's state, but for scalars, by NAME/KEY."""
    return {
        f"{name}/{key}": value
        for name, state in _named_states(model, optimizer)
        for key, value in state.items()
        if _is_array(value)
    }


def optimizer_values(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return the rest of an optimiser's state, JSON-ready: numbers, and its groups' settings.

    The dtypes that AnyPrecisionAdamW has among its settings are left out: each run sets them.
    """
    numbers = {
        name: {key: _number(value) for key, value in state.items() if not _is_array(value)}
        for name, state in _named_states(model, optimizer)
    }
    names = _names(model)
    groups = [
        {
            key: _number(value)
            for key, value in group.items()
            if key != "params" and not isinstance(value, torch.dtype)
        }
        | {"params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    stateless = sorted(set().union(*(group["params"] for group in groups)) - numbers.keys())
    return {"numbers": numbers, "groups": groups, "stateless": stateless}


def check_complete(model: nn.Module, optimizer: Optimizer, values: dict[str, Any]) -> None:
    """Check that the saved state of an optimiser covers the parameters of this one.

    Raises:
        CorruptCheckpointError: if some parameters have no saved state although they had one when it
            was saved.
    """
    names = _names(model)
    trained = {names[id(each)] for group in optimizer.param_groups for each in group["params"]}
    stateless = values.get("stateless")
    if stateless is not None and values["numbers"].keys() | set(stateless) != trained:
        raise CorruptCheckpointError("the optimiser's state is not that of this run's parameters")


def load_model(model: nn.Module, folder: Path, listed: Collection[Path] | None = None) -> None:
    """Load what ``model_tensors`` returned.

    Raises:
        CorruptCheckpointError: if the folder does not contain them.
    """
    read_tensors(folder, model_tensors(model), listed)


def load_optimizer(
    model: nn.Module,
    optimizer: Optimizer,
    folder: Path,
    numbers: Mapping[str, Mapping[str, Any]],
    listed: Collection[Path] | None = None,
) -> None:
    """Load the state of an optimiser that has taken no step.

    It takes one step at rate 0 on gradients of 0, which creates its state in the form and on the
    device that this very optimiser wants; weights must be loaded after that.

    Args:
        model: the parameters' owner.
        optimizer: the optimiser to fill.
        folder: where what ``optimizer_tensors`` returned is.
        numbers: the ``numbers`` of ``optimizer_values``.
        listed: see ``read_tensors``.

    Raises:
        CorruptCheckpointError: if the folder does not contain the state of these parameters.
    """
    parameters = dict(model.named_parameters())
    try:
        stepped = [parameters[name] for name in numbers]
    except KeyError as error:
        raise CorruptCheckpointError(
            f"{folder} has the state of {error}, missing in this model"
        ) from None
    _initialize_state(optimizer, stepped)
    read_tensors(folder, optimizer_tensors(model, optimizer), listed)
    for name, plain in numbers.items():
        state = optimizer.state[parameters[name]]
        for key, value in plain.items():
            if isinstance(state.get(key), torch.Tensor):
                state[key].fill_(value)
            else:
                state[key] = value


def load_param_groups(optimizer: Optimizer, groups: list[dict[str, Any]]) -> None:
    """Load the settings of an optimiser's groups: learning rate, weight decay and others."""
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        for key, value in saved.items():
            if key == "params":
                continue
            if isinstance(group.get(key), torch.Tensor):
                group[key].fill_(value)
            else:
                group[key] = tuple(value) if isinstance(value, list) else value


def _initialize_state(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    rates = [group["lr"] for group in optimizer.param_groups]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _named_states(model: nn.Module, optimizer: Optimizer) -> list[tuple[str, dict[str, Any]]]:
    names = _names(model)
    return [(names[id(parameter)], state) for parameter, state in optimizer.state.items()]


def _names(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _is_array(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0


def _number(value: object) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value
