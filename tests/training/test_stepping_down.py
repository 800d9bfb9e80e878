"""Out of memory in a trial or in a step: less is kept, or the run is saved, and no bit changes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recorded_runs import replaced_train
from transformers import LlamaForCausalLM

from llama_recipes_local import cli
from llama_recipes_local.finetuning import main
from llama_recipes_local.policies.lowering import lower_policy
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.training import trial
from llama_recipes_local.training.evaluation import evaluate
from llama_recipes_local.training.out_of_memory import told_apart

pytestmark = pytest.mark.slow

SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.6 GiB. More"
)
Overflows = Callable[[Any, torch.Tensor], bool]


@pytest.fixture
def lora(tiny_run: dict[str, Any]) -> dict[str, Any]:
    """Flags of four steps, with dropout, so that a random number too many is seen."""
    return {
        **tiny_run,
        "use_peft": True,
        "lora_dropout": 0.1,
        "lr": 1e-3,
        "context_length": 64,
        "batch_size_training": 4,
        "num_epochs": 1,
        "max_train_step": 4,
        "save_steps": 4,
        "run_validation": False,
    }


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains with an injected overflow, in a run that is tried if ``tried``; returns its folder."""

    def run(
        flags: dict[str, Any],
        name: str,
        overflows: Overflows | None = None,
        backward: bool = False,
        tried: bool = True,
        **more: Any,
    ) -> Path:
        def hook(layer: Any, args: Any, output: torch.Tensor) -> None:
            def raise_if_over(*_: Any) -> None:
                if layer.training and overflows is not None and overflows(layer, output):
                    raise torch.OutOfMemoryError(SAID)

            if not backward:
                raise_if_over()
            elif output.requires_grad:
                output.register_hook(raise_if_over)

        def with_hook(original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            model.get_base_model().model.layers[1].register_forward_hook(hook)
            return original(model, *args, **kwargs)

        monkeypatch.setattr(trial, "is_due", lambda *_: tried)
        with replaced_train(with_hook):
            main(**flags | more, output_dir=str(tmp_path / name))
        return tmp_path / name

    return run


def keeps_activations(layer: Any, output: torch.Tensor) -> bool:
    return not layer.gradient_checkpointing


def has_tokens(most: int) -> Overflows:
    return lambda layer, output: output.shape[:2].numel() > most


def trained(folder: Path) -> tuple[Any, ...]:
    """What a run came to: losses and norms, and all of its last checkpoint that is numbers."""
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    numbers = [(step["step"], step["loss"], step["grad_norm"]) for step in steps]
    assert numbers
    checkpoint = folder / "checkpoint-4"
    kinds = ("*.safetensors", "random/*.json")
    saved = {
        str(path.relative_to(checkpoint)): path.read_bytes()
        for kind in kinds
        for path in checkpoint.rglob(kind)
    }
    assert len(saved) > 3
    return numbers, saved


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def settings(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run_config.json").read_text())["train_config"]


@pytest.mark.parametrize("backward", [False, True])
def test_a_trial_that_overflows_recomputes_as_if_from_the_start(
    train: Callable[..., Path],
    lora: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    backward: bool,
) -> None:
    del lora["batch_size_training"]
    stepped = train(lora, "stepped", keeps_activations, backward=backward)
    said = capsys.readouterr().out
    assert "--> Out of memory in a trial of the longest rows, 256 tokens: CUDA out" in said
    assert "--> Stepping down, before the first step: --activation_policy full\n" in said
    straight = train(lora, "straight", tried=False, gradient_checkpointing=True)
    assert trained(stepped) == trained(straight)
    assert settings(stepped)["activation_policy"] == "full"
    assert settings(stepped)["gradient_checkpointing"]


def test_then_micro_batches_are_halved_at_the_same_global_batch(
    train: Callable[..., Path], lora: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = lora.pop("batch_size_training")
    stepped = train(lora, "stepped", has_tokens(64))
    assert capsys.readouterr().out.count("--> Stepping down") == 3
    assert settings(stepped)["batch_size_training"] == 1
    assert settings(stepped)["gradient_accumulation_steps"] == rows
    straight = train(
        lora,
        "straight",
        tried=False,
        gradient_checkpointing=True,
        batch_size_training=1,
        gradient_accumulation_steps=rows,
    )
    assert trained(stepped) == trained(straight)


@pytest.mark.parametrize(
    ("over", "strategy"),
    [(keeps_activations, "packing"), (has_tokens(64), "packing"), (has_tokens(150), "padding")],
)
def test_a_run_that_stepped_down_is_made_again_as_it_ended(
    train: Callable[..., Path],
    lora: dict[str, Any],
    tmp_path: Path,
    over: Overflows,
    strategy: str,
) -> None:
    """Where memory is enough: by what it began with it would be another."""
    del lora["batch_size_training"]
    lora["batching_strategy"] = strategy
    stepped, again = train(lora, "stepped", over), tmp_path / "again"
    assert cli.main(["replay", str(stepped), "--out", str(again)]) == 0
    assert trained(again) == trained(stepped)
    for name in ("activation_policy", "batch_size_training", "gradient_accumulation_steps"):
        assert settings(again)[name] == settings(stepped)[name]


@pytest.mark.parametrize("strategy", ["packing", "padding"])
def test_a_run_with_smaller_micro_batches_resumes_on_the_same_rows(
    train: Callable[..., Path], lora: dict[str, Any], strategy: str
) -> None:
    """Whether it steps down again or not: padded rows keep the groups of the size asked for."""
    lora |= {"batching_strategy": strategy, "activation_policy": "full", "save_steps": 2}
    del lora["batch_size_training"]
    over = has_tokens(200)
    straight = train(lora, "straight", over, save_total_limit=0)
    assert settings(straight)["batch_size_training"] < 4
    again = train(lora, "again", over, resume_from_checkpoint=str(straight / "checkpoint-2"))
    assert trained(again)[1] == trained(straight)[1]
    whole = train(lora, "whole", resume_from_checkpoint=str(straight / "checkpoint-2"))
    for ours, theirs in zip(losses(whole), losses(straight)[2:], strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)  # dropout draws others for other batches


def test_what_is_named_stays_and_the_flags_that_need_less_are_told(
    train: Callable[..., Path], lora: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train(lora, "named", has_tokens(64), activation_policy="keep")
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "Stepping down" not in said.out
    assert "stopped: CUDA out of memory. Tried to allocate 2.00 GiB" in said.err
    assert "--activation_policy full" in said.err
    assert "--batch_size_training 1 --gradient_accumulation_steps 4" in said.err


def test_a_trial_that_fits_changes_nothing(
    train: Callable[..., Path], lora: dict[str, Any]
) -> None:
    assert trained(train(lora, "tried")) == trained(train(lora, "not", tried=False))


def test_a_step_that_overflows_is_computed_again(
    train: Callable[..., Path], lora: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """In the backward pass of step 3, which then recomputes: the same bits on a CPU."""
    calls = 0

    def overflows(layer: Any, output: torch.Tensor) -> bool:
        nonlocal calls
        calls += 1
        return calls == 3

    stepped = train(lora, "stepped", overflows, backward=True, tried=False)
    said = capsys.readouterr().out
    assert "--> Out of memory in step 3: CUDA out of memory." in said
    assert "--> Stepping down, and computing the step again: --activation_policy full\n" in said
    assert trained(stepped) == trained(train(lora, "straight", tried=False))


@pytest.mark.parametrize("backward", [False, True])
def test_a_run_that_cannot_step_down_is_saved_and_resumes(
    train: Callable[..., Path],
    lora: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    backward: bool,
) -> None:
    calls = 0

    def overflows(layer: Any, output: torch.Tensor) -> bool:
        nonlocal calls
        calls += 1
        return calls == 3

    named = lora | {"activation_policy": "keep", "save_steps": 4}
    with pytest.raises(SystemExit):
        train(named, "stopped", overflows, backward=backward, tried=False)
    said = capsys.readouterr().err
    assert "stopped: CUDA out of memory" in said
    assert "   saved in " in said
    assert "checkpoint-2\n   fix: resume with --resume_from_checkpoint auto and one of" in said
    assert "--activation_policy full" in said
    assert "--quantization" not in said  # it would be another method, which does not resume
    resumed = train(named, "stopped", tried=False, resume_from_checkpoint="auto")
    straight = train(named, "straight", tried=False)
    assert trained(resumed)[1] == trained(straight)[1]


def test_no_checkpoint_is_written_of_weights_that_are_half_updated(
    train: Callable[..., Path],
    lora: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(self: Any, *args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError(SAID)

    saved = train(lora, "optimiser", tried=False, max_train_step=2, save_steps=2)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    again = {"resume_from_checkpoint": str(saved / "checkpoint-2"), "save_steps": 1}
    with pytest.raises(SystemExit):
        train(lora, "optimiser", tried=False, **again)
    assert "stopped: CUDA out of memory" in capsys.readouterr().err
    assert sorted(path.name for path in saved.glob("checkpoint-*")) == ["checkpoint-2"]


def test_a_validation_that_overflows_is_told_apart(
    train: Callable[..., Path], lora: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = lora | {"run_validation": True, "eval_steps": 2, "val_batch_size": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llama_recipes_local.training.validating.evaluate", failing_at(2))
        with pytest.raises(SystemExit):
            train(flags, "validated", tried=False)
    said = capsys.readouterr().err
    assert "checkpoint-2\n   fix: resume with" in said
    assert "\n      --val_batch_size 1  (" in said
    assert "--gradient_checkpointing" not in said
    assert "--batch_size_training" not in said


def test_the_cpus_allocator_is_out_of_memory_too() -> None:
    said = "tried to allocate 4611686018427387904 bytes"
    with pytest.raises(torch.OutOfMemoryError, match=said), told_apart():
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="must match"), told_apart():
        torch.zeros(2) + torch.zeros(3)


def failing_at(call: int) -> Callable[..., Any]:
    """Return ``evaluate`` out of memory in one of its calls, from 1."""
    calls = 0

    def evaluated(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise torch.OutOfMemoryError(SAID)
        return evaluate(*args)

    return evaluated


def test_a_run_is_tried_where_something_is_chosen() -> None:
    stepper: Any = SimpleNamespace(model=torch.nn.Linear(1, 1), device=torch.device("cpu"))
    on_cuda: Any = SimpleNamespace(model=stepper.model, device=torch.device("cuda"))
    assert trial.is_due(resolve({"activation_policy": "auto"}), stepper)
    assert trial.is_due(resolve({"use_fast_kernels": True}), on_cuda)
    assert not trial.is_due(resolve({"use_fast_kernels": True}), stepper)
    assert not trial.is_due(resolve({}), on_cuda)


def test_what_was_chosen_is_lowered_with_the_flag_that_it_implies(tiny_model: Path) -> None:
    """Preflight adds the flag of recomputation of the policy that it chose."""
    run = resolve({"activation_policy": "keep", "gradient_checkpointing": False})
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    with activate(run):
        assert lower_policy(run, model) == ""
        run.chosen = frozenset({"activation_policy"})
        assert lower_policy(run, model) == "full"
        assert model.is_gradient_checkpointing
        assert run.train.gradient_checkpointing
        assert lower_policy(run, model) == ""
