"""Products with LoRA's thin matrices, of shape (rank, features), with dropout on the way.

On CUDA by the kernels of ``triton.thin_kernels``, elsewhere by torch. Wide tensors, (tokens,
features), are contiguous. What A puts out may be a part of a wider tensor: layers that read the
same input share one.
"""

import torch

from llama_recipes_local.kernels.lora.dropout import Dropout

NONE = Dropout()

_PARTS = 8  # of the tokens, whose products are summed last


def empty(x: torch.Tensor, rank: int) -> torch.Tensor:
    """Return an uninitialised (tokens, rank) for what ``product`` makes of ``x``.

    Its rows begin at multiples of 32 bytes, so that they are read whole.
    """
    return x.new_empty(len(x), -(-rank // 16) * 16)[:, :rank]


def product(
    x: torch.Tensor,
    a: torch.Tensor,
    scale: float = 1.0,
    dropout: Dropout = NONE,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``scale * dropped(x) @ a.T``, (tokens, rank).

    Args:
        x: (tokens, features).
        a: (rank, features), contiguous, in the dtype of ``x``.
        scale: factor of the result.
        dropout: of ``x``.
        out: where the result is written, if it is given; its last stride is 1.
    """
    tokens, features = x.shape
    rank = len(a)
    if out is None:
        out = empty(x, rank)
    if not x.is_cuda:
        return out.copy_(scale * dropout.of(x) @ a.T)
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    padded = _padded(rank, 64)
    rows, block = 32, 128 if padded <= 32 else 64
    kernels.product[(_blocks(tokens, rows), _blocks(rank, padded))](
        x, a, out, dropout.seed, dropout.threshold, scale * dropout.scale, tokens, features, rank,
        out.stride(0),
        RANK=padded, ROWS=rows, BLOCK=block, DROPS=dropout.share > 0,
    )  # fmt: skip
    return out


def expansion(
    thin: torch.Tensor,
    a: torch.Tensor,
    scale: float = 1.0,
    dropout: Dropout = NONE,
    onto: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``scale * dropped(thin @ a)``, (tokens, features).

    Args:
        thin: (tokens, rank); its last stride is 1.
        a: (rank, features), contiguous, in the dtype of ``thin``.
        scale: factor of the result.
        dropout: of the product.
        onto: what it is added to in place, (tokens, features), contiguous; None for nothing.
    """
    (tokens, rank), features = thin.shape, a.shape[1]
    if not thin.is_cuda:
        own = dropout.of(scale * (thin @ a))
        return own if onto is None else onto.add_(own)
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    out = thin.new_empty(tokens, features) if onto is None else onto
    rows, block = (64, 128) if rank <= 32 else (128, 64)
    kernels.expansion[(_blocks(tokens, rows), _blocks(features, block))](
        thin, a, out, dropout.seed, dropout.threshold, scale * dropout.scale, tokens, features,
        rank, thin.stride(0),
        RANK=_padded(rank, 64), ROWS=rows, BLOCK=block, DROPS=dropout.share > 0,
        ADDS=onto is not None,
    )  # fmt: skip
    return out


def outer(
    thin: torch.Tensor, x: torch.Tensor, scale: float = 1.0, dropout: Dropout = NONE
) -> torch.Tensor:
    """Return ``scale * thin.T @ dropped(x)``, (rank, features), on CUDA in float32.

    Args:
        thin: (tokens, rank); its last stride is 1.
        x: (tokens, features).
        scale: factor of the result.
        dropout: of ``x``.
    """
    (tokens, rank), features = thin.shape, x.shape[1]
    if not x.is_cuda:
        return scale * thin.T @ dropout.of(x)
    from llama_recipes_local.kernels.triton import thin_kernels as kernels

    padded = _padded(rank, 64)
    rows, block = 64, 64
    rows_of_part = _blocks(_blocks(tokens, rows), _PARTS) * rows
    parts = _blocks(tokens, rows_of_part)
    out = torch.empty(parts, rank, features, device=x.device)
    kernels.outer[(_blocks(features, block), parts, _blocks(rank, padded))](
        thin, x, out, dropout.seed, dropout.threshold, scale * dropout.scale, tokens, features,
        rank, rows_of_part, thin.stride(0),
        RANK=padded, ROWS=rows, BLOCK=block, DROPS=dropout.share > 0,
    )  # fmt: skip
    return out.sum(0)


def _padded(rank: int, most: int) -> int:
    """Return how much of a rank a program takes: a power of two, as matrix instructions want."""
    return min(max(16, 1 << (rank - 1).bit_length()), most)


def _blocks(length: int, block: int) -> int:
    return -(-length // block)
