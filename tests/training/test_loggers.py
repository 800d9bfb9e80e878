"""Each logger holds the numbers of ``metrics.jsonl``, below the output folder."""

import contextlib
import json
import socket
import sqlite3
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.run import Run
from llama_recipes_local.training import loggers
from llama_recipes_local.training.loggers import make_loggers

pytestmark = pytest.mark.slow

Samples = list[dict[str, list[int]]]
# 24 rows: four steps, validated after the second and the fourth
FIELDS = {"batching_strategy": "padding", "batch_size_training": 6, "eval_steps": 2}
NUMBERS = ("loss", "lr", "grad_norm", "tokens_per_second", "tokens", "memory_gib")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name can be looked up, and no address outside this machine reached."""
    connect = socket.socket.connect

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a logger asked for the network")

    def local(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.fixture
def train_with(run_training: Callable[..., Any], samples: Samples) -> Callable[..., Any]:
    return lambda **fields: run_training(samples[:24], samples[24:30], **FIELDS | fields)


def test_validations_are_logged_in_their_own_file(train_with: Callable[..., Any]) -> None:
    training = train_with()
    lines = (training.output / "evaluations.jsonl").read_text().splitlines()
    evaluations = [json.loads(line) for line in lines]
    assert [line["step"] for line in evaluations] == [0, 2, 4]
    assert set(evaluations[0]) == {"step", "loss", "perplexity"}
    assert evaluations[0]["loss"] > evaluations[-1]["loss"]


@pytest.mark.usefixtures("offline")
def test_tensorboard_holds_every_step(train_with: Callable[..., Any]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = train_with(report_to=["tensorboard"])
    events = EventAccumulator(str(training.output / "tensorboard")).Reload()
    for name in NUMBERS:
        kept = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
        # TensorBoard keeps float32
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in training.steps]
        assert kept == expected
    assert [event.step for event in events.Scalars("eval/loss")] == [0, 2, 4]


@pytest.mark.usefixtures("offline")
def test_mlflow_holds_every_step_and_the_settings(train_with: Callable[..., Any]) -> None:
    mlflow = pytest.importorskip("mlflow")
    training = train_with(report_to=["mlflow"])
    client = mlflow.MlflowClient(tracking_uri=(training.output / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("llama-recipes-local")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size_training"] == "6"
    for name in NUMBERS:
        history = client.get_metric_history(run.info.run_id, f"train/{name}")
        kept = {metric.step: metric.value for metric in history}
        assert kept == {line["step"]: line[name] for line in training.steps}


@pytest.mark.usefixtures("offline")
def test_weights_and_biases_is_offline_and_below_the_output_folder(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    config = configs.train_config(output_dir=str(tmp_path), report_to=["wandb"])
    _, logger = make_loggers(config)
    assert isinstance(logger, loggers.WeightsAndBiases)
    assert logger._run.offline
    logger.log("train", 1, {"loss": 2.53125, "mfu": None})
    logger.close()
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    while b"train/loss" not in (kept := written.read_bytes()):
        time.sleep(0.1)  # a process of its own writes the file
    assert b"2.53125" in kept
    assert b"mfu" not in kept


class Given(list):
    """A run of Weights & Biases that keeps what is logged, by step."""

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.append((step, values))


def test_a_given_wandb_run_is_used_and_not_finished(tmp_path: Path) -> None:
    given = Given()
    config = configs.train_config(output_dir=str(tmp_path), report_to=["wandb"])
    _, logger = make_loggers(config, given)
    logger.log("train", 3, {"loss": 2.5, "mfu": None})
    logger.close()
    assert given == [(None, {"train/step": 3, "train/loss": 2.5})]


def test_a_run_of_main_logs_at_trainings_steps(tmp_path: Path) -> None:
    given = Given()
    run = Run({}, configs.train_config(output_dir=str(tmp_path)))
    _, logger = make_loggers(run.train, given, run)
    logger.log("train", 3, {"loss": 2.5})
    assert given == [(3, {"train/step": 3, "train/loss": 2.5})]


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Names the W&B run of a run in ``tmp_path``, whose checkpoint was saved by run "before"."""
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    monkeypatch.delenv("WANDB_RESUME", raising=False)
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "run_config.json").write_text('{"wandb_config": {"id": "before"}}')

    def name(wandb: dict[str, str] | None = None, **fields: Any) -> tuple[str | None, str | None]:
        fields = {"output_dir": str(tmp_path), "use_wandb": True} | fields
        run = Run({}, configs.train_config(**fields), wandb=configs.wandb_config(**wandb or {}))
        loggers.name_wandb_run(run)
        return run.wandb.id, run.wandb.resume

    return name


def test_a_resumed_run_keeps_its_wandb_id(named: Callable[..., Any], tmp_path: Path) -> None:
    checkpoint = {"resume_from_checkpoint": str(tmp_path / "checkpoint-3")}
    assert named(**checkpoint) == ("before", "allow")
    new, resume = named(**checkpoint, output_dir=str(tmp_path / "elsewhere"))
    assert new != "before" and resume is None
    (tmp_path / "checkpoint-3/run_config.json").write_text("{}")  # it did not log to W&B
    new, resume = named(**checkpoint)
    assert new != "before" and resume is None


def test_a_new_run_has_a_new_wandb_id(named: Callable[..., Any]) -> None:
    (first, resume), (second, _) = named(), named(use_wandb=False, report_to=["wandb"])
    assert first and second and len({first, second, "before"}) == 3
    assert resume is None
    assert named(use_wandb=False) == (None, None)


@pytest.mark.parametrize(
    ("wandb", "environment"),
    [
        ({"id": "mine"}, {}),
        ({"resume": "auto"}, {}),
        ({}, {"WANDB_RUN_ID": "mine"}),
        ({}, {"WANDB_RESUME": "auto"}),
    ],
)
def test_the_users_wandb_id_is_kept(
    named: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wandb: dict[str, str],
    environment: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = named(wandb, resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert said == (wandb.get("id"), wandb.get("resume"))


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What asked for the network, all of it denied: swanlab catches its own errors."""
    found: list[str] = []

    def deny(*arguments: Any, **_: Any) -> None:
        found.append(str(arguments))
        raise OSError("denied")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, deny)
    monkeypatch.setattr(socket, "getaddrinfo", deny)
    return found


def swanlab_values(output: Path, name: str) -> list[dict[int, float]]:
    """A metric's values by step, of each of a folder's runs, by its dashboard's table of them."""
    folder = output / loggers.SWANLAB_FOLDER
    with contextlib.closing(sqlite3.connect(folder / "runs.swanlab")) as table:
        runs = table.execute(
            "select run_id, folder from tag join experiment on experiment.id = experiment_id "
            "where tag.name = ? order by experiment.id",
            [name],
        ).fetchall()
    logged = [(folder / run / "logs" / place).glob("*.log") for run, place in runs]
    lines = [chain(*(file.read_text().splitlines() for file in run)) for run in logged]
    return [{line["index"]: line["data"] for line in map(json.loads, each)} for each in lines]


def test_swanlab_holds_every_step_and_asks_for_no_network(
    train_with: Callable[..., Any], attempts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("swanboard")
    monkeypatch.setenv("SWANLAB_MODE", "cloud")
    monkeypatch.setenv("SWANLAB_API_KEY", "none")
    monkeypatch.setenv("SWANLAB_WEBHOOK", "http://203.0.113.1/")
    training = train_with(report_to=["swanlab"])
    for name in NUMBERS:
        (kept,) = swanlab_values(training.output, f"train/{name}")
        assert kept == {line["step"]: line[name] for line in training.steps}
    assert set(swanlab_values(training.output, "eval/loss")[0]) == {0, 2, 4}
    assert attempts == []


def test_swanlab_begins_a_resumed_run_with_what_was_before(
    tmp_path: Path, attempts: list[str]
) -> None:
    """Its local mode continues no run: of the step after the checkpoint the new value is kept."""
    pytest.importorskip("swanboard")
    config = configs.train_config(output_dir=str(tmp_path), report_to=["swanlab"])
    for last, resumed in ((3, None), (4, 2)):
        made = make_loggers(config)
        for logger in made if resumed else []:
            logger.resume(resumed or 0, 0)
        for step in range((resumed or 0) + 1, last + 1):
            for logger in made:
                logger.log("train", step, {"loss": step + last / 10, "mfu": None})
        for logger in made:
            logger.close()
    runs = swanlab_values(tmp_path, "train/loss")
    assert runs == [{1: 1.3, 2: 2.3, 3: 3.3}, {1: 1.3, 2: 2.3, 3: 3.4, 4: 4.4}]
    assert attempts == []


def test_mlflow_starts_a_new_run_unless_one_is_resumed(train_with: Callable[..., Any]) -> None:
    mlflow = pytest.importorskip("mlflow")
    fields = {"report_to": ["mlflow"]}
    output = train_with(**fields).output
    train_with(**fields, output_dir=str(output))
    client = mlflow.MlflowClient(tracking_uri=(output / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("llama-recipes-local")
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_without_report_to_there_is_one_file(tmp_path: Path) -> None:
    for logger in make_loggers(configs.train_config(output_dir=str(tmp_path))):
        logger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
