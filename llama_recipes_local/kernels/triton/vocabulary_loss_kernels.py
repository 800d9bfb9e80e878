"""Triton kernel of ``vocabulary_loss``."""

import triton
import triton.language as tl

from llama_recipes_local.kernels.triton.fast_launch import fast


@fast
@triton.jit
def loss_and_gradient(logits, labels, losses, vocabulary, BLOCK: tl.constexpr):
    """Write a row's cross entropy, and its gradient over the logits; computed in float32."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocabulary
    label = tl.load(labels + row)
    largest = float("-inf")
    total = 0.0
    for first in range(0, vocabulary, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        x = tl.load(logits + columns, mask=columns < vocabulary, other=float("-inf"))
        x = x.to(tl.float32)
        above = tl.maximum(largest, tl.max(x))
        total = total * tl.exp(largest - above) + tl.sum(tl.exp(x - above))
        largest = above
    own = tl.load(logits + label).to(tl.float32)
    tl.store(losses + row, tl.log(total) + largest - own)
    for first in range(0, vocabulary, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < vocabulary
        x = tl.load(logits + columns, mask=inside, other=float("-inf")).to(tl.float32)
        share = tl.exp(x - largest) / total
        share = tl.where(columns == label, share - 1.0, share)
        tl.store(logits + columns, share.to(logits.dtype.element_ty), mask=inside)
