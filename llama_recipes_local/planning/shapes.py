"""The sizes of a Llama that memory and time depend on, from its ``config.json`` or by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llama_recipes_local.configs.model_types import LLAMA

OUTPUTS_OF_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
OF_MLP = ("gate_proj", "up_proj", "down_proj")
LINEAR = (*OUTPUTS_OF_ATTENTION, *OF_MLP)
"""A decoder layer's linear layers, which are what "all-linear" means."""

ENDS = ("embed_tokens", "lm_head")
"""What is before and behind the decoder layers, and may have LoRA too."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama.

    Attributes:
        hidden: features of the residual stream.
        mlp: features inside the MLP.
        layers: decoder layers.
        heads: of the queries.
        kv_heads: of keys and values.
        vocabulary: rows of the embedding.
        head_dim: features of a head; 0 means ``hidden / heads``.
        tied: whether embedding and head are one.
        positions: the longest row; 0 if it is not known.
    """

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_dim: int = 0
    tied: bool = False
    positions: int = 4096

    @property
    def queries(self) -> int:
        """Features of all queries; attention's output has as many."""
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def keys(self) -> int:
        """Features of all keys; values have as many."""
        return self.queries * self.kv_heads // self.heads

    @cached_property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """The inputs and outputs of a decoder layer's linear layers, by name."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.mlp),
            "up_proj": (self.hidden, self.mlp),
            "down_proj": (self.mlp, self.hidden),
        }

    @property
    def ends(self) -> dict[str, tuple[int, int]]:
        """The sizes (inputs, outputs) of the layers before and after the decoder layers."""
        sizes = (self.vocabulary, self.hidden), (self.hidden, self.vocabulary)
        return dict(zip(ENDS, sizes, strict=True))

    @property
    def layer(self) -> int:
        """Weights of a decoder layer's linear layers."""
        return sum(rows * columns for rows, columns in self.matrices.values())

    @property
    def linear(self) -> int:
        """Weights of all decoder layers' linear layers: those that are quantised."""
        return self.layers * self.layer

    @property
    def head(self) -> int:
        """Weights of the head, which is a matrix product even where it is the embedding."""
        return self.vocabulary * self.hidden

    @property
    def others(self) -> int:
        """Weights of the embedding, the head and the norms."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.head * (1 if self.tied else 2) + norms

    @property
    def weights(self) -> int:
        """All weights."""
        return self.linear + self.others


_LLAMA_3 = 131072
KNOWN = {
    "llama-2-7b": Shape(4096, 11008, 32, 32, 32, 32000),
    "llama-2-13b": Shape(5120, 13824, 40, 40, 40, 32000),
    "llama-2-70b": Shape(8192, 28672, 80, 64, 8, 32000),
    "llama-3-8b": Shape(4096, 14336, 32, 32, 8, 128256, positions=8192),
    "llama-3-70b": Shape(8192, 28672, 80, 64, 8, 128256, positions=8192),
    "llama-3.1-8b": Shape(4096, 14336, 32, 32, 8, 128256, positions=_LLAMA_3),
    "llama-3.1-70b": Shape(8192, 28672, 80, 64, 8, 128256, positions=_LLAMA_3),
    "llama-3.1-405b": Shape(16384, 53248, 126, 128, 8, 128256, positions=_LLAMA_3),
    "llama-3.2-1b": Shape(
        2048, 8192, 16, 32, 8, 128256, head_dim=64, tied=True, positions=_LLAMA_3
    ),
    "llama-3.2-3b": Shape(
        3072, 8192, 28, 24, 8, 128256, head_dim=128, tied=True, positions=_LLAMA_3
    ),
    "llama-3.3-70b": Shape(8192, 28672, 80, 64, 8, 128256, positions=_LLAMA_3),
    "tinyllama-1.1b": Shape(2048, 5632, 22, 32, 4, 32000, positions=2048),
    "smollm2-135m": Shape(576, 1536, 30, 9, 3, 49152, tied=True, positions=8192),
    "smollm2-360m": Shape(960, 2560, 32, 15, 5, 49152, tied=True, positions=8192),
    "smollm2-1.7b": Shape(2048, 8192, 24, 32, 32, 49152, tied=True, positions=8192),
}
"""Shapes by name, so that a plan needs no folder; as in the models' own ``config.json``."""

_SIZES = {
    "hidden": "hidden_size",
    "mlp": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "vocabulary": "vocab_size",
}


def config_of(shape: Shape) -> dict[str, Any]:
    """Return the ``config.json`` that describes a shape."""
    return {key: getattr(shape, name) for name, key in _SIZES.items()} | {
        "model_type": LLAMA,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim or None,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": shape.tied,
    }


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """Return the shape that a ``config.json`` describes; None if the model is not a Llama."""
    if config.get("model_type") != LLAMA:
        return None
    found: dict[str, Any] = {name: config.get(key) for name, key in _SIZES.items()}
    found["kv_heads"] = config.get("num_key_value_heads") or found["heads"]
    found["head_dim"] = config.get("head_dim") or 0
    found["positions"] = config.get("max_position_embeddings") or 0
    counted = all(type(size) is int and size >= 0 for size in found.values())
    if not counted or not all(found[name] for name in (*_SIZES, "kv_heads")):
        return None
    if (found["hidden"] % found["heads"] and not found["head_dim"]) or (
        found["heads"] % found["kv_heads"]
    ):
        return None
    return Shape(**found, tied=bool(config.get("tie_word_embeddings", False)))
