"""Products with LoRA's thin matrices, of shape (rank, features), including dropout.

Each function takes up to three layers with the same input: on CUDA they are one launch of a kernel
in ``triton.thin_kernels``, elsewhere torch computes them in turn. Wide tensors, (tokens, features),
are contiguous. The outputs of the layers' A are side by side, (tokens, ranks of all).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from llama_recipes_local.kernels.lora.dropout import Dropout

NONE = Dropout()
Many = Sequence[torch.Tensor]
Sizes = tuple[int, ...]

_MOST = 3  # layers that read one input
_MOST_RANKS = 64  # of a program
_FEW, _SQUARE, _WIDE = 32, 64, 128  # rows or columns of a program
_PARTS = 8  # of the tokens, whose products are summed last


def pack(a: Many, b: Many, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return copies in ``dtype``: the A stacked, (ranks, features), and each B transposed.

    Args:
        a: each (rank, features).
        b: each (features out, rank).
        dtype: dtype of the inputs; copies are made because a kernel reads them many times.
    """
    if not a[0].is_cuda:
        return torch.cat(tuple(a)).to(dtype), [each.T.to(dtype).contiguous() for each in b]
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    features = a[0].shape[1]
    ranks, widths = tuple(each.shape[0] for each in a), tuple(each.shape[0] for each in b)
    grid, lengths, padded = _sizes_of_pack(features, ranks, widths)
    out = a[0].new_empty(sum(lengths), dtype=dtype)
    kernels.pack[grid](
        *_three([each.contiguous() for each in a]), *_three([each.contiguous() for each in b]),
        out, features, *_three(widths, 0), *_three(ranks, 0), RANK=padded, BLOCK=_WIDE,
    )  # fmt: skip
    whole, *each = out.split(lengths)
    shapes = zip(each, ranks, widths, strict=True)
    return whole.view(-1, features), [one.view(rank, width) for one, rank, width in shapes]


@cache
def _sizes_of_pack(features: int, ranks: Sizes, widths: Sizes) -> tuple[Sizes, list[int], int]:
    """Return the grid, the elements of the copies, and the ranks of a program."""
    padded = _padded(max(ranks))
    blocks = len(ranks) * _blocks([features], _WIDE) + _blocks(widths, _WIDE)
    lengths = [sum(ranks) * features, *map(int.__mul__, ranks, widths)]
    return (blocks, _blocks([max(ranks)], padded)), lengths, padded


def product(x: Many, a: Many, scales: Sequence[float], dropout: Dropout = NONE) -> torch.Tensor:
    """Return each ``scale * dropped(x) @ a.T``, side by side, (tokens, ranks of all).

    Its rows begin at multiples of 32 bytes, so that memory is read in whole sectors.

    Args:
        x: each (tokens, features).
        a: for each ``x``, (rank, features), contiguous, in the dtype of ``x``.
        scales: a factor for each result.
        dropout: of each ``x``.
    """
    tokens, ranks = x[0].shape[0], tuple(each.shape[0] for each in a)
    row = -(-sum(ranks) // 16) * 16
    out = x[0].new_empty(tokens, row)[:, : sum(ranks)]
    if not x[0].is_cuda:
        made = zip(x, a, scales, strict=True)
        return torch.cat([s * dropout.of(one) @ two.T for one, two, s in made], 1, out=out)
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    grid, padded, block = _sizes_of_product(tokens, ranks)
    kernels.product[grid](
        *_three(x), *_three(a), out, dropout.seed, dropout.threshold,
        *_three([scale * dropout.scale for scale in scales], 1.0),
        tokens, *_three([each.shape[1] for each in x], 0), *_three(ranks, 0), row,
        RANK=padded, ROWS=_FEW, BLOCK=block, DROPS=dropout.share > 0,
    )  # fmt: skip
    return out


@cache
def _sizes_of_product(tokens: int, ranks: Sizes) -> tuple[Sizes, int, int]:
    """Return the grid, and the ranks and columns of a program."""
    padded = _padded(max(ranks))
    grid = _blocks([tokens], _FEW), _blocks(ranks, padded)
    return grid, padded, 128 if padded <= 32 else 64


def expansion(
    thin: torch.Tensor,
    a: Many,
    scales: Sequence[float],
    dropout: Dropout = NONE,
    onto: Many | None = None,
) -> list[torch.Tensor]:
    """Return each ``scale * dropped(own part of thin @ a)``, (tokens, features).

    Args:
        thin: (tokens, ranks of all); its last stride is 1.
        a: each (rank, features), contiguous, in the dtype of ``thin``.
        scales: a factor for each result.
        dropout: of each product.
        onto: tensors that the results are added to in place, each (tokens, features), contiguous;
            None returns new ones.
    """
    tokens, ranks = thin.shape[0], tuple(each.shape[0] for each in a)
    if not thin.is_cuda:
        parts = zip(thin.split(list(ranks), 1), a, scales, strict=True)
        found = [dropout.of(scale * (low @ each)) for low, each, scale in parts]
        return found if onto is None else [x.add_(own) for x, own in zip(onto, found, strict=True)]
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    widths = tuple(each.shape[1] for each in a)
    out = [thin.new_empty(tokens, width) for width in widths] if onto is None else list(onto)
    grid, rows, block = _sizes_of_expansion(tokens, ranks, widths)
    kernels.expansion[grid](
        thin, *_three(a), *_three(out), dropout.seed, dropout.threshold,
        *_three([scale * dropout.scale for scale in scales], 1.0),
        tokens, *_three(widths, 0), *_three(ranks, 0), thin.stride(0),
        RANK=_padded(max(ranks)), ROWS=rows, BLOCK=block, DROPS=dropout.share > 0,
        ADDS=onto is not None,
    )  # fmt: skip
    return out


@cache
def _sizes_of_expansion(tokens: int, ranks: Sizes, widths: Sizes) -> tuple[Sizes, int, int]:
    """Return the grid, and the rows and columns of a program."""
    rows, block = (64, 128) if max(ranks) <= 32 else (128, 64)
    return (_blocks([tokens], rows), _blocks(widths, block)), rows, block


def gradients(
    of_low: torch.Tensor,
    x: torch.Tensor,
    low: torch.Tensor,
    of_outputs: Many,
    scales: Sequence[float],
    ranks: Sequence[int],
    dropout: Dropout = NONE,
) -> torch.Tensor:
    """Return the gradients of all A, ``of_low.T @ dropped(x)``, and then of each B.

    That of a B is ``scale * of_output.T @ own part of low``. On CUDA they are in float32.

    Args:
        of_low: gradient of ``low``, (tokens, ranks of all), from ``product``.
        x: the input, (tokens, features).
        low: outputs of all A, (tokens, ranks of all), from ``product``.
        of_outputs: gradients of the outputs, each (tokens, features out).
        scales: a factor for each layer.
        ranks: the rank of each layer.
        dropout: of ``x``.
    """
    if not x.is_cuda:
        each = zip(of_outputs, low.split(list(ranks), 1), scales, strict=True)
        of_b = [scale * gradient.T @ own for gradient, own, scale in each]
        return torch.cat([own.flatten() for own in (of_low.T @ dropout.of(x), *of_b)])
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    tokens, features = x.shape
    ranks, widths = tuple(ranks), tuple(each.shape[1] for each in of_outputs)
    grid, rows_of_part, total = _sizes_of_gradients(tokens, features, ranks, widths)
    out = x.new_empty(grid[1], total, dtype=torch.float32)
    kernels.gradients[grid](
        of_low, x, low, *_three(of_outputs), out, dropout.seed, dropout.threshold, dropout.scale,
        *_three(scales, 1.0), tokens, features, *_three(widths, 0), sum(ranks), *_three(ranks, 0),
        rows_of_part, of_low.stride(0), low.stride(0), total, RANK=_padded(sum(ranks)),
        OWN=_padded(max(ranks)), ROWS=_SQUARE, BLOCK=_SQUARE, DROPS=dropout.share > 0,
    )  # fmt: skip
    return out.sum(0)


@cache
def _sizes_of_gradients(
    tokens: int, features: int, ranks: Sizes, widths: Sizes
) -> tuple[Sizes, int, int]:
    """Return the grid, whose second length counts parts, a part's rows, and the elements."""
    rows_of_part = _blocks([_blocks([tokens], _SQUARE)], _PARTS) * _SQUARE
    blocks = _blocks([features], _SQUARE) + _blocks(widths, _SQUARE)
    grid = blocks, _blocks([tokens], rows_of_part), _blocks([sum(ranks)], _padded(sum(ranks)))
    return grid, rows_of_part, sum(ranks) * features + sum(map(int.__mul__, ranks, widths))


def _three(values: Sequence[Any], rest: Any = None) -> tuple[Any, ...]:
    """Return values for three layers; missing layers get placeholders."""
    return (*values, rest, rest)[:_MOST]


@cache
def _padded(rank: int) -> int:
    """Return a rank as a program takes it: rounded up to a power of two for matrix instructions."""
    return min(max(16, 1 << (rank - 1).bit_length()), _MOST_RANKS)


def _blocks(lengths: Sequence[int], block: int) -> int:
    return sum(-(-length // block) for length in lengths)
