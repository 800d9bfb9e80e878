"""The tensors of a Llama: their names in a GGUF file and in a folder, and their order of rows."""

from typing import NamedTuple

import torch

from llama_recipes_local.gguf_files.shape import Shape

FREQUENCIES = "rope_freqs.weight"
"""What the rotary frequencies are divided by; no weight, the configuration says it."""
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


class Target(NamedTuple):
    """The place of a GGUF file's tensor in a folder.

    Attributes:
        name: the parameter's name.
        shape: its shape.
        heads: number of heads, if GGUF orders the rows of each head differently.
    """

    name: str
    shape: tuple[int, ...]
    heads: int = 0


def targets(shape: Shape) -> dict[str, Target]:
    """Return the place of each tensor of a Llama in a folder, by its name in a GGUF file."""
    hidden, wide = shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head, shape.key_value_heads * shape.head
    found = {
        EMBEDDING: Target("model.embed_tokens.weight", (shape.vocabulary, hidden)),
        "output_norm.weight": Target("model.norm.weight", (hidden,)),
    }
    if not shape.tied:
        found[OUTPUT] = Target("lm_head.weight", (shape.vocabulary, hidden))
    of_a_layer = {
        "attn_norm": Target("input_layernorm", (hidden,)),
        "attn_q": Target("self_attn.q_proj", (queries, hidden), shape.heads),
        "attn_k": Target("self_attn.k_proj", (keys, hidden), shape.key_value_heads),
        "attn_v": Target("self_attn.v_proj", (keys, hidden)),
        "attn_output": Target("self_attn.o_proj", (hidden, queries)),
        "ffn_norm": Target("post_attention_layernorm", (hidden,)),
        "ffn_gate": Target("mlp.gate_proj", (wide, hidden)),
        "ffn_up": Target("mlp.up_proj", (wide, hidden)),
        "ffn_down": Target("mlp.down_proj", (hidden, wide)),
    }
    for layer in range(shape.layers):
        for name, each in of_a_layer.items():
            place = each._replace(name=f"model.layers.{layer}.{each.name}.weight")
            found[f"blk.{layer}.{name}.weight"] = place
            if (shape.attention_bias and "attn." in place.name) or (
                shape.mlp_bias and ".mlp." in place.name
            ):
                bias = place.name.removesuffix("weight") + "bias"
                found[f"blk.{layer}.{name}.bias"] = Target(bias, each.shape[:1], each.heads)
    return found


def swapped(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Return rows in GGUF's order: rows of a head that are rotated together are neighbours.

    Args:
        weight: of queries or keys, (heads x size of a head, columns), or their bias.
        heads: number of heads.
    """
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return halves.transpose(1, 2).reshape(weight.shape)


def unswapped(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo ``swapped``; GGUF's order is also that of Meta's own layout."""
    pairs = weight.reshape(heads, len(weight) // heads // 2, 2, -1)
    return pairs.transpose(1, 2).reshape(weight.shape)
