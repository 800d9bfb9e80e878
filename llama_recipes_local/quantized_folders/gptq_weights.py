"""The tensors that GPTQ stores for a layer's weight, and how the weight follows from them.

Readers differ in what they take from the tensors and what from ``config.json``: vLLM ignores zero
points of symmetric weights, and the groups if columns are in order. So both must agree.
"""

from collections.abc import Mapping

import torch

from llama_recipes_local.errors import refusal

PARTS = ("qweight", "qzeros", "scales", "g_idx")


def planned_parts(weight: torch.Tensor, bits: int, group_size: int) -> dict[str, torch.Tensor]:
    """Return a meta tensor of each part of a weight, (rows, columns)."""
    rows, columns = weight.shape
    packed, groups = 32 // bits, columns // group_size
    shapes = ((columns // packed, rows), (groups, rows // packed), (groups, rows), (columns,))
    dtypes = (torch.int32, torch.int32, torch.float16, torch.int32)
    return {
        part: torch.empty(shape, dtype=dtype, device="meta")
        for part, shape, dtype in zip(PARTS, shapes, dtypes, strict=True)
    }


def dequantised(stored: Mapping[str, torch.Tensor], layer: str, bits: int) -> torch.Tensor:
    """Return a layer's weight, (rows, columns), in float32.

    Args:
        stored: the folder's tensors, in GPTQ's first format, which stores zero points minus one.
        layer: name of the layer.
        bits: bits of a weight; several weights are packed into 32 bits.

    Raises:
        UsageError: if columns are not in the order of their groups, or a zero point is not the
            middle.
    """
    packed, zeros, scales, order = (stored[f"{layer}.{part}"] for part in PARTS)
    shifts, most = torch.arange(0, 32, bits, dtype=torch.int32), 2**bits - 1
    numbers = (packed[:, None, :] >> shifts[:, None] & most).flatten(0, 1)  # (columns, rows)
    group_size = len(numbers) // len(scales)
    if not torch.equal(order, torch.arange(len(numbers), dtype=order.dtype) // group_size):
        raise refusal(f"{layer}.g_idx", "columns are in another order than that of their groups")
    points = zeros[:, :, None] >> shifts & most
    if not (points == 2 ** (bits - 1) - 1).all():
        raise refusal(f"{layer}.qzeros", "a zero point is not in the middle")
    factors = scales.float().repeat_interleave(group_size, 0)
    return ((numbers - 2 ** (bits - 1)) * factors).T.contiguous()
