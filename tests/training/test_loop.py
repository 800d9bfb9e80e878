"""The loop but for its loss: steps, learning rates, clipping, saving, and which weights move."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from llama_recipes_local import configs
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.training import saving, stepping, validating
from llama_recipes_local.training.evaluation import Evaluated

Samples = list[dict[str, list[int]]]
RunTraining = Callable[..., Any]
MakeModel = Callable[..., torch.nn.Module]
# 60 rows in batches of 12: five micro-batches an epoch
FIVE = {"batching_strategy": "padding", "batch_size_training": 12, "lr": 1e-3}


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([gradient.float().norm() for gradient in gradients.values()]).norm())


@pytest.mark.parametrize(
    ("fields", "steps", "epochs"),
    [
        ({"num_epochs": 2}, 10, 2),
        ({"num_epochs": 2, "gradient_accumulation_steps": 2}, 6, 2),
        ({"num_epochs": 2, "gradient_accumulation_steps": 7}, 2, 2),
        ({"num_epochs": 2, "max_train_step": 3}, 3, 1),
        ({"num_epochs": 2, "max_train_step": 5}, 5, 1),
        ({"num_epochs": 2, "max_train_step": 7}, 7, 2),
        ({"num_epochs": 2, "max_train_step": 99}, 10, 2),
        ({"num_epochs": 2, "max_train_step": 2, "gradient_accumulation_steps": 2}, 2, 1),
    ],
)
def test_steps_are_optimiser_steps_and_end_at_max_train_step(
    run_training: RunTraining, samples: Samples, fields: dict[str, int], steps: int, epochs: int
) -> None:
    training = run_training(samples, save_metrics=True, **FIVE | fields)
    assert len(training.gradients) == steps
    assert [line["step"] for line in training.steps] == list(range(1, steps + 1))
    metrics = Path(training.results["metrics_filename"])
    assert len(json.loads(metrics.read_text())["train_epoch_loss"]) == epochs


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 5), (2, 3)])
def test_epochs_are_counted_as_fractions(
    run_training: RunTraining, samples: Samples, accumulation: int, steps: int
) -> None:
    fields = FIVE | {"num_epochs": 2, "gradient_accumulation_steps": accumulation}
    training = run_training(samples, **fields)
    expected = [(step + 1) / steps for step in range(2 * steps)]
    assert [line["epoch"] for line in training.steps] == pytest.approx(expected, abs=1e-4)


def test_each_epoch_has_its_own_order(run_training: RunTraining, samples: Samples) -> None:
    training = run_training(samples, num_epochs=2, **FIVE)
    labels = [line["label_tokens"] for line in training.steps]
    assert labels[:5] != labels[5:]
    assert sum(labels[:5]) == sum(labels[5:])


def test_the_learning_rate_falls_once_an_epoch(run_training: RunTraining, samples: Samples) -> None:
    fields = FIVE | {"num_epochs": 3, "lr": 1e-2, "gradient_accumulation_steps": 3}
    training = run_training(samples, gamma=0.5, **fields)
    assert [line["lr"] for line in training.steps] == [1e-2, 1e-2, 5e-3, 5e-3, 2.5e-3, 2.5e-3]


def test_clipping_scales_the_gradient_to_the_threshold(
    run_training: RunTraining, samples: Samples
) -> None:
    fields = FIVE | {"max_train_step": 1}
    plain = run_training(samples, **fields).gradients[0]
    threshold = norm(plain) / 3
    clipped = run_training(
        samples, gradient_clipping=True, gradient_clipping_threshold=threshold, **fields
    )
    # one more float32 sum of squares over 200,000 entries: 1e-6 is some eight spacings
    assert clipped.steps[0]["grad_norm"] == pytest.approx(norm(plain), rel=1e-6)
    for name, gradient in clipped.gradients[0].items():
        torch.testing.assert_close(gradient, plain[name] / 3, rtol=1e-5, atol=1e-9)


def test_clipping_leaves_small_gradients_alone(run_training: RunTraining, samples: Samples) -> None:
    fields = FIVE | {"max_train_step": 1}
    plain = run_training(samples, **fields)
    clipped = run_training(
        samples, gradient_clipping=True, gradient_clipping_threshold=1e6, **fields
    )
    for training in (plain, clipped):
        assert training.steps[0]["grad_norm"] == pytest.approx(norm(plain.gradients[0]), rel=1e-6)
    for name, gradient in clipped.gradients[0].items():
        assert gradient.equal(plain.gradients[0][name])


def test_the_norm_of_half_gradients_is_not_rounded(
    run_training: RunTraining, make_model: MakeModel, samples: Samples
) -> None:
    """bfloat16 would round each tensor's norm and their sum: the norm was off by up to 0.5%."""
    training = run_training(samples, model=make_model(dtype=torch.bfloat16), **FIVE)
    assert {gradient.dtype for gradient in training.gradients[0].values()} == {torch.bfloat16}
    norms = [norm(gradients) for gradients in training.gradients]
    # one more float32 sum of squares, as above
    assert [step["grad_norm"] for step in training.steps] == pytest.approx(norms, rel=1e-6)


def test_adapters_move_and_the_model_does_not(
    run_training: RunTraining, make_model: MakeModel, samples: Samples
) -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(make_model(), peft.LoraConfig(task_type="CAUSAL_LM"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run_training(samples, model=model, **FIVE | {"lr": 1.0})
    moved = {name for name, p in model.named_parameters() if not p.equal(before[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert len(moved) == 2 * 2 * 2  # A and B of q_proj and v_proj in two layers


def test_frozen_layers_do_not_move_by_a_bit(
    run_training: RunTraining, make_model: MakeModel, samples: Samples
) -> None:
    model = make_model()
    model.model.layers[0].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run_training(samples, model=model, **FIVE | {"lr": 1.0})
    still = {name for name, p in model.named_parameters() if p.equal(before[name])}
    assert still == {name for name in before if name.startswith("model.layers.0.")}


def test_training_is_in_training_mode_after_each_evaluation(
    run_training: RunTraining, make_model: MakeModel, samples: Samples
) -> None:
    model, modes = make_model(), []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    run_training(samples, samples[:1], model=model, num_epochs=2, **FIVE)
    assert modes == [False, *[True] * 5, False, *[True] * 5, False]


def test_equal_seeds_train_equal_models(run_training: RunTraining, samples: Samples) -> None:
    one, two = (run_training(samples, seed=7, **FIVE).model.state_dict() for _ in range(2))
    assert all(one[name].equal(two[name]) for name in one)


def test_without_validation_the_last_epoch_is_saved(
    run_training: RunTraining, samples: Samples
) -> None:
    training = run_training(samples, save_model=True, num_epochs=2, **FIVE)
    saved = transformers.LlamaForCausalLM.from_pretrained(training.output, dtype="auto")
    trained = training.model.state_dict()
    assert all(value.equal(trained[name]) for name, value in saved.state_dict().items())


def test_nothing_is_saved_without_save_model(run_training: RunTraining, samples: Samples) -> None:
    training = run_training(samples, save_model=False, **FIVE)
    assert [path.name for path in training.output.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("losses", "saved"),
    [
        ([9.0, 3.0, 2.0, 1.0], [0, 1, 2]),
        ([9.0, 1.0, 2.0, 3.0], [0]),
        ([9.0, 2.0, 3.0, 1.0], [0, 2]),
        # the loss before training is not one to beat: a run saves something
        ([1.0, 2.0, 3.0, 3.0], [0]),
    ],
)
def test_the_model_is_saved_where_the_validation_loss_fell(
    run_training: RunTraining,
    samples: Samples,
    monkeypatch: pytest.MonkeyPatch,
    losses: list[float],
    saved: list[int],
) -> None:
    evaluated, epochs = iter(losses), []
    monkeypatch.setattr(validating, "evaluate", lambda *_: Evaluated(next(evaluated), 5, []))
    monkeypatch.setattr(saving, "save_trained", lambda *arguments: epochs.append(arguments[-1]))
    run_training(samples[:2], samples[:1], save_model=True, num_epochs=3, **FIVE)
    assert epochs == saved


def test_the_profiler_leaves_a_trace(
    run_training: RunTraining, samples: Samples, tmp_path: Path
) -> None:
    traces = tmp_path / "traces"
    fields = FIVE | {"batch_size_training": 4, "max_train_step": 7}
    run_training(samples[:40], use_profiler=True, profiler_dir=str(traces), **fields)
    (trace,) = traces.glob("*.pt.trace.json")
    assert "ProfilerStep#3" in trace.read_text()


def test_flops_are_counted(run_training: RunTraining, samples: Samples) -> None:
    fields = FIVE | {"flop_counter_start": 1, "max_train_step": 4}
    training = run_training(samples, flop_counter=True, **fields)
    assert 1e-6 < training.results["model_tflops"] < 1e3


def test_weights_and_biases_gets_every_step(run_training: RunTraining, samples: Samples) -> None:
    class Logged(list):
        def log(self, values: dict[str, Any], **_: Any) -> None:
            self.append(values)

    logged = Logged()
    training = run_training(samples, samples[:2], wandb_run=logged, **FIVE)
    losses = [values["train/loss"] for values in logged if "train/loss" in values]
    assert losses == [line["loss"] for line in training.steps]
    assert sum("eval/loss" in values for values in logged) == 2


@pytest.mark.parametrize(
    ("every", "validated"), [(0, [0, 5, 10]), (2, [0, 2, 4, 6, 8, 10]), (4, [0, 4, 8, 10])]
)
def test_validation_comes_with_epochs_or_with_steps(
    run_training: RunTraining, samples: Samples, every: int, validated: list[int]
) -> None:
    training = run_training(samples, samples[:2], eval_steps=every, num_epochs=2, **FIVE)
    lines = (training.output / "evaluations.jsonl").read_text().splitlines()
    evaluations = [json.loads(line) for line in lines]
    assert [line["step"] for line in evaluations] == validated
    losses = [line["loss"] for line in evaluations[1:]]
    assert training.results["avg_eval_loss"] == pytest.approx(sum(losses) / len(losses))
    assert len(training.steps) == 10


def test_the_model_is_saved_at_the_best_validation_between_epochs(
    run_training: RunTraining, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated, saved = iter([9.0, 3.0, 1.0, 2.0]), []
    monkeypatch.setattr(validating, "evaluate", lambda *_: Evaluated(next(evaluated), 5, []))
    monkeypatch.setattr(saving, "save_trained", lambda *arguments: saved.append(arguments[-1]))
    fields = FIVE | {"eval_steps": 2}
    run_training(samples, samples[:1], save_model=True, **fields)
    assert len(saved) == 2


def test_a_scaler_skips_a_step_that_overflows_and_continues(
    run_training: RunTraining, make_model: MakeModel, samples: Samples
) -> None:
    model, calls = make_model(), 0

    def overflow(module: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            output.register_hook(lambda gradient: gradient * float("inf"))

    model.get_input_embeddings().register_forward_hook(overflow)
    training = run_training(samples, model=model, use_fp16=True, **FIVE)
    assert len(training.gradients) == 4  # of five steps
    assert [line["grad_norm"] is None for line in training.steps] == [False, True, *[False] * 3]
    plain = run_training(samples, use_fp16=False, max_train_step=1, **FIVE).gradients[0]
    # scaled and unscaled by a power of two
    assert all(value.equal(plain[name]) for name, value in training.gradients[0].items())


def test_a_scaler_does_not_hide_a_gradient_that_is_never_finite(
    run_training: RunTraining,
    make_model: MakeModel,
    samples: Samples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stepping, "MAX_CONSECUTIVE_OVERFLOWS", 2)

    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.register_hook(lambda gradient: gradient * float("inf"))

    model = make_model()
    model.get_input_embeddings().register_forward_hook(spoil)
    with pytest.raises(TrainingError, match="stopped at step 3: the gradient is not finite"):
        run_training(samples, model=model, use_fp16=True, **FIVE)


def test_a_scaler_keeps_its_scale_with_weights_in_host_memory(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.setattr(stepping, "compute_device", lambda _: torch.device("meta"))
    optimizer = torch.optim.AdamW(model.parameters())
    stepper = stepping.Stepper(model, optimizer, configs.train_config(use_fp16=True))
    stepper.scaler.scale(torch.ones((), device="meta"))  # a loss
    assert stepper.scaler.get_scale() == 2**16  # which no host can read from such a device


def test_steps_are_taken_and_logged_at_the_schedules_rates(
    run_training: RunTraining, samples: Samples
) -> None:
    fields = {"batching_strategy": "padding", "batch_size_training": 6, "lr": 1e-2}
    training = run_training(
        samples[:24], num_epochs=2, scheduler="linear", warmup_steps=2, **fields
    )
    expected = [0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [line["lr"] for line in training.steps] == pytest.approx([1e-2 * e for e in expected])
