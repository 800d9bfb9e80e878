"""The loss of a step is the mean over its label tokens, however its rows are laid out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from llama_recipes_local.data.concatenator import IGNORE_INDEX, ConcatDataset

Samples = list[dict[str, list[int]]]
RunTraining = Callable[..., Any]

# Both sides are float32 sums of the same terms in another order. The loss is about 7, a sum over
# some 600 terms: half a spacing at 7 is 2.4e-7, so 1e-6 relative leaves room for the sum.
LOSS = {"rel": 1e-6}
# A gradient sums terms of both signs, so its error goes with the size of the terms, not of the
# sum: relative to the tensor's largest entry, 5e-7 is what is seen; this allows ten times that.
GRADIENT_ERROR = 5e-6


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two gradients, relative to each tensor's largest entry."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in theirs
    )


def reference(model: torch.nn.Module, samples: Samples) -> tuple[torch.Tensor, int]:
    """Return the plain loss: cross-entropy of each document alone, over all label tokens."""
    total, count = torch.zeros(()), 0
    for sample in samples:
        logits = model(torch.tensor([sample["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(sample["labels"][1:])
        total = total + cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
        count += int((labels != IGNORE_INDEX).sum())
    return total / count, count


def everything_a_label(samples: Samples) -> Samples:
    return [sample | {"labels": sample["input_ids"]} for sample in samples]


@pytest.fixture(scope="module", params=["responses", "whole texts"])
def labelled(request: pytest.FixtureRequest, samples: Samples) -> Samples:
    """Eight documents whose labels differ in number."""
    eight = samples[:8] if request.param == "responses" else everything_a_label(samples[:8])
    counts = {sum(label != IGNORE_INDEX for label in sample["labels"]) for sample in eight}
    assert len(counts) > 4
    return eight


LAYOUTS = {
    "packed": {"batch_size_training": 100},
    "packed, a row at a time": {"batch_size_training": 1, "gradient_accumulation_steps": 100},
    "padded": {"batching_strategy": "padding", "batch_size_training": 8},
    "padded, two at a time": {
        "batching_strategy": "padding",
        "batch_size_training": 2,
        "gradient_accumulation_steps": 4,
    },
    "one by one": {
        "batching_strategy": "padding",
        "batch_size_training": 1,
        "gradient_accumulation_steps": 8,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_step_equals_plain_cross_entropy(
    run_training: RunTraining,
    make_model: Callable[..., torch.nn.Module],
    labelled: Samples,
    layout: dict[str, Any],
) -> None:
    plain = make_model(attn_implementation="sdpa")
    loss, count = reference(plain, labelled)
    loss.backward()
    training = run_training(labelled, **layout)
    assert len(training.steps) == 1
    assert training.steps[0]["label_tokens"] == count
    assert training.steps[0]["loss"] == pytest.approx(loss.item(), **LOSS)
    gradient = {name: p.grad for name, p in plain.named_parameters()}
    assert largest_difference(training.gradients[0], gradient) < GRADIENT_ERROR


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_packed_documents_are_kept_apart_by_transformers_own_kernels(
    run_training: RunTraining,
    make_model: Callable[..., torch.nn.Module],
    samples: Samples,
    kernel: str,
) -> None:
    loss, _ = reference(make_model(attn_implementation=kernel), samples[:8])
    training = run_training(
        samples[:8], model=make_model(attn_implementation=kernel), **LAYOUTS["packed"]
    )
    assert training.steps[0]["loss"] == pytest.approx(loss.item(), **LOSS)


@pytest.mark.parametrize("strategy", ["packing", "padding"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 8), (2, 4), (4, 2)])
def test_accumulated_rows_equal_one_batch(
    run_training: RunTraining, samples: Samples, strategy: str, batch_size: int, accumulation: int
) -> None:
    rows = samples[:8] if strategy == "padding" else samples[:32]
    assert strategy == "padding" or len(ConcatDataset(rows, 256)) >= 8
    fields = {"batching_strategy": strategy, "max_train_step": 1}
    whole = run_training(rows, batch_size_training=8, **fields)
    parts = run_training(
        rows,
        batch_size_training=batch_size,
        gradient_accumulation_steps=accumulation,
        **fields,
    )
    assert parts.steps[0]["label_tokens"] == whole.steps[0]["label_tokens"]
    assert parts.steps[0]["tokens"] <= whole.steps[0]["tokens"]
    assert parts.steps[0]["loss"] == pytest.approx(whole.steps[0]["loss"], **LOSS)
    assert largest_difference(parts.gradients[0], whole.gradients[0]) < GRADIENT_ERROR


def test_rows_of_unequal_length_are_not_a_mean_of_means(
    run_training: RunTraining, samples: Samples
) -> None:
    # guards the tests above: on these rows the wrong mean is off by far more than they allow
    fields = {"batching_strategy": "padding", "batch_size_training": 1, "lr": 1e-9}
    single = run_training(samples[:8], **fields)
    whole = run_training(samples[:8], **fields | {"batch_size_training": 8})
    mean_of_means = sum(step["loss"] for step in single.steps) / 8
    assert abs(mean_of_means - whole.steps[0]["loss"]) > 1e-3


def test_rows_of_the_last_step_count_as_much(run_training: RunTraining, samples: Samples) -> None:
    # 5 rows in steps of 4: the last step has one micro-batch, and its own label tokens alone
    fields = {"batching_strategy": "padding", "batch_size_training": 1, "lr": 1e-9}
    parts = run_training(samples[:5], gradient_accumulation_steps=4, **fields)
    single = run_training(samples[:5], **fields)
    assert [step["label_tokens"] for step in parts.steps] == [
        sum(step["label_tokens"] for step in single.steps[:4]),
        single.steps[4]["label_tokens"],
    ]
    assert parts.steps[1]["loss"] == pytest.approx(single.steps[4]["loss"], **LOSS)
    assert largest_difference(parts.gradients[1], single.gradients[4]) < GRADIENT_ERROR


def test_a_batch_without_labels_moves_nothing(
    run_training: RunTraining,
    make_model: Callable[..., torch.nn.Module],
    samples: Samples,
) -> None:
    without = [sample | {"labels": [IGNORE_INDEX] * len(sample["labels"])} for sample in samples]
    training = run_training(without[:4])
    assert [step["loss"] for step in training.steps] == [0.0] * len(training.steps)
    before = make_model().state_dict()
    assert all(value.equal(before[name]) for name, value in training.model.state_dict().items())


def test_an_epochs_loss_is_the_mean_over_its_label_tokens(
    run_training: RunTraining, samples: Samples
) -> None:
    training = run_training(samples[:24], batch_size_training=1)
    labels = [step["label_tokens"] for step in training.steps]
    losses = [step["loss"] for step in training.steps]
    expected = sum(a * b for a, b in zip(losses, labels, strict=True)) / sum(labels)
    assert len(training.steps) > 3
    assert training.results["avg_train_loss"] == pytest.approx(expected)


def test_every_label_of_an_epoch_is_learnt_once(
    run_training: RunTraining, samples: Samples
) -> None:
    samples = samples[:24]
    packed = ConcatDataset(samples, 256)
    expected = sum(sum(label != IGNORE_INDEX for label in row["labels"][1:]) for row in packed)
    for strategy in ("packing", "padding"):
        training = run_training(samples, batching_strategy=strategy, batch_size_training=7)
        assert sum(step["label_tokens"] for step in training.steps) == expected
