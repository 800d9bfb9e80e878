"""Results and metrics files have upstream's names, and upstream's plots can be drawn from them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from llama_recipes_local._upstream import VENDORED_DIR
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve

pytestmark = pytest.mark.slow

Samples = list[dict[str, list[int]]]
UPSTREAM = (VENDORED_DIR / "utils/train_utils.py").read_text("utf-8")


@pytest.fixture
def training(run_training: Callable[..., Any], samples: Samples) -> Any:
    """Two epochs of two steps with everything on that adds a result."""
    return run_training(
        samples[:24],
        samples[24:30],
        batching_strategy="padding",
        batch_size_training=12,
        num_epochs=2,
        save_metrics=True,
        flop_counter=True,
        flop_counter_start=1,
    )


def saved(training: Any) -> dict[str, list[float]]:
    return json.loads(Path(training.results["metrics_filename"]).read_text("utf-8"))


def test_results_have_upstreams_keys(training: Any) -> None:
    upstreams = set(re.findall(r"""results\[["'](\w+)["']\]""", UPSTREAM))
    assert len(upstreams) == 8
    assert set(training.results) == upstreams


def test_results_without_options_have_upstreams_keys(
    run_training: Callable[..., Any], samples: Samples
) -> None:
    results = run_training(samples[:4]).results
    times = {"avg_epoch_time", "avg_checkpoint_time"}
    assert set(results) == {"avg_train_prep", "avg_train_loss"} | times


def test_metrics_file_has_upstreams_keys(training: Any) -> None:
    upstreams = set(re.findall(r'^ +"(\w+)": (?:train|val)_', UPSTREAM, re.MULTILINE))
    assert len(upstreams) == 8
    assert set(saved(training)) == upstreams


def test_metrics_file_holds_steps_and_epochs(training: Any) -> None:
    metrics = saved(training)
    assert metrics["train_step_loss"] == [line["loss"] for line in training.steps]
    counts = {name: len(values) for name, values in metrics.items()}
    steps = {"train_step": 4, "train_epoch": 2, "val_step": 12, "val_epoch": 2}
    assert counts == {
        f"{name}_{what}": count for name, count in steps.items() for what in ("loss", "perplexity")
    }


def test_an_epochs_loss_is_that_of_its_own_steps(training: Any) -> None:
    for epoch, loss in enumerate(saved(training)["train_epoch_loss"]):
        steps = training.steps[2 * epoch : 2 * epoch + 2]
        labels = sum(step["label_tokens"] for step in steps)
        total = sum(step["loss"] * step["label_tokens"] for step in steps)
        assert loss == pytest.approx(total / labels)


def test_averages_are_those_of_the_epochs(training: Any) -> None:
    metrics, results = saved(training), training.results
    for key, name in (("avg_train_loss", "train_epoch_loss"), ("avg_eval_loss", "val_epoch_loss")):
        assert results[key] == pytest.approx(sum(metrics[name]) / 2)
    for key, name in (
        ("avg_train_prep", "train_epoch_perplexity"),
        ("avg_eval_prep", "val_epoch_perplexity"),
    ):
        assert results[key] == pytest.approx(sum(metrics[name]) / 2)


def test_upstreams_plots_can_be_drawn(training: Any) -> None:
    matplotlib.use("agg")
    from llama_recipes_local.utils.plot_metrics import plot_metrics

    plot_metrics(training.results["metrics_filename"])
    drawn = list(training.output.glob("metrics_data_*.png"))
    assert len(drawn) == 4
    assert all(path.stat().st_size > 1000 for path in drawn)


def test_the_run_records_the_losses_before_and_after(
    run_training: Callable[..., Any], samples: Samples
) -> None:
    with activate(resolve({})) as run:
        training = run_training(samples[:24], samples[24:30], num_epochs=2)
    assert run.results["trained"] and not run.results["other_batches"]
    assert run.results["eval_loss_after"] < run.results["eval_loss_before"]
    assert training.results["avg_eval_loss"] > run.results["eval_loss_after"]


def test_a_run_without_validation_has_no_losses(
    run_training: Callable[..., Any], samples: Samples
) -> None:
    with activate(resolve({})) as run:
        run_training(samples[:4])
    assert run.results["eval_loss_before"] is None and run.results["eval_loss_after"] is None
