"""Transposed matrices in fp8, for products that sum over their rows."""

from collections.abc import Sequence

import torch

from llama_recipes_local.kernels.fp8.scaled_rows import FP8, LARGEST

_TILE = 128
_MULTIPLE = 16  # of what is summed over, as cuBLAS wants it


def turned(
    parts: Sequence[torch.Tensor], factors: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """Return matrices transposed and side by side, (columns, rows of all) e4m3.

    Zero columns are appended up to a multiple of 16.

    Args:
        parts: each (rows, columns), contiguous, with the same columns; in fp8 without factors.
        factors: for each part the factors of its rows, (rows,) float32.
    """
    columns, rows = parts[0].shape[1], sum(map(len, parts))
    width = -(-rows // _MULTIPLE) * _MULTIPLE
    out = parts[0].new_empty(columns, width, dtype=torch.uint8)
    out[:, rows:].zero_()
    first = 0
    for number, part in enumerate(parts):
        factor = None if factors is None else factors[number]
        _turn(part, factor, out[:, first : first + len(part)])
        first += len(part)
    return out.view(FP8)


def _turn(x: torch.Tensor, factors: torch.Tensor | None, out: torch.Tensor) -> None:
    """Write ``x`` times its rows' factors, in fp8 and transposed, (columns, rows) uint8."""
    rows, columns = x.shape
    if not x.is_cuda:
        if factors is not None:
            x = (x.float() * factors[:, None]).clamp(-LARGEST, LARGEST).to(FP8)
        out.copy_(x.view(torch.uint8).T)
        return
    from llama_recipes_local.kernels.triton import fp8_kernels as kernels

    tiles = -(-rows // _TILE) * -(-columns // _TILE)
    given = x.view(torch.uint8) if factors is None else x
    kernels.turn[(tiles,)](
        given, factors, out, rows, columns, out.stride(0), TILE=_TILE, num_warps=8
    )
