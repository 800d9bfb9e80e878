"""Products with LoRA's thin matrices, of shape (rank, features), with dropout on the way.

Each takes the layers that read one input, up to three, at once: on CUDA a launch of the kernels of
``triton.thin_kernels``, elsewhere torch for one after another. Wide tensors, (tokens, features),
are contiguous. What the layers' A put out lies side by side, (tokens, ranks of all).
"""

from collections.abc import Sequence
from typing import Any

import torch

from llama_recipes_local.kernels.lora.dropout import Dropout

NONE = Dropout()
Many = Sequence[torch.Tensor]

_MOST = 3  # layers that read one input
_MOST_RANKS = 64  # in a program
_PARTS = 8  # of the tokens, whose products are summed last


def pack(a: Many, b: Many, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return copies in ``dtype``: each A below another, (ranks, features), and each B transposed.

    Args:
        a: each (rank, features).
        b: each (features out, rank).
        dtype: of the inputs: a kernel reads the copies many times.
    """
    if not a[0].is_cuda:
        return torch.cat(tuple(a)).to(dtype), [each.T.to(dtype).contiguous() for each in b]
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    features = a[0].shape[1]
    ranks, widths = [each.shape[0] for each in a], [each.shape[0] for each in b]
    lengths = [sum(ranks) * features, *map(int.__mul__, ranks, widths)]
    out = a[0].new_empty(sum(lengths), dtype=dtype)
    padded, block = _padded(max(ranks)), 128
    blocks = len(a) * _blocks(features, block) + sum(_blocks(width, block) for width in widths)
    kernels.pack[(blocks, _blocks(max(ranks), padded))](
        *_three(each.contiguous() for each in a), *_three(each.contiguous() for each in b), out,
        features, *_three(widths, 0), *_three(ranks, 0),
        RANK=padded, BLOCK=block,
    )  # fmt: skip
    whole, *each = out.split(lengths)
    shapes = zip(each, ranks, widths, strict=True)
    return whole.view(-1, features), [one.view(rank, width) for one, rank, width in shapes]


def product(x: Many, a: Many, scales: Sequence[float], dropout: Dropout = NONE) -> torch.Tensor:
    """Return each ``scale * dropped(x) @ a.T``, side by side, (tokens, ranks of all).

    Its rows begin at multiples of 32 bytes, so that they are read whole.

    Args:
        x: each (tokens, features).
        a: for each ``x``, (rank, features), contiguous, in the dtype of ``x``.
        scales: factors of the results.
        dropout: of each ``x``.
    """
    tokens, ranks = x[0].shape[0], [each.shape[0] for each in a]
    whole = x[0].new_empty(tokens, -(-sum(ranks) // 16) * 16)
    out = whole[:, : sum(ranks)]
    if not x[0].is_cuda:
        made = zip(x, a, scales, strict=True)
        return torch.cat([s * dropout.of(one) @ two.T for one, two, s in made], 1, out=out)
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    padded = _padded(max(ranks))
    rows, block = 32, 128 if padded <= 32 else 64
    kernels.product[(_blocks(tokens, rows), sum(_blocks(rank, padded) for rank in ranks))](
        *_three(x), *_three(a), out, dropout.seed, dropout.threshold,
        *_three([scale * dropout.scale for scale in scales], 1.0),
        tokens, *_three([each.shape[1] for each in x], 0), *_three(ranks, 0), whole.shape[1],
        RANK=padded, ROWS=rows, BLOCK=block, DROPS=dropout.share > 0,
    )  # fmt: skip
    return out


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
        scales: factors of the results.
        dropout: of each product.
        onto: what each is added to in place, (tokens, features), contiguous; None for nothing.
    """
    tokens, ranks = thin.shape[0], [each.shape[0] for each in a]
    if not thin.is_cuda:
        parts = zip(thin.split(ranks, 1), a, scales, strict=True)
        found = [dropout.of(scale * (low @ each)) for low, each, scale in parts]
        return found if onto is None else [x.add_(own) for x, own in zip(onto, found, strict=True)]
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    widths = [each.shape[1] for each in a]
    out = [thin.new_empty(tokens, width) for width in widths] if onto is None else list(onto)
    rows, block = (64, 128) if max(ranks) <= 32 else (128, 64)
    kernels.expansion[(_blocks(tokens, rows), sum(_blocks(width, block) for width in widths))](
        thin, *_three(a), *_three(out), dropout.seed, dropout.threshold,
        *_three([scale * dropout.scale for scale in scales], 1.0),
        tokens, *_three(widths, 0), *_three(ranks, 0), thin.stride(0),
        RANK=_padded(max(ranks)), ROWS=rows, BLOCK=block, DROPS=dropout.share > 0,
        ADDS=onto is not None,
    )  # fmt: skip
    return out


def gradients(
    of_low: torch.Tensor,
    x: torch.Tensor,
    low: torch.Tensor,
    of_outputs: Many,
    scales: Sequence[float],
    ranks: Sequence[int],
    dropout: Dropout = NONE,
) -> torch.Tensor:
    """Return the gradients of all A, ``of_low.T @ dropped(x)``, and of each B, one after another.

    That of a B is ``scale * of_output.T @ own part of low``. On CUDA they are in float32.

    Args:
        of_low: the gradient of ``low``, (tokens, ranks of all), from ``product``.
        x: the input, (tokens, features).
        low: what all A put out, (tokens, ranks of all), from ``product``.
        of_outputs: the gradients of the outputs, each (tokens, features out).
        scales: of the layers.
        ranks: of the layers.
        dropout: of ``x``.
    """
    if not x.is_cuda:
        each = zip(of_outputs, low.split(list(ranks), 1), scales, strict=True)
        of_b = [scale * gradient.T @ own for gradient, own, scale in each]
        return torch.cat([own.flatten() for own in (of_low.T @ dropout.of(x), *of_b)])
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    (tokens, features), widths = x.shape, [each.shape[1] for each in of_outputs]
    padded, rows, block = _padded(sum(ranks)), 64, 64
    rows_of_part = _blocks(_blocks(tokens, rows), _PARTS) * rows
    parts = _blocks(tokens, rows_of_part)
    total = sum(ranks) * features + sum(map(int.__mul__, ranks, widths))
    out = torch.empty(parts, total, device=x.device)
    blocks = _blocks(features, block) + sum(_blocks(width, block) for width in widths)
    kernels.gradients[(blocks, parts, _blocks(sum(ranks), padded))](
        of_low, x, low, *_three(of_outputs), out, dropout.seed, dropout.threshold, dropout.scale,
        *_three(scales, 1.0), tokens, features, *_three(widths, 0), sum(ranks), *_three(ranks, 0),
        rows_of_part, of_low.stride(0), low.stride(0), total,
        RANK=padded, OWN=_padded(max(ranks)), ROWS=rows, BLOCK=block, DROPS=dropout.share > 0,
    )  # fmt: skip
    return out.sum(0)


def _three(values: Any, rest: Any = None) -> list[Any]:
    """Return values for three layers, of which some may not be there."""
    values = list(values)
    return values + [rest] * (_MOST - len(values))


def _padded(rank: int) -> int:
    """Return how much of a rank a program takes: a power of two, as matrix instructions want."""
    return min(max(16, 1 << (rank - 1).bit_length()), _MOST_RANKS)


def _blocks(length: int, block: int) -> int:
    return -(-length // block)
