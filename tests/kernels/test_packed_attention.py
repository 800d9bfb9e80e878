"""The attention of short packed documents: when it is chosen, and what its kernels are told.

The kernels themselves need a CUDA device: ``tests/cuda/test_packed_attention_cuda.py``.
"""

from typing import Any

import pytest
import torch

from llama_recipes_local.kernels import packed_attention, rotated_attention
from llama_recipes_local.kernels.packed_attention import LONGEST, SHORT


class OnDevice:
    """Queries on a device that is not here, 2 rows of 4,096 tokens."""

    is_cuda, device, shape = True, torch.device("cuda", 0), torch.Size((2, 4096, 128))


@pytest.mark.parametrize(
    ("changed", "chosen"),
    [
        ({}, True),
        ({"head_dim": 64}, True),
        ({"head_dim": 96}, False),
        ({"documents": 8192 // SHORT}, True),
        ({"documents": 8192 // SHORT - 1}, False),
        ({"longest": LONGEST}, True),
        ({"longest": LONGEST + 1}, False),
        ({"capability": (8, 0)}, False),
        ({"capability": (10, 0)}, False),
    ],
)
def test_it_is_chosen_where_it_was_measured_to_be_faster(
    changed: dict[str, Any], chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = {"head_dim": 128, "documents": 100, "longest": 147, "capability": (9, 0)} | changed
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: case["capability"])
    query: Any = OnDevice()
    found = packed_attention.applies(query, case["head_dim"], case["documents"], case["longest"])
    assert found is chosen


def test_it_is_not_chosen_without_a_device() -> None:
    assert not packed_attention.applies(torch.empty(1, 60, 128), 128, 1, 60)


def test_spans_are_each_tokens_document_and_made_once() -> None:
    lengths = [3, 1, 1, 64, 2]
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    spans = packed_attention.document_spans(bounds, 71)
    assert spans.dtype == torch.int32
    assert spans.is_contiguous()
    want = [[0, 3]] * 3 + [[3, 4], [4, 5]] + [[5, 69]] * 64 + [[69, 71]] * 2
    assert spans.T.tolist() == want
    assert packed_attention.document_spans(bounds, 71) is spans
    other = packed_attention.document_spans(torch.tensor([0, 71]).int(), 71)
    assert other.T.tolist() == [[0, 71]] * 71


def test_short_documents_are_attended_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(packed_attention, "applies", lambda *given: asked.append(given) or True)
    monkeypatch.setattr(packed_attention, "attend", lambda *given: given)
    bounds, projected = torch.tensor([0, 5, 9]).int(), (torch.empty(1, 9, 64),) * 3
    got = rotated_attention.attend(projected, projected[:2], (bounds, 5), 64, 0.5)
    assert got == (projected, projected[:2], bounds, 64, 0.5)
    assert asked == [(projected[0], 64, 2, 5)]
