"""The loss of each source of a mixture, step by step, and its mean over an epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from llama_recipes_local import configs
from llama_recipes_local.training.history import History
from llama_recipes_local.training.source_losses import SourceLosses
from llama_recipes_local.training.stepping import Stepper


def batch_of(seed: int) -> dict[str, torch.Tensor]:
    """Two rows of two sources each, as a packed batch without its bounds."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 60, (2, 12), generator=generator)
    labels = ids.clone()
    labels[:, :3] = -100
    sources = torch.tensor([[0] * 7 + [1] * 5, [1] * 4 + [0] * 8])
    return {"input_ids": ids, "labels": labels, "sources": sources}


@torch.no_grad()
def expected(model: Any, batches: list[dict[str, torch.Tensor]]) -> list[float]:
    sums = [0.0, 0.0]
    for batch in batches:
        logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
        labels, sources = batch["labels"][:, 1:], batch["sources"][:, :-1]
        each = cross_entropy(logits.transpose(1, 2).double(), labels, reduction="none")
        for source in (0, 1):
            sums[source] += float(each[(labels != -100) & (sources == source)].sum())
    return sums


def test_each_step_has_the_sums_of_its_own_micro_batches(
    make_model: Callable[..., torch.nn.Module],
) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    stepper = Stepper(model, optimizer, configs.train_config(), ("a", "b"))
    for batches in ([batch_of(1), batch_of(2)], [batch_of(3)]):
        figures = stepper.step(batches, 18 * len(batches))
        # float32 sums of some ten terms of about 7
        assert figures.source_sums.tolist() == pytest.approx(expected(model, batches), rel=1e-5)


def test_nothing_of_a_model_is_left_replaced(make_model: Callable[..., torch.nn.Module]) -> None:
    model = make_model()
    before = dict(vars(model))
    with SourceLosses(model, ("a", "b"), torch.device("cpu")).measured(batch_of(1)):
        inputs = {name: each for name, each in batch_of(1).items() if name != "sources"}
        model(**inputs, num_items_in_batch=18.0)
    assert vars(model) == before


def test_an_epochs_losses_are_means_over_label_tokens(tmp_path: Path) -> None:
    history = History(configs.train_config(output_dir=str(tmp_path)), None)
    with history.epoch():
        history.add_step(1.0, 1, 8, {"a": (1.0, 1)})
        history.add_step(3.0, 3, 8, {"a": (2.0, 1), "b": (3.5, 2)})
    assert history.train_loss == [2.5]
    assert history.summary()["train_loss_by_source"] == {"a": 1.5, "b": 3.5}
    with history.epoch():
        history.add_step(2.0, 5, 8, {"b": (2.0, 5)})
    assert history.train_loss == [2.5, 2.0]
    assert history.summary()["train_loss_by_source"] == {"b": 2.0}


def test_an_epoch_that_is_continued_counts_once(tmp_path: Path) -> None:
    config = configs.train_config(output_dir=str(tmp_path))
    history, resumed = History(config, None), History(config, None)
    with history.epoch():
        history.add_step(1.0, 1, 8)
    history.keep_open()
    resumed.load_state_dict(history.state_dict())
    with resumed.epoch():
        resumed.add_step(3.0, 3, 8)
    assert resumed.train_loss == [2.5]
    assert len(resumed.epoch_seconds) == 1
