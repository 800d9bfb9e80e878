"""The Triton kernels of short packed documents beside float64, at odd sizes too.

FlashAttention rounds the same values to half precision (rotated queries and keys, shares, gradients
of scores) and sums in float32 too, in another order, so an error of its size is rounding.
"""

import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers.models.llama import modeling_llama

from llama_recipes_local.kernels import packed_attention, rotated_attention

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LONG = [1, 2, 63, 64, 65, 130, 700]
ORDER = 1.1  # of an error of rounding that sums are made in another order


def exact(projected: Any, angles: Any, lengths: list[int], head_dim: int, scaling: float) -> Any:
    """Return what is attended to, computed by transformers and torch without these kernels."""
    query, key, value = (x.view(*x.shape[:2], -1, head_dim) for x in projected)
    query, key = modeling_llama.apply_rotary_pos_emb(query, key, *angles, unsqueeze_dim=2)
    rows = [x.flatten(0, 1).transpose(0, 1)[None] for x in (query, key, value)]
    mask = torch.block_diag(*[torch.ones(n, n, device="cuda").tril() for n in lengths]).bool()
    attended = F.scaled_dot_product_attention(*rows, attn_mask=mask, scale=scaling, enable_gqa=True)
    return attended[0].transpose(0, 1).reshape(*projected[0].shape)


def errors(got: Any, want: Any) -> list[float]:
    pairs = zip(got, want, strict=True)
    return [((one.double() - two).norm() / two.norm()).item() for one, two in pairs]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "dtype"),
    [
        (4, 4, 128, torch.bfloat16),
        (8, 1, 128, torch.bfloat16),
        (8, 2, 64, torch.bfloat16),
        (8, 2, 64, torch.float16),
    ],
)
@pytest.mark.parametrize(
    ("lengths", "rows"), [(LONG, 1), ([500, 11, 64, 447], 2), ([1, 3], 1), ([64, 128, 320, 5], 1)]
)
def test_it_is_as_exact_as_flash_attention(
    lengths: list[int], rows: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    seq, scaling = sum(lengths) // rows, 0.9 * head_dim**-0.5
    projected = tuple(
        torch.randn(rows, seq, n * head_dim, device="cuda").to(dtype).requires_grad_()
        for n in (heads, kv_heads, kv_heads)
    )
    turned = torch.randn(rows, seq, head_dim // 2, device="cuda").repeat(1, 1, 2)
    angles = turned.cos().to(dtype), turned.sin().to(dtype)
    bounds = torch.tensor([0, *lengths], device="cuda").cumsum(0).int()
    given = torch.randn_like(projected[0])

    def all_of(out: torch.Tensor, of: Any) -> list[torch.Tensor]:
        return [out.detach(), *torch.autograd.grad(out, of, given.to(out.dtype))]

    doubles = [x.detach().double().requires_grad_() for x in projected]
    wide = [x.double() for x in angles]
    want = all_of(exact(doubles, wide, lengths, head_dim, scaling), doubles)
    documents = bounds, max(lengths)
    flash = rotated_attention._Attend.apply(*projected, angles, documents, head_dim, scaling)
    here = packed_attention.attend(projected, angles, bounds, head_dim, scaling)
    found, usual = (errors(all_of(out, projected), want) for out in (here, flash))
    assert all(one < ORDER * other for one, other in zip(found, usual, strict=True))


def test_angles_of_one_row_serve_all_and_views_are_read_as_they_lie() -> None:
    torch.manual_seed(0)
    joined = torch.randn(2, 70, 3 * 128, device="cuda", dtype=torch.bfloat16)
    turned = torch.randn(1, 70, 64, device="cuda").repeat(1, 1, 2)
    angles = turned.cos().bfloat16(), turned.sin().bfloat16()
    bounds = torch.tensor([0, 70, 100, 140], device="cuda").int()
    one, two = (
        packed_attention.attend(parts, by, bounds, 128, 0.1)
        for parts, by in (
            (joined.split(128, -1), angles),
            (
                tuple(x.contiguous() for x in joined.split(128, -1)),
                tuple(x.repeat(2, 1, 1) for x in angles),
            ),
        )
    )
    assert torch.equal(one, two)


def test_documents_do_not_see_each_other_and_gradients_repeat_to_the_bit() -> None:
    torch.manual_seed(0)
    lengths = [30, 100, 1, 61]
    whole = [torch.randn(1, 192, 512, device="cuda").half() for _ in range(3)]
    turned = torch.randn(1, 192, 64, device="cuda").repeat(1, 1, 2).half()
    ends = list(itertools.accumulate(lengths))

    def of(parts: list[torch.Tensor], turned: torch.Tensor, lengths: list[int]) -> Any:
        leaves = [x.clone().requires_grad_() for x in parts]
        bounds = torch.tensor([0, *lengths], device="cuda").cumsum(0).int()
        out = packed_attention.attend(tuple(leaves), (turned.cos(), turned.sin()), bounds, 128, 0.1)
        return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]

    got = of(whole, turned, lengths)
    assert all(map(torch.equal, got, of(whole, turned, lengths)))
    for length, end in zip(lengths, ends, strict=True):
        part = slice(end - length, end)
        alone = of([x[:, part] for x in whole], turned[:, part], [length])
        for one, two in zip(alone, got, strict=True):
            torch.testing.assert_close(one, two[:, part], rtol=2e-3, atol=2e-3)
