"""Attention that keeps packed documents apart without building a mask.

Registered with transformers under the name ``NAME``. Documents are named by their cumulative
lengths (``cu_seq_lens_q``, transformers' own argument); where that is missing, by positions that
restart. They are attended one by one: in torch's variable-length kernel on CUDA in half precision,
else by one causal SDPA call a document, which is exact and costs the sum of the squared lengths
rather than the square of the sum. A batch with a padding mask or a cache goes to transformers'
SDPA unchanged.
"""

import inspect
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from llama_recipes_local.data.documents import document_bounds

NAME = "documents"
HALF_PRECISION = (torch.bfloat16, torch.float16)
MAX_KERNEL_HEAD_DIM = 256

# torch 2.11 says causal in one way, 2.13 in another
_CAUSAL: dict[str, Any] = (
    {"window_size": (-1, 0)}
    if "window_size" in inspect.signature(varlen_attn).parameters
    else {"is_causal": True}
)


def document_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    position_ids: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each document.

    Args:
        module: the attention layer.
        query: (batch, heads, seq, head_dim), the documents of each row one after another.
        key: (batch, kv_heads, seq, head_dim).
        value: (batch, kv_heads, seq, head_dim).
        attention_mask: None unless there is padding or a cache.
        scaling: factor on the scores; None means 1/sqrt(head_dim).
        dropout: probability of dropping a score; documents are attended without dropout.
        cu_seq_lens_q: (documents + 1,) int32, where each document begins in the rows one after
            another, and the total.
        max_length_q: tokens in the longest document.
        position_ids: (batch, seq), used where ``cu_seq_lens_q`` is not given.

    Returns:
        (batch, seq, heads, head_dim), and None for the scores.
    """
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if cu_seq_lens_q is None or max_length_q is None:
        if position_ids is None:
            position_ids = torch.arange(query.shape[2], device=query.device)
        cu_seq_lens_q, max_length_q = document_bounds(position_ids.expand(query.shape[0], -1))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    shape = query.transpose(1, 2).shape
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    if _kernel_takes(query):
        bounds, longest = cu_seq_lens_q, max_length_q
        attended = varlen_attn(
            query, key, value, bounds, bounds, longest, longest, scale=scaling, **_CAUSAL
        )
        assert isinstance(attended, torch.Tensor)
    else:
        attended = _attend_one_by_one(query, key, value, cu_seq_lens_q.tolist(), scaling)
    return attended.view(shape), None


def _kernel_takes(query: torch.Tensor) -> bool:
    return (
        query.is_cuda
        and query.dtype in HALF_PRECISION
        and query.shape[-1] <= MAX_KERNEL_HEAD_DIM
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _attend_one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: list[int],
    scaling: float | None,
) -> torch.Tensor:
    """Attend with plain SDPA; all tensors are (tokens, heads, head_dim)."""
    lengths = [end - start for start, end in pairwise(bounds)]
    # with a batch dimension of 1: SDPA has no fast kernel for three dimensions on CPU
    batched = (x.transpose(0, 1).unsqueeze(0).split(lengths, dim=2) for x in (query, key, value))
    attended = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        for q, k, v in zip(*batched, strict=True)
    ]
    return torch.cat(attended, dim=2).squeeze(0).transpose(0, 1).contiguous()


def _mask(**arguments: Any) -> torch.Tensor | None:
    """Build transformers' SDPA mask, but none where neither padding nor a cache asks for one."""
    if arguments["attention_mask"] is None and arguments["q_length"] == arguments["kv_length"]:
        return None
    return sdpa_mask(**arguments)


def register() -> None:
    """Make the kernel known to transformers as ``attn_implementation="documents"``."""
    AttentionInterface.register(NAME, document_attention)
    AttentionMaskInterface.register(NAME, _mask)
