"""Matrices in fp8 with a scale a row, and their products.

An element is an e4m3 number (four bits of exponent, three of mantissa, at most 448; Micikevicius et
al., "FP8 formats for deep learning", 2022) times its row's scale. The scale maps the row's largest
value to 448. So an element has a relative error of up to 2**-4, or an absolute one of up to 2**-10
/ 448 times the row's largest value.

A product is scaled by the rows of both factors, so the scales must not run along the dimension that
is summed over. A weight's scales do in a backward pass: there they are multiplied into the
gradients first.
"""

from dataclasses import dataclass
from functools import cache

import torch

LARGEST = 448.0
FP8 = torch.float8_e4m3fn
SMALLEST = 1e-30  # of a row's largest value, so that a row of zeros has a scale
_TILE = 128


@dataclass(frozen=True)
class Rows:
    """A matrix in fp8.

    Attributes:
        values: (rows, columns) e4m3, contiguous.
        scales: (rows,) float32; None if they are all 1.
        largest: (parts, rows) float32, the largest value in each row of each part before
            multiplication by factors; only if ``quantize`` was asked for it.
    """

    values: torch.Tensor
    scales: torch.Tensor | None
    largest: torch.Tensor | None = None

    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values and scales; call it only if there are scales."""
        assert self.scales is not None
        return self.values, self.scales

    def wide(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return the matrix in a wider dtype."""
        values = self.values.to(torch.float32)
        return (values if self.scales is None else values * self.scales[:, None]).to(dtype)


def quantize(
    *parts: torch.Tensor,
    factors: tuple[torch.Tensor, ...] = (),
    apart: bool = False,
    bound: float = LARGEST,
) -> Rows:
    """Return up to three matrices side by side as one, with one scale a row.

    Args:
        *parts: each (rows, columns), its last stride 1.
        factors: for each part the factors of its columns, (columns,) float32; none means 1.
        apart: whether to return ``largest`` too.
        bound: the number in fp8 that a row's largest value becomes, at most 448.
    """
    rows, widths = len(parts[0]), [part.shape[1] for part in parts]
    if not parts[0].is_cuda:
        return _quantized(parts, factors, apart, bound)
    from llama_recipes_local.kernels.triton import fp8_kernels as kernels

    made = empty(parts[0], rows, sum(widths), len(parts) if apart else 0)
    none, zeros = (None,) * (3 - len(parts)), (0,) * (3 - len(parts))
    blocks = [padded(width) for width in widths] + list(zeros)
    kernels.quantize[(rows,)](
        *parts, *none, *(factors or (None,) * len(parts)), *none, made.values, made.scales,
        made.largest, rows, *widths, *zeros, *(part.stride(0) for part in parts), *zeros,
        sum(widths), SMALLEST, bound,
        BLOCK0=blocks[0], BLOCK1=blocks[1], BLOCK2=blocks[2], num_warps=warps(sum(blocks)),
    )  # fmt: skip
    return made


def _quantized(
    parts: tuple[torch.Tensor, ...], factors: tuple[torch.Tensor, ...], apart: bool, bound: float
) -> Rows:
    """Compute ``quantize`` without Triton."""
    wide = [part.float() for part in parts]
    largest = torch.stack([part.abs().amax(1) for part in wide]) if apart else None
    if factors:
        wide = [part * factor for part, factor in zip(wide, factors, strict=True)]
    whole = torch.cat(wide, dim=1)
    scales = whole.abs().amax(1).clamp(min=SMALLEST) / bound
    values = (whole * (1 / scales)[:, None]).clamp(-LARGEST, LARGEST)
    return Rows(values.to(FP8), scales, largest)


def empty(x: torch.Tensor, rows: int, columns: int, parts: int = 0) -> Rows:
    """Return an uninitialised matrix on the device of ``x``, with ``largest`` for some parts."""
    values = x.new_empty(rows, columns, dtype=FP8)
    largest = x.new_empty(parts, rows, dtype=torch.float32) if parts else None
    return Rows(values, x.new_empty(rows, dtype=torch.float32), largest)


def padded(width: int) -> int:
    """Return the columns of a row that a Triton program holds: a power of two."""
    return 1 << (width - 1).bit_length()


def warps(block: int) -> int:
    """Return how many warps hold ``block`` columns, at most 32 a thread: a power of two."""
    return min(max(padded(-(-block // 1024)), 4), 32)


def side_by_side(weights: tuple[Rows, ...]) -> torch.Tensor:
    """Return the transposed values of weights side by side, (columns, rows of all) e4m3.

    Args:
        weights: up to three, with the same number of columns.
    """
    values = [weight.values.view(torch.uint8) for weight in weights]
    rows, columns = [len(part) for part in values], values[0].shape[1]
    if not values[0].is_cuda:
        return torch.cat(values).T.contiguous().view(FP8)
    from llama_recipes_local.kernels.triton import fp8_kernels as kernels

    out = values[0].new_empty(columns, sum(rows))
    none, zeros = (None,) * (3 - len(values)), (0,) * (3 - len(values))
    tiles = sum(-(-part // _TILE) for part in rows) * -(-columns // _TILE)
    kernels.transpose[(tiles,)](
        *values, *none, out, *rows, *zeros, columns, sum(rows), TILE=_TILE, num_warps=8
    )
    return out.view(FP8)


def product(x: Rows, weight: Rows, dtype: torch.dtype) -> torch.Tensor:
    """Return ``x @ weight.T``, (rows of x, rows of weight), in ``dtype``.

    On CUDA cuBLAS computes it, whose sums of fp8 products keep about 14 bits.

    Args:
        x: (rows, columns).
        weight: (rows, columns).
        dtype: bfloat16 on CUDA.
    """
    if not x.values.is_cuda:
        return (x.wide() @ weight.wide().T).to(dtype)
    return torch._scaled_mm(
        x.values,
        weight.values.T,
        _of(x)[:, None],
        _of(weight)[None, :],
        out_dtype=dtype,
        use_fast_accum=True,
    )


def _of(matrix: Rows) -> torch.Tensor:
    """Return a matrix's scales, (rows,) float32."""
    if matrix.scales is not None:
        return matrix.scales
    return _ones(len(matrix.values), matrix.values.device)


@cache
def _ones(rows: int, device: torch.device) -> torch.Tensor:
    return torch.ones(rows, device=device)
