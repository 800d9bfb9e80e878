"""The validation loss is the mean over label tokens, whatever the batches."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from llama_recipes_local import configs
from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.data.concatenator import IGNORE_INDEX
from llama_recipes_local.training.evaluation import evaluation

Samples = list[dict[str, list[int]]]
Evaluate = Callable[..., tuple[float, float, list[float], list[float]]]
PADDED = {"batching_strategy": "padding"}
# The same terms of float32 forward passes, summed in float64: what is left is the forward's own
# rounding, which differs with the shapes of its matrices.
SAME = {"rel": 5e-7}


@pytest.fixture
def evaluate(
    make_model: Callable[..., torch.nn.Module], make_loader: Callable[..., DataLoader[Any]]
) -> Evaluate:
    def run(samples: Samples, model: torch.nn.Module | None = None, **fields: Any) -> Any:
        config = configs.train_config(**{"context_length": 256} | fields)
        loader = make_loader(samples, config, "val")
        return evaluation(model if model is not None else make_model(), config, loader)

    return run


@pytest.fixture(scope="module")
def validation(samples: Samples) -> Samples:
    """Fifteen rows: one over in batches of 2 and 7."""
    return samples[:15]


def test_loss_does_not_depend_on_the_batch_size(evaluate: Evaluate, validation: Samples) -> None:
    _, loss, *_ = evaluate(validation, val_batch_size=1)
    for strategy in ("packing", "padding"):
        for batch_size in (1, 2, 7, 100):
            _, other, *_ = evaluate(
                validation, val_batch_size=batch_size, batching_strategy=strategy
            )
            assert other == pytest.approx(loss, **SAME)


def test_loss_is_the_mean_over_label_tokens(evaluate: Evaluate, validation: Samples) -> None:
    _, loss, *_ = evaluate(validation, **PADDED)
    total, labels = 0.0, 0
    for sample in validation:
        count = sum(label != IGNORE_INDEX for label in sample["labels"][1:])
        total += evaluate([sample], **PADDED)[1] * count
        labels += count
    assert loss == pytest.approx(total / labels, **SAME)


def test_perplexity_is_e_to_the_loss(evaluate: Evaluate, validation: Samples) -> None:
    ppl, loss, *_ = evaluate(validation)
    assert ppl == math.exp(loss)
    assert perplexity(1e4) == math.inf


@pytest.mark.parametrize(("steps", "rows"), [(1, 2), (3, 6), (0, 15), (100, 15)])
def test_a_limited_evaluation_divides_by_its_own_label_tokens(
    evaluate: Evaluate, validation: Samples, steps: int, rows: int
) -> None:
    # rows of growing length stay in their places when they are put with like ones
    validation = sorted(validation, key=lambda sample: len(sample["input_ids"]))
    fields = PADDED | {"val_batch_size": 2}
    _, bounded, *_ = evaluate(validation, max_eval_step=steps, **fields)
    _, expected, *_ = evaluate(validation[:rows], **fields)
    assert bounded == pytest.approx(expected, **SAME)


def test_each_batch_is_listed_with_save_metrics(evaluate: Evaluate, validation: Samples) -> None:
    fields = PADDED | {"val_batch_size": 1}
    *_, losses, perplexities = evaluate(validation, save_metrics=True, **fields)
    alone = [evaluate([sample], **fields)[1] for sample in validation]
    assert losses == pytest.approx(alone, **SAME)
    assert perplexities == [math.exp(loss) for loss in losses]


def test_batches_are_listed_only_with_save_metrics(evaluate: Evaluate, validation: Samples) -> None:
    assert evaluate(validation)[2:] == ([], [])


def test_no_label_at_all_is_an_error(evaluate: Evaluate, validation: Samples) -> None:
    without = [sample | {"labels": [IGNORE_INDEX] * len(sample["labels"])} for sample in validation]
    with pytest.raises(ValueError, match="no label tokens"):
        evaluate(without)


def test_a_batch_without_labels_does_not_change_the_mean(
    evaluate: Evaluate, validation: Samples
) -> None:
    blank = validation[0] | {"labels": [IGNORE_INDEX] * len(validation[0]["labels"])}
    _, loss, losses, _ = evaluate([*validation, blank], save_metrics=True, **PADDED)
    assert loss == pytest.approx(evaluate(validation, **PADDED)[1], **SAME)
    assert len(losses) == len(validation)


def test_evaluating_leaves_the_model_as_it_was(
    evaluate: Evaluate, make_model: Callable[..., torch.nn.Module], validation: Samples
) -> None:
    model, graphs = make_model().train(), []
    model.register_forward_pre_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(validation, model=model)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert set(graphs) == {False}
