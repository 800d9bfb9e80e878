"""New fully connected layers between a Llama's last hidden state and its head.

Each is a residual layer that starts as the identity, so the model's outputs are unchanged at first.
They are saved with the model: their number is ``top_layers`` in its ``config.json``,
their weights are ``model.top_layers.N.linear`` in its safetensors.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel


class TopLayersConfig(LlamaConfig):
    """A Llama's configuration, and the number of its top layers."""

    top_layers: int = 0


class LinearInAnyDtype(nn.Linear):
    """A linear layer that computes in its input's dtype: float32 weights on a bfloat16 model."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the product of the input, (..., hidden), with the weight, and the bias added."""
        return F.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class TopLayer(nn.Module):
    """``x + silu(W x + b)``: the identity for W = b = 0, where the gradients are not 0."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = LinearInAnyDtype(hidden_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Compute the layer on (batch, seq, hidden)."""
        return hidden_states + F.silu(self.linear(hidden_states))


class LlamaModelWithTopLayers(LlamaModel):
    """A Llama without its head, with top layers after the last normalisation."""

    config_class = TopLayersConfig

    def __init__(self, config: TopLayersConfig) -> None:
        super().__init__(config)
        layers = [TopLayer(config.hidden_size) for _ in range(config.top_layers)]
        self.top_layers = nn.ModuleList(layers)
        self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the model; the arguments and the result are transformers' own."""
        output = super().forward(*args, **kwargs)
        for layer in self.top_layers:
            output.last_hidden_state = layer(output.last_hidden_state)
        return output


class LlamaWithTopLayersForCausalLM(LlamaForCausalLM):
    """A Llama with top layers between the last hidden state and the head."""

    config_class = TopLayersConfig

    def __init__(self, config: TopLayersConfig) -> None:
        super().__init__(config)
        self.model = LlamaModelWithTopLayers(config)
        self.post_init()


@torch.no_grad()
def zero_top_layers(model: LlamaWithTopLayersForCausalLM) -> None:
    """Set new top layers to the identity."""
    for parameter in model.model.top_layers.parameters():
        parameter.zero_()
