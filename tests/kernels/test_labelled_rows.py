"""The last layer is computed for the rows that the loss reads, and for no others."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import frozen, labelled_rows
from llama_recipes_local.kernels.labelled_rows import labelled, put, take

IDS = torch.arange(3 * 200).reshape(3, 200) * 7 % 50


def labels_at(*spans: tuple[int, int]) -> torch.Tensor:
    """Return labels in a span of each row."""
    labels = torch.full_like(IDS, -100)
    for row, (first, end) in enumerate(spans):
        labels[row, first:end] = IDS[row, first:end]
    return labels


@pytest.mark.parametrize(
    ("spans", "rows"),
    [
        (((0, 0), (0, 0), (0, 0)), 128),  # none at all
        (((50, 60), (0, 3), (199, 200)), 128),  # 13 labels, of which one is predicted nowhere
        (((0, 129), (0, 1), (0, 1)), 128),
        (((0, 130), (0, 1), (0, 1)), 256),
        (((0, 200), (0, 200), (0, 115)), 512),
        (((0, 200), (0, 200), (0, 117)), None),  # 514 labels: 640 rows are more than there are
        (((0, 200), (0, 200), (0, 200)), None),
    ],
)
def test_rows_are_those_of_labels_and_some_more(
    spans: tuple[tuple[int, int], ...], rows: int | None
) -> None:
    labels = labels_at(*spans)
    found = labelled(labels)
    following = torch.cat([labels[:, 1:], torch.full((3, 1), -100)], dim=1).flatten()
    assert found.positions.tolist() == [n for n, label in enumerate(following) if label != -100]
    assert found.labels.tolist() == [label for label in following.tolist() if label != -100]
    if rows is None:
        assert found.rows is None
        return
    assert found.rows is not None and len(found.rows) == len(set(found.rows.tolist())) == rows
    assert set(found.positions.tolist()) <= set(found.rows.tolist())


def test_rows_are_taken_and_put_back_and_so_are_their_gradients() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([7, 0, 4])
    taken = take(x, rows)
    torch.testing.assert_close(taken, x.flatten(0, 1)[rows][None])
    whole = put(taken, rows, x.shape)
    assert sorted(whole.detach().flatten(0, 1).any(-1).nonzero().flatten().tolist()) == [0, 4, 7]
    torch.testing.assert_close(whole.flatten(0, 1)[rows][None], taken)
    assert torch.autograd.gradcheck(lambda x: put(take(x, rows) * 2, rows, x.shape), x)


@pytest.mark.parametrize(("ends", "rows"), [((200, 200, 200), 600), ((200, 0, 0), 256)])
def test_the_last_mlp_reads_labelled_rows_alone(
    ends: tuple[int, int, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        vocab_size=50,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    frozen.install(model)
    seen: list[int] = []
    mlp = frozen.trained_layers.mlp

    def watched(x: torch.Tensor, *args: Any) -> torch.Tensor:
        seen.append(x.shape[:-1].numel())
        return mlp(x, *args)

    monkeypatch.setattr(frozen.trained_layers, "mlp", watched)
    labels = labels_at(*((0, end) for end in ends))
    model(input_ids=IDS, labels=labels, num_items_in_batch=1.0)
    assert seen == [600, 600, rows]
    seen.clear()
    logits = model(input_ids=IDS).logits  # nothing is left out where logits are asked for
    assert seen == [600, 600, 600] and logits.shape == (3, 200, 50)


def test_few_of_many_rows_are_taken_only_if_that_leaves_some_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labelled_rows, "_MULTIPLE", 1)
    assert labelled(labels_at((0, 200), (0, 200), (0, 170))).rows is not None
    assert labelled(labels_at((0, 200), (0, 200), (0, 180))).rows is None
