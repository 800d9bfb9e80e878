"""Attention that isolates packed documents without a mask, ``NAME`` in transformers.

A row of several documents could be attended with a block-diagonal mask. The mask has seq * seq
entries, and most of the scores that SDPA computes for it are thrown away. Here each document is
attended separately, which is exact and costs the sum of the squared lengths rather than the square
of the sum:

- on CUDA in bfloat16 or float16, all documents in one call of torch's variable-length kernel
  (``varlen_attn``, FlashAttention), which needs neither a package nor padding, or long ones of one
  length in one call of cuDNN's kernel, as rows;
- elsewhere by one causal SDPA call per document and layer.

Document bounds are transformers' ``cu_seq_lens_q``, or found where positions restart. The price:
attention dropout is not applied, and finding bounds from positions waits for the device
(``data.collation`` passes them along). A batch with a padding mask or a cache goes to transformers'
SDPA unchanged.

Shapes: tensors of transformers are (batch, heads, seq, head_dim). Inside, all rows are laid one
after another, (tokens, heads, head_dim) with tokens = batch * seq.
"""

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, create_causal_mask, sdpa_mask
from transformers.models.llama import modeling_llama

from llama_recipes_local.data.documents import document_bounds
from llama_recipes_local.kernels import DOCUMENTS
from llama_recipes_local.kernels.adapter_prompts import Prompts
from llama_recipes_local.kernels.base import AttentionKernel
from llama_recipes_local.kernels.prefix import Prefix
from llama_recipes_local.library_patches import CAUSAL_MASK

NAME = DOCUMENTS
HALF_PRECISION = (torch.bfloat16, torch.float16)
MAX_KERNEL_HEAD_DIM = 256
HOPPER = (9, 0)
"""Compute capability of the devices on which choices between kernels were measured."""
LONG = 2048
"""Tokens of documents of one length, or a multiple, that cuDNN attends faster."""

_PARAMETERS = inspect.signature(varlen_attn).parameters
# arguments for causal attention and for grouped heads differ between torch 2.11 and 2.13
_VARLEN: dict[str, Any] = (
    {"window_size": (-1, 0)} if "window_size" in _PARAMETERS else {"is_causal": True}
) | ({"enable_gqa": True} if "enable_gqa" in _PARAMETERS else {})


def document_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    prefix: Prefix | None = None,
    prompts: Prompts | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    position_ids: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each document.

    Args:
        module: the attention layer.
        query: (batch, heads, seq, head_dim), the documents of each row concatenated.
        key: (batch, kv_heads, seq, head_dim).
        value: (batch, kv_heads, seq, head_dim).
        attention_mask: None unless there is padding or a cache.
        scaling: factor on the scores; None means 1/sqrt(head_dim).
        dropout: probability of dropping a score; documents are attended without dropout.
        prefix: keys and values before every document, see ``adapters.prefix``.
        prompts: keys and values to attend to in addition, see ``adapters.llama_adapter``.
        cu_seq_lens_q: (documents + 1,) int32, where each document begins in the rows one after
            another, and the total.
        max_length_q: tokens in the longest document.
        position_ids: (batch, seq), restarting at each document; used where ``cu_seq_lens_q`` is not
            given.
        **kwargs: further arguments, which go to transformers' SDPA.

    Returns:
        (batch, seq, heads, head_dim), and None for the scores.
    """
    if attention_mask is None and query.shape[2] == key.shape[2]:
        if prefix is not None:
            documents = prefix.bounds, prefix.longest
        elif cu_seq_lens_q is not None and max_length_q is not None:
            documents = cu_seq_lens_q, max_length_q
        else:
            documents = _documents_by_position(query, position_ids)
        attended = _attend_documents(module, query, key, value, scaling, prefix, documents)
    else:
        if prefix is not None:
            assert attention_mask is not None
            layer: Any = module.layer_idx
            key, value, attention_mask = prefix.before_rows(layer, key, value, attention_mask)
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    return (attended if prompts is None else attended + prompts.attend(query)), None


def _attend_documents(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    prefix: Prefix | None,
    documents: tuple[torch.Tensor, int],
) -> torch.Tensor:
    """Attend within documents, each behind the prefix if there is one.

    ``documents`` are their bounds, (documents + 1,) int32, and the longest one's length. The other
    arguments and the result are those of ``document_attention``.
    """
    shape = query.transpose(1, 2).shape  # (batch, seq, heads, head_dim)
    groups = query.shape[1] // key.shape[1]
    bounds, longest = key_bounds, longest_key = documents
    # all rows one after another: (batch * seq, heads, head_dim)
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    if prefix is not None:
        key_bounds, longest_key = prefix.key_bounds, longest + prefix.length
        layer: Any = module.layer_idx
        key, value = prefix.before_documents(layer, key, value)
    query, key, value = (_autocast(x) for x in (query, key, value))
    if prefix is None and are_long_rows(query, len(query), bounds, longest):
        return _attend_rows(query, key, value, longest, scaling).view(shape)
    if supports_varlen_kernel(query, query.shape[-1]):
        attended = varlen_attn(
            query, key, value, bounds, key_bounds, longest, longest_key, scale=scaling, **_VARLEN
        )
        assert isinstance(attended, torch.Tensor)
    else:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        lengths = bounds.diff().tolist(), key_bounds.diff().tolist()
        attended = _attend_one_by_one(query, key, value, *lengths, scaling)
    return attended.view(shape)


def _documents_by_position(
    query: torch.Tensor, position_ids: torch.Tensor | None
) -> tuple[torch.Tensor, int]:
    """Return the bounds of documents whose positions restart; see ``document_bounds``.

    Args:
        query: (batch, heads, seq, head_dim).
        position_ids: (batch, seq) or (1, seq); None if each row is a document.
    """
    if position_ids is None:
        position_ids = torch.arange(query.shape[2], device=query.device)
    return document_bounds(position_ids.expand(query.shape[0], -1))


def _autocast(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in autocast's dtype, to which torch's own attention would cast it.

    Where the embedding's weights are in float32, so are the rotary embeddings, and the queries and
    keys that they rotate.
    """
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def supports_varlen_kernel(query: torch.Tensor, head_dim: int) -> bool:
    """Return whether torch's variable-length kernel takes ``query`` (FlashAttention's limits)."""
    return (
        query.is_cuda
        and query.dtype in HALF_PRECISION
        and head_dim <= MAX_KERNEL_HEAD_DIM
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def on_hopper(x: torch.Tensor) -> bool:
    """Return whether ``x`` is on a device of the kind that was measured."""
    return x.is_cuda and torch.cuda.get_device_capability(x.device) == HOPPER


def are_long_rows(query: torch.Tensor, tokens: int, bounds: torch.Tensor, longest: int) -> bool:
    """Return whether documents, all of one length, are attended faster by cuDNN's kernel.

    It takes 0.1 s to plan for a new length, so it is left those at which rows are cut: documents
    of other lengths would be planned for each time.

    Args:
        query: of any shape.
        tokens: in all rows together.
        bounds: of the documents, (documents + 1,) int32.
        longest: tokens in the longest document.
    """
    equal = longest % LONG == 0 and (len(bounds) - 1) * longest == tokens
    return equal and query.dtype in HALF_PRECISION and on_hopper(query)


def _attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    length: int,
    scaling: float | None,
) -> torch.Tensor:
    """Attend within documents of one length; all tensors are (tokens, heads, head_dim)."""
    query, key, value = (x.unflatten(0, (-1, length)).transpose(1, 2) for x in (query, key, value))
    # FlashAttention where cuDNN's kernel does not take the size of the heads
    kernels = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
    with sdpa_kernel(kernels, set_priority=True):
        attended = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
    return attended.transpose(1, 2).flatten(0, 1)


def _attend_one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    key_lengths: list[int],
    scaling: float | None,
) -> torch.Tensor:
    """Attend with plain SDPA, document by document; all tensors are (tokens, heads, head_dim).

    If a document has more keys than queries, the first keys are a prefix that every query attends
    to.
    """
    # with a batch dimension of 1: SDPA has no fast kernel for three dimensions on CPU
    batched = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
    split = [
        x.split(n, dim=2) for x, n in zip(batched, (lengths, key_lengths, key_lengths), strict=True)
    ]
    attended = []
    for q, k, v in zip(*split, strict=True):
        before = k.shape[2] - q.shape[2]
        if before:
            mask = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(before)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        attended.append(out)
    return torch.cat(attended, dim=2).squeeze(0).transpose(0, 1).contiguous()


def _mask(**arguments: Any) -> torch.Tensor | None:
    """Build transformers' SDPA mask, or none where there is neither padding nor a cache."""
    if arguments["attention_mask"] is None and arguments["q_length"] == arguments["kv_length"]:
        return None
    return sdpa_mask(**arguments)


def _create_causal_mask(*args: Any, **kwargs: Any) -> Any:
    """Make a Llama's mask as transformers does; for this package's attention make none.

    transformers first searches the positions for packed documents, which waits for the device in
    each micro-batch. This package's attention gets the documents' bounds as arguments.
    """
    config = kwargs.get("config")
    unmasked = kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None
    if config is not None and config._attn_implementation == NAME and unmasked:
        return None
    return create_causal_mask(*args, **kwargs)


def register() -> None:
    """Register the kernel with transformers as ``attn_implementation="documents"``.

    Raises:
        TargetMissingError: if transformers' Llama does not call the function that is replaced here.
    """
    CAUSAL_MASK.check()
    AttentionInterface.register(NAME, document_attention)
    AttentionMaskInterface.register(NAME, _mask)
    modeling_llama.create_causal_mask = _create_causal_mask  # type: ignore[attr-defined]


KERNEL = AttentionKernel(
    name=NAME,
    replaces="attention, document by document without a mask",
    default_for=("llama",),
    register=register,
)
