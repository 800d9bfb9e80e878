"""The weights of a GGUF file under the names of a Hugging Face Llama, in bfloat16."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from llama_recipes_local.commands.prepare.smollm2.gguf_metadata import Shape
from llama_recipes_local.errors import refusal

if TYPE_CHECKING:
    from gguf.gguf_reader import ReaderTensor


class Target(NamedTuple):
    """Where a tensor goes: its name and shape in the folder, and its heads if GGUF swaps rows."""

    name: str
    shape: tuple[int, ...]
    heads: int = 0


def targets(shape: Shape) -> dict[str, Target]:
    """Return where each tensor of a Llama goes, by its name in a GGUF file."""
    hidden, wide, keys = shape.hidden, shape.intermediate, shape.key_value_heads * shape.head
    found = {
        "token_embd": Target("embed_tokens", (shape.vocabulary, hidden)),
        "output_norm": Target("norm", (hidden,)),
    }
    of_a_layer = {
        "attn_norm": Target("input_layernorm", (hidden,)),
        "attn_q": Target("self_attn.q_proj", (hidden, hidden), shape.heads),
        "attn_k": Target("self_attn.k_proj", (keys, hidden), shape.key_value_heads),
        "attn_v": Target("self_attn.v_proj", (keys, hidden)),
        "attn_output": Target("self_attn.o_proj", (hidden, hidden)),
        "ffn_norm": Target("post_attention_layernorm", (hidden,)),
        "ffn_gate": Target("mlp.gate_proj", (wide, hidden)),
        "ffn_up": Target("mlp.up_proj", (wide, hidden)),
        "ffn_down": Target("mlp.down_proj", (hidden, wide)),
    }
    for layer in range(shape.layers):
        for name, each in of_a_layer.items():
            found[f"blk.{layer}.{name}"] = each._replace(name=f"layers.{layer}.{each.name}")
    return {
        f"{name}.weight": each._replace(name=f"model.{each.name}.weight")
        for name, each in found.items()
    }


def read_weights(tensors: "list[ReaderTensor]", shape: Shape) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each weight with its name; the output layer is the embedding and has none.

    Args:
        tensors: of the file.
        shape: of the model.

    Raises:
        UsageError: if a tensor is missing, unknown or of another shape, or not finite.
    """
    from gguf import dequantize

    wanted = targets(shape)
    names = [tensor.name for tensor in tensors]
    if sorted(names) != sorted(wanted):
        odd = sorted(set(names) ^ set(wanted)) or ["one twice"]
        raise refusal("the GGUF file has other tensors than a Llama", ", ".join(odd[:5]))
    for tensor in tensors:
        target = wanted[tensor.name]
        found = tuple(int(size) for size in reversed(tensor.shape))
        if found != target.shape:
            raise refusal(f"{tensor.name} has the shape {found}", f"it must be {target.shape}")
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        weight = weight.reshape(target.shape)
        if target.heads:
            weight = _unswap(weight, target.heads)
        if not weight.isfinite().all():
            raise refusal(f"{tensor.name} has weights that are not finite", "it is corrupt")
        yield target.name, weight.to(torch.bfloat16).contiguous()


def _unswap(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo GGUF's order of rows: in a head it puts those together that are rotated together.

    Args:
        weight: of queries or keys, (heads x size of a head, hidden).
        heads: their number.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)
