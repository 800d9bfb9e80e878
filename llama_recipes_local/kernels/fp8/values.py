"""Matrices in fp8 with a scale a row, and their products.

A value is an e4m3 number (four bits of exponent, three of mantissa, at most 448; Micikevicius et
al., "FP8 formats for deep learning", 2022) times its row's scale, which makes the row's largest
value 448. So a value is off by up to 2**-4 of itself, or by 2**-10 / 448 of its row's largest.

A product is scaled by the rows of both factors, so the scales must not lie along what is summed
over. Those of a weight do in a backward pass: there they are multiplied into the gradients first.
"""

from dataclasses import dataclass

import torch

LARGEST = 448.0
FP8 = torch.float8_e4m3fn
_SMALLEST = 1e-30  # of a row's largest value, so that a row of zeros has a scale
_TILE = 128


@dataclass(frozen=True)
class Rows:
    """A matrix in fp8.

    Attributes:
        values: (rows, columns) e4m3, contiguous.
        scales: (rows,) float32; None if they are all 1.
    """

    values: torch.Tensor
    scales: torch.Tensor | None

    def wide(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return it in a wider dtype."""
        values = self.values.to(torch.float32)
        return (values if self.scales is None else values * self.scales[:, None]).to(dtype)


def quantize(*parts: torch.Tensor, factors: tuple[torch.Tensor, ...] = ()) -> Rows:
    """Return up to three matrices side by side, each row with one scale.

    Args:
        *parts: each (rows, columns), its last stride 1.
        factors: for each part what its columns are multiplied by first, (columns,) float32; none
            multiplies by 1.
    """
    rows, widths = len(parts[0]), [part.shape[1] for part in parts]
    if not parts[0].is_cuda:
        scaled = [
            part.float() * (factors[number] if factors else 1.0)
            for number, part in enumerate(parts)
        ]
        whole = torch.cat(scaled, dim=1)
        scales = whole.abs().amax(1).clamp(min=_SMALLEST) / LARGEST
        return Rows((whole / scales[:, None]).clamp(-LARGEST, LARGEST).to(FP8), scales)
    from llama_recipes_local.kernels.triton import fp8_kernels as kernels

    values = parts[0].new_empty(rows, sum(widths), dtype=FP8)
    scales = parts[0].new_empty(rows, dtype=torch.float32)
    padding = (None,) * (3 - len(parts))
    kernels.quantize[(rows,)](
        *parts, *padding, *(factors or (None,) * len(parts)), *padding, values, scales,
        *widths, *(0 for _ in padding), *(part.stride(0) for part in parts), *(0 for _ in padding),
        sum(widths), _SMALLEST, LARGEST, BLOCK=_block(max(widths)), num_warps=8,
    )  # fmt: skip
    return Rows(values, scales)


def side_by_side(weights: tuple[Rows, ...]) -> torch.Tensor:
    """Return weights' values transposed, one beside another, (columns, rows of all) e4m3.

    Args:
        weights: up to three, with the same number of columns.
    """
    columns = weights[0].values.shape[1]
    widths = [len(weight.values) for weight in weights]
    out = weights[0].values.new_empty(columns, sum(widths))
    first = 0
    for weight, width in zip(weights, widths, strict=True):
        _transpose(weight.values, out[:, first : first + width])
        first += width
    return out


def _transpose(values: torch.Tensor, out: torch.Tensor) -> None:
    """Write ``values.T`` into ``out``, whose last stride is 1."""
    if not values.is_cuda:
        out.view(torch.uint8).copy_(values.view(torch.uint8).T)
        return
    from llama_recipes_local.kernels.triton import fp8_kernels as kernels

    rows, columns = values.shape
    kernels.transpose[(-(-rows // _TILE), -(-columns // _TILE))](
        values.view(torch.uint8), out.view(torch.uint8), rows, columns, out.stride(0),
        TILE=_TILE, num_warps=8,
    )  # fmt: skip


def product(x: Rows, weight: Rows, dtype: torch.dtype) -> torch.Tensor:
    """Return ``x @ weight.T``, (rows of x, rows of weight), in ``dtype``.

    On CUDA by cuBLAS, whose sums over an fp8 product keep some 14 bits.

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
    return matrix.values.new_ones(len(matrix.values), dtype=torch.float32)


def _block(width: int) -> int:
    """Return how many columns a program reads at a time."""
    return min(1 << (width - 1).bit_length(), 4096)
