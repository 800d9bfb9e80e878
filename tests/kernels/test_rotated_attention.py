"""Rotary positions and attention as one function equal transformers', one after another.

The device's kernel is replaced by torch's attention of each document; ``tests/cuda`` has it.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers.models.llama import modeling_llama

from llama_recipes_local.kernels import DOCUMENTS, rotated_attention

HEADS, KV_HEADS, HEAD_DIM, SCALING = 4, 2, 8, 0.3
LENGTHS = [[3, 6], [9]]
BOUNDS = torch.tensor([0, 3, 9, 18], dtype=torch.int32)


def by_documents(rows: list[torch.Tensor], bounds: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attend within documents; queries and what is returned are (tokens, heads, head_dim)."""
    each = [x.tensor_split(bounds[1:-1].tolist()) for x in rows]
    attended = [
        F.scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in document),
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )[0].transpose(0, 1)
        for document in zip(*each, strict=True)
    ]
    return torch.cat(attended)


def forward(rows: list[torch.Tensor], documents: Any, scaling: float) -> Any:
    assert documents[1] == 9
    nothing = torch.empty(0)
    return by_documents(rows, documents[0], scaling), nothing, nothing, nothing


def backward(gradient: torch.Tensor, kept: Any, documents: Any, scaling: float) -> Any:
    with torch.enable_grad():
        rows = [x.detach().requires_grad_() for x in kept[:3]]
        return torch.autograd.grad(by_documents(rows, documents[0], scaling), rows, gradient)


def test_it_is_transformers_rotation_and_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotated_attention, "_forward", forward)
    monkeypatch.setattr(rotated_attention, "_backward", backward)
    torch.manual_seed(0)
    widths = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    projected = tuple(
        torch.randn(2, 9, width, dtype=torch.float64, requires_grad=True) for width in widths
    )
    turned = torch.cat([torch.randn(2, 9, HEAD_DIM // 2, dtype=torch.float64)] * 2, dim=-1)
    angles = turned.cos(), turned.sin()
    got = rotated_attention.attend(projected, angles, (BOUNDS, 9), HEAD_DIM, SCALING)
    query, key, value = (x.view(2, 9, -1, HEAD_DIM).transpose(1, 2) for x in projected)
    query, key = modeling_llama.apply_rotary_pos_emb(query, key, *angles)
    masks = [torch.block_diag(*[torch.ones(n, n).tril() for n in row]) for row in LENGTHS]
    mask = torch.stack(masks).bool().unsqueeze(1)
    want = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=SCALING, enable_gqa=True
    )
    want = want.transpose(1, 2).flatten(2)
    torch.testing.assert_close(got, want)
    given = torch.randn_like(got)
    gradients = (torch.autograd.grad(each, projected, given) for each in (got, want))
    torch.testing.assert_close(*gradients)


KNOWN: dict[str, Any] = {"cu_seq_lens_q": BOUNDS, "max_length_q": 9}


@pytest.mark.parametrize(
    ("changed", "applies"),
    [
        ({}, True),
        ({"name": "sdpa"}, False),
        ({"mask": torch.ones(2, 9)}, False),
        ({"kwargs": {"cu_seq_lens_q": BOUNDS}}, False),
        ({"kwargs": KNOWN | {"prefix": object()}}, False),
        ({"kwargs": KNOWN | {"prompts": object()}}, False),
        ({"kernel": False}, False),
        ({"long": True}, False),
    ],
)
def test_it_is_computed_where_nothing_else_is_asked_for(
    changed: dict[str, Any], applies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = {"name": DOCUMENTS, "mask": None, "kwargs": KNOWN, "kernel": True} | changed
    monkeypatch.setattr(rotated_attention, "are_long_rows", lambda *_: "long" in changed)
    monkeypatch.setattr(rotated_attention, "supports_varlen_kernel", lambda *_: case["kernel"])
    config = SimpleNamespace(_attn_implementation=case["name"])
    module, query = SimpleNamespace(config=config, head_dim=HEAD_DIM), torch.randn(2, 9, 32)
    assert rotated_attention.applies(module, query, case["mask"], case["kwargs"]) is applies


def test_it_leaves_casts_to_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotated_attention, "supports_varlen_kernel", lambda *_: True)
    config = SimpleNamespace(_attn_implementation=DOCUMENTS)
    module, query = SimpleNamespace(config=config, head_dim=HEAD_DIM), torch.randn(2, 9, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert not rotated_attention.applies(module, query, None, KNOWN)
        assert rotated_attention.applies(module, query.bfloat16(), None, KNOWN)
