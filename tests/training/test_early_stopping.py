"""Early stopping: when a run stops, what is saved, and that a resumed one stops there too."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from interrupted_runs import Runs
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback

from llama_recipes_local.answers.scored_rows import LONGEST_ANSWER
from llama_recipes_local.cli import main as cli
from llama_recipes_local.configs.training import BEST_METRICS, HIGHER_IS_BETTER
from llama_recipes_local.errors import Problem
from llama_recipes_local.finetuning import main
from llama_recipes_local.preflight.all_problems import _resolved as resolved
from llama_recipes_local.preflight.checks import find_problems
from llama_recipes_local.training import early_stopping
from llama_recipes_local.training.evaluation import Evaluated
from llama_recipes_local.training.train_state import TrainState

# a rate at which the tiny model gets worse again
RUN = {
    "use_peft": True,
    "lr": 0.3,
    "eval_steps": 1,
    "batch_size_training": 1,
    "context_length": 128,
    "num_epochs": 2,
    "max_eval_step": 2,
    "weight_decay": 0.0,
}


@pytest.mark.parametrize("metric", HIGHER_IS_BETTER)
@pytest.mark.parametrize("threshold", [0.0, 0.1])
@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_where_transformers_does(metric: str, threshold: float, patience: int) -> None:
    draw = random.Random(f"{metric} {threshold} {patience}")
    for _ in range(50):
        values = [draw.choice([draw.random(), 0.5]) for _ in range(20)]
        assert ours(values, metric, threshold, patience) == theirs(
            values, HIGHER_IS_BETTER[metric], threshold, patience
        )


def ours(values: list[float], metric: str, threshold: float, patience: int) -> tuple[int, float]:
    """Return how many validations there were, and the best value."""
    config = SimpleNamespace(early_stopping_patience=patience)
    state = TrainState()
    for number, value in enumerate(values, 1):
        state.step = number
        state.judge(metric, value, 7, threshold)
        if early_stopping.stops_early(state, config):  # type: ignore[arg-type]
            break
    assert state.best_value is not None
    return number, state.best_value


def theirs(values: list[float], higher: bool, threshold: float, patience: int) -> tuple[int, float]:
    callback = EarlyStoppingCallback(patience, threshold)
    state: Any = SimpleNamespace(best_metric=None)
    control: Any = SimpleNamespace(should_training_stop=False)
    arguments: Any = SimpleNamespace(metric_for_best_model="loss", greater_is_better=higher)
    number = 0
    for value in values:
        number += 1
        callback.on_evaluate(arguments, state, control, {"eval_loss": value})
        best = state.best_metric
        if best is None or (value > best if higher else value < best):  # as the Trainer
            state.best_metric = value
        if control.should_training_stop:
            break
    return number, state.best_metric


def test_other_rows_or_another_metric_are_not_compared() -> None:
    state = TrainState()
    assert state.judge("loss", 1.0, 10, 0) and not state.judge("loss", 2.0, 10, 0)
    assert state.judge("loss", 2.0, 20, 0)
    assert state.judge("gleu", 0.1, 20, 0) and not state.judge("gleu", 0.1, 20, 0)
    assert state.stale_validations == 1
    assert not state.judge("gleu", float("nan"), 20, 0) and state.best_value == 0.1


@pytest.mark.parametrize("metric", HIGHER_IS_BETTER)
def test_a_first_validation_that_is_not_finite_is_not_the_best(metric: str) -> None:
    state = TrainState()
    assert not state.judge(metric, float("nan"), 10, 0)
    assert state.judge(metric, 5.0, 10, 0)


def test_names_are_those_of_transformers_too() -> None:
    assert {BEST_METRICS["eval_loss"], BEST_METRICS["loss"]} == {"loss"}
    for name in ("rougeL", "eval_rougeL", "ROUGE-L", "eval_rouge_l", "rouge"):
        assert BEST_METRICS[name.lower()] == "rougeL"
    assert set(BEST_METRICS.values()) == HIGHER_IS_BETTER.keys()


def validations(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "evaluations.jsonl").open()]


@pytest.fixture(scope="module")
def stopped(tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped early, with its checkpoints."""
    output = tmp_path_factory.mktemp("runs") / "stopped"
    flags = RUN | {"early_stopping_patience": 3, "save_steps": 1, "output_dir": str(output)}
    main(**tiny_run | flags)
    return output


def best_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return min(rows[1:], key=lambda row: row["loss"])  # the first is before training


def test_the_best_model_is_saved_and_the_end_is_told(stopped: Path) -> None:
    rows = validations(stopped)
    best, last = best_of(rows), rows[-1]
    assert last["step"] == best["step"] + 3
    saved = load_file(stopped / "adapter_model.safetensors")
    then = load_file(stopped / f"checkpoint-{best['step']}" / "adapter_model.safetensors")
    end = load_file(stopped / f"checkpoint-{last['step']}" / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], then[name]) for name in saved)
    assert not all(torch.equal(saved[name], end[name]) for name in saved)
    record = json.loads((stopped / "run_config.json").read_text())
    assert record["stopped"].startswith(f"early, after step {last['step']} of ")
    assert record["stopped"].endswith("loss did not improve in 3 validations")
    assert record["best"] == f"loss {best['loss']:.4f} after step {best['step']}"
    told = " ".join((stopped / "run.log").read_text().replace("│", " ").split())
    assert f"stopped {record['stopped']}"[:60] in told and record["best"] in told
    if (stopped / "report.html").is_file():
        assert record["stopped"] in (stopped / "report.html").read_text()


@pytest.mark.parametrize("back", [1, 2])
def test_a_resumed_run_stops_at_the_same_step_with_the_same_best(
    stopped: Path, back: int, tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    rows = validations(stopped)
    last = int(rows[-1]["step"])
    flags = RUN | {"early_stopping_patience": 3, "save_steps": 1, "output_dir": str(tmp_path)}
    checkpoint = stopped / f"checkpoint-{last - back}"
    main(**tiny_run | flags | {"resume_from_checkpoint": str(checkpoint)})
    again = validations(tmp_path)
    assert again == [row for row in rows if row["step"] > last - back]
    one, other = (
        json.loads((folder / f"checkpoint-{last}" / "trainer.json").read_text())["state"]
        for folder in (stopped, tmp_path)
    )
    assert one == other and one["stale_validations"] == 3


@pytest.mark.parametrize("method", ["lora", "full"])
def test_ranks_stop_together(
    runs: Runs, method: str, tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    """Two ranks, which have other rows, with sharded weights."""
    flags = tiny_run | RUN | {"early_stopping_patience": 2, "use_peft": method == "lora"}
    ended = runs(tmp_path, flags | {"lr": 0.1}, ranks=2)
    assert ended.codes == [0, 0], ended.logs
    assert ended.evaluations[-1]["step"] == best_of(ended.evaluations)["step"] + 2
    assert "early, after step" in (tmp_path / "run_config.json").read_text()


def test_a_run_that_stopped_continues_with_more_patience_only(
    stopped: Path, tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = validations(stopped)
    last = int(rows[-1]["step"])
    checkpoint = str(stopped / f"checkpoint-{last}")
    flags = tiny_run | RUN | {"resume_from_checkpoint": checkpoint, "output_dir": str(tmp_path)}
    main(**flags | {"early_stopping_patience": 3})
    said = capsys.readouterr().out
    assert f"this run stopped early, after step {last} of" in said
    assert not (tmp_path / "evaluations.jsonl").exists()
    main(**flags | {"early_stopping_patience": 4, "overwrite_output_dir": True})
    assert validations(tmp_path)[0]["step"] == last + 1


def test_answers_choose_the_best_model(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {
        "eval_generation_rows": 3,
        "metric_for_best_model": "eval_rougeL",
        "max_train_step": 2,
        "early_stopping_patience": 1,
        "output_dir": str(tmp_path / "run"),
        "lr": 1e-3,
    }
    main(**tiny_run | RUN | flags)
    said = capsys.readouterr().out
    rows = validations(tmp_path / "run")
    assert {"gleu", "rougeL", "stop_share", "loss"} <= rows[-1].keys()
    line = next(line for line in said.splitlines() if line.startswith("answers to 3 rows: gleu"))
    assert "stop_share" in line and line.endswith(" s")
    # the same numbers as evaluate gives for the model that was saved
    record = json.loads((tmp_path / "run" / "run_config.json").read_text())
    step = int(record["best"].rpartition(" ")[2])
    out = tmp_path / "evaluation.json"
    words = ["evaluate", "--adapter", str(tmp_path / "run"), "--metrics", "gleu,rouge"]
    words += ["--max_examples", "3", "--max_new_tokens", str(LONGEST_ANSWER), "--out", str(out)]
    assert cli(words) == 0
    measured = json.loads(out.read_text())["metrics"]
    saved = next(row for row in rows if row["step"] == step)
    for name in ("gleu", "rougeL"):
        assert saved[name] == measured[name]["value"]


def test_answers_change_no_number_of_training(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    losses = []
    for rows in (0, 2):
        output = tmp_path / str(rows)
        flags = {"eval_generation_rows": rows, "max_train_step": 2, "lora_dropout": 0.3}
        main(**tiny_run | RUN | flags | {"output_dir": str(output)})
        lines = [json.loads(line) for line in (output / "metrics.jsonl").open()]
        losses.append([line["loss"] for line in lines])
    assert losses[0] == losses[1]


@pytest.fixture
def problems_of(tiny_run: dict[str, Any], tmp_path: Path) -> Callable[..., list[Problem]]:
    def find(**flags: Any) -> list[Problem]:
        own = {"use_peft": True, "output_dir": str(tmp_path), "context_length": 128}
        given = tiny_run | own | flags
        run, problems = resolved((), given)
        return problems + find_problems(run)

    return find


@pytest.mark.parametrize(
    ("flags", "what", "fix"),
    [
        ({"early_stopping_patience": 3}, "--early_stopping_patience 3", "--eval_steps N"),
        (
            {"early_stopping_patience": 1, "run_validation": False},
            "--early_stopping_patience 1 with --run_validation False",
            "leave one",
        ),
        ({"early_stopping_threshold": 1}, "--early_stopping_threshold", "early_stopping_patience"),
        ({"metric_for_best_model": "gleu"}, "--metric_for_best_model gleu", "eval_generation_rows"),
        ({"metric_for_best_model": "bleu"}, "unknown --metric_for_best_model bleu", "gleu"),
        (
            {"eval_generation_rows": 2, "peft_method": "prefix"},
            "--eval_generation_rows 2 with --peft_method prefix",
            "evaluate",
        ),
        (
            {"eval_generation_rows": 2, "run_validation": False},
            "--eval_generation_rows 2 with --run_validation False",
            "leave one",
        ),
        ({"early_stopping_patience": -1}, "--early_stopping_patience is -1", "0 or more"),
    ],
)
def test_what_is_refused(
    flags: dict[str, Any], what: str, fix: str, problems_of: Callable[..., list[Problem]]
) -> None:
    (problem,) = problems_of(**flags)
    assert problem.what.startswith(what) and fix in problem.fix


def test_text_without_prompts_is_refused(
    tmp_path: Path, problems_of: Callable[..., list[Problem]]
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"Some words {i}."}) + "\n" for i in range(40)))
    (problem,) = problems_of(dataset=str(path), eval_generation_rows=2)
    assert "has no prompt with a response" in problem.what


def test_a_metric_is_what_the_validation_found() -> None:
    config: Any = SimpleNamespace(
        metric_for_best_model="eval_ROUGE-L", eval_generation_rows=4, early_stopping_threshold=0
    )
    state = TrainState(step=5)
    found = Evaluated(1.0, 10, [], scores={"rougeL": 0.25, "stop_share": 1.0})
    assert early_stopping.judged(state, found, config)
    assert (state.best_value, state.best_tokens, state.best_step) == (0.25, 4, 5)
