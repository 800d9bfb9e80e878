"""Converts the sizes and constants of a Llama between a GGUF file and ``config.json``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedConfig

from llama_recipes_local.errors import Problem

AS_SAFETENSORS = "export it as safetensors, which transformers and vLLM read: --format safetensors"
POSITIONS = tuple(2**power for power in range(11, 18))
"""Contexts of a model before its frequencies were scaled, for those that a file does not say."""
PER_TURN, LLAMA_3, YARN = "linear", "llama3", "yarn"
_LOW, _HIGH = 1.0, 4.0  # Llama 3's, which no model has otherwise
_YARN_IN_LLAMA_CPP: dict[str, Any] = {
    "beta_fast": 32,
    "beta_slow": 1,
    "truncate": True,
    "partial_rotary_factor": 1,
    **dict.fromkeys(("attention_factor", "mscale", "mscale_all_dim")),
}
_SCALINGS = {
    "default": (),
    PER_TURN: ("rope_type", "factor"),
    YARN: ("rope_type", "factor", "original_max_position_embeddings"),
    LLAMA_3: (
        "rope_type",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a Llama, and the constants of its computation.

    Attributes:
        layers: decoder layers.
        positions: the longest sequence, in tokens.
        hidden: width of the residual stream.
        intermediate: width of the MLP.
        heads: heads of queries.
        key_value_heads: heads of keys and values.
        head: width of a head.
        vocabulary: rows of the embedding.
        rms_norm_eps: added to the mean square in a norm.
        rope_theta: base of the rotary frequencies.
        scaling: ``rope_parameters`` beside ``rope_theta``; empty for plain frequencies.
        tied: whether the output layer is the embedding.
        attention_bias: whether the projections of attention have biases.
        mlp_bias: whether those of the MLP have.
    """

    layers: int
    positions: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head: int
    vocabulary: int
    rms_norm_eps: float
    rope_theta: float
    scaling: Mapping[str, Any] = field(default_factory=dict)
    tied: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False

    def config(self, dtype: torch.dtype, **tokens: Any) -> LlamaConfig:
        """Return the model's configuration.

        Args:
            dtype: the weights' dtype.
            **tokens: ``bos_token_id`` and the like.
        """
        rope = {"rope_type": "default", **self.scaling, "rope_theta": self.rope_theta}
        return LlamaConfig(
            architectures=["LlamaForCausalLM"],
            num_hidden_layers=self.layers,
            max_position_embeddings=self.positions,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            head_dim=self.head,
            vocab_size=self.vocabulary,
            rms_norm_eps=self.rms_norm_eps,
            rope_parameters=rope,
            tie_word_embeddings=self.tied,
            attention_bias=self.attention_bias,
            mlp_bias=self.mlp_bias,
            dtype=str(dtype).removeprefix("torch."),
            **tokens,
        )

    def frequency_factors(self) -> torch.Tensor | None:
        """Return llama.cpp's divisors of rotary frequencies; None without Llama 3's scaling.

        Shape: (head / 2,), float32.
        """
        if self.scaling.get("rope_type") != LLAMA_3:
            return None
        factor, low, high = (
            float(self.scaling[name]) for name in ("factor", "low_freq_factor", "high_freq_factor")
        )
        before = self.scaling["original_max_position_embeddings"]
        return _factors(self.rope_theta, self.head, factor, (low, high), before)


def shape_of(config: PreTrainedConfig, tied: bool) -> Shape:
    """Return the shape of a configuration for which ``unwritable`` finds nothing."""
    rope = dict(config.rope_parameters)
    theta = float(rope.pop("rope_theta"))
    return Shape(
        layers=config.num_hidden_layers,
        positions=config.max_position_embeddings,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        head=config.head_dim,
        vocabulary=config.vocab_size,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=theta,
        scaling={name: rope[name] for name in _SCALINGS[rope["rope_type"]]},
        tied=tied,
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
    )


def unwritable(config: PreTrainedConfig, what: str) -> list[Problem]:
    """Return what a GGUF file of a Llama cannot represent of a configuration.

    Args:
        config: the model's.
        what: the model, for messages.
    """
    said = (
        ("hidden_act", config.hidden_act, config.hidden_act == "silu"),
        (
            "rope_parameters",
            config.rope_parameters,
            _known_scaling(config.rope_parameters),
        ),
        ("top_layers", getattr(config, "top_layers", 0), not getattr(config, "top_layers", 0)),
    )
    return [
        Problem(
            f"{what} has {name} {value!r:.200}",
            "the GGUF files of this export cannot say so: llama.cpp would compute something else",
            AS_SAFETENSORS,
        )
        for name, value, known in said
        if not known
    ]


def _known_scaling(rope: Mapping[str, Any]) -> bool:
    """Return whether llama.cpp computes a scaling of rotary frequencies as transformers does."""
    if rope["rope_type"] == YARN:
        return all(rope.get(name) in (None, each) for name, each in _YARN_IN_LLAMA_CPP.items())
    return rope["rope_type"] in _SCALINGS and rope.get("partial_rotary_factor", 1) == 1


def scaling_of_factors(
    factors: torch.Tensor, theta: float, head: int, positions: int
) -> dict[str, Any] | None:
    """Return Llama 3's scaling that has these frequency factors; None if there is none.

    Args:
        factors: (head / 2,), float32.
        theta: base of the frequencies.
        head: width of a head.
        positions: the model's longest sequence.
    """
    factor = float(factors.max())
    for before in sorted(POSITIONS, key=lambda each: each > positions):  # they may be cut down
        made = _factors(theta, head, factor, (_LOW, _HIGH), before)
        if factors.shape == made.shape and torch.allclose(factors, made, rtol=1e-5, atol=0):
            return {
                "rope_type": LLAMA_3,
                "factor": factor,
                "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH,
                "original_max_position_embeddings": before,
            }
    return None


def _factors(
    theta: float, head: int, factor: float, bounds: tuple[float, float], before: int
) -> torch.Tensor:
    """Return Llama 3.1's divisors of frequencies: ``factor`` for long waves, 1 for short ones."""
    waves = 2 * math.pi * theta ** (torch.arange(0, head, 2, dtype=torch.float64) / head)
    low, high = bounds
    smooth = ((before / waves - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()
