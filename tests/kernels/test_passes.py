"""Functions with gradients of their own, against torch's autograd in float64."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from llama_recipes_local.kernels import norm, swiglu, vocabulary_loss
from llama_recipes_local.kernels.labelled_rows import labelled


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def gradients(outputs: Any, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the gradients of inputs, of a sum of the outputs with random weights."""
    total = sum((out * random(*out.shape, seed=9)).sum() for out in outputs)
    return torch.autograd.grad(total, inputs)


@pytest.mark.parametrize("added", [True, False])
def test_add_and_norm(added: bool) -> None:
    stream, branch, weight = random(2, 5, 24), random(2, 5, 24, seed=1), random(24, seed=2)
    inputs = (stream, branch) if added else (stream,)
    total = stream + branch if added else stream
    want = total, F.rms_norm(total, (24,), weight, eps=1e-3)
    *got, made_of = norm.add_and_norm(stream, branch if added else None, weight, 1e-3)
    assert torch.equal(made_of.again(), got[1])
    torch.testing.assert_close(tuple(got), want)
    torch.testing.assert_close(gradients(got, *inputs), gradients(want, *inputs))


def test_swiglu_and_its_gradients() -> None:
    gate, up, gradient = random(6, 10), random(6, 10, seed=1), random(6, 10, seed=2).detach()
    want = F.silu(gate) * up
    torch.testing.assert_close(swiglu.swiglu(gate, up), want)
    expected = *torch.autograd.grad(want, (gate, up), gradient), want
    found = swiglu.swiglu_backward(gradient.clone(), gate, up, again=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rows_at_a_time", [1, 3, 1000])
def test_vocabulary_loss(rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_loss, "_ELEMENTS", rows_at_a_time * 11)
    hidden, weight = random(2, 7, 6), random(11, 6, seed=1).detach()
    labels = torch.tensor([[1, 2, -100, 4, 5, -100, -100], [-100, -100, -100, 0, 10, 3, 3]])
    logits = (hidden @ weight.T)[:, :-1].flatten(0, 1)
    want = F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / 5
    got = vocabulary_loss.vocabulary_loss(hidden, weight, labelled(labels), 5)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients([got], hidden), gradients([want], hidden))


def test_logits_of_a_part_are_let_go_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[StorageWeakRef] = []
    compute = vocabulary_loss._loss_and_gradient

    def watched(logits: torch.Tensor, labels: torch.Tensor) -> Any:
        assert all(each.expired() for each in seen)
        seen.append(StorageWeakRef(logits.untyped_storage()))
        return compute(logits, labels)

    monkeypatch.setattr(vocabulary_loss, "_loss_and_gradient", watched)
    monkeypatch.setattr(vocabulary_loss, "_ELEMENTS", 2 * 11)
    hidden, weight = random(1, 8, 6), random(11, 6, seed=1).detach()
    vocabulary_loss.vocabulary_loss(hidden, weight, labelled(torch.arange(8)[None]), 5)
    assert len(seen) == 4


def test_vocabulary_loss_without_labels_is_zero() -> None:
    hidden, weight = random(1, 4, 6), random(11, 6, seed=1).detach()
    none = labelled(torch.full((1, 4), -100))
    loss = vocabulary_loss.vocabulary_loss(hidden, weight, none, 1)
    assert loss == 0
    assert not torch.autograd.grad(loss, hidden)[0].any()
