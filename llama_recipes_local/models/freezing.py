"""Which weights of a model are trained without an adapter."""

from torch import nn

from llama_recipes_local import configs
from llama_recipes_local.configs.trained_part import LM_HEAD, last_layers


def freeze_all_but_chosen(model: nn.Module, train_config: configs.train_config) -> None:
    """Freeze the weights that ``freeze_layers``, ``train_only`` and ``top_layers`` exclude.

    Args:
        model: a Llama with its head.
        train_config: see ``configs.train_config``; all weights are trained without the three.
    """
    if train_config.freeze_layers:
        freeze_transformer_layers(model, train_config.num_freeze_layers)
    chosen = _chosen(model, train_config)
    if chosen:
        model.requires_grad_(False)
        for module in chosen:
            module.requires_grad_(True)


def _chosen(model: nn.Module, train_config: configs.train_config) -> list[nn.Module]:
    if train_config.top_layers:
        return [model.get_submodule("model.top_layers")]
    if train_config.train_only == LM_HEAD:
        return [model.get_submodule(LM_HEAD)]
    last = last_layers(train_config.train_only)
    return _decoder_layers(model)[-last:] if last else []


def freeze_transformer_layers(model: nn.Module, num_layer: int) -> None:
    """Freeze a Llama's first ``num_layer`` decoder layers."""
    for layer in _decoder_layers(model)[:num_layer]:
        layer.requires_grad_(False)


def _decoder_layers(model: nn.Module) -> list[nn.Module]:
    return list(model.get_submodule("model.layers").children())
