"""The logs of a resumed run: one curve, no step twice, none lost."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Ended, Runs
from test_exact_resume import AUTO, KILLED, LAST_LOGGED

LOGS = {"report_to": "tensorboard,wandb,mlflow"}
EVERY = list(range(1, STEPS + 1))
VALIDATED = [0, 6, 12]
BLOCK = 2**15


@pytest.fixture(scope="module")
def resumed(
    runs: Runs, lora: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ended, str]:
    """A run that was killed at its eighth step and resumed from its fifth; and its first id."""
    for package in ("tensorboard", "wandb", "mlflow"):
        pytest.importorskip(package)
    output = tmp_path_factory.mktemp("logged")
    killed = runs(output, lora | LOGS, 1, KILLED)
    assert killed.codes == [-9], killed.logs
    assert killed.metrics[-1]["step"] in LAST_LOGGED
    first = json.loads((output / "run_config.json").read_text())["wandb_config"]["id"]
    ended = runs(output, lora | LOGS | AUTO)
    assert ended.codes == [0], ended.logs
    return ended, first


def test_tensorboard_shows_one_curve(resumed: tuple[Ended, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ended, _ = resumed
    events = EventAccumulator(str(ended.output / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == EVERY
    assert [event.step for event in events.Scalars("eval/loss")] == VALIDATED
    losses = [line["loss"] for line in ended.metrics]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)


def test_mlflow_has_one_run_with_each_step_once(
    resumed: tuple[Ended, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    ended, _ = resumed
    client = MlflowClient(tracking_uri=(ended.output / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("llama-recipes-local")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for name, steps in (("train/loss", EVERY), ("eval/loss", VALIDATED)):
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted(metric.step for metric in history) == steps


def without_headers(written: bytes) -> bytes:
    """Join a file's records, which LevelDB's format cuts at every 32 KiB; a header has 7 bytes."""
    joined, place = b"", 7  # W&B's own header comes first
    while place + 7 <= len(written):
        left = BLOCK - place % BLOCK
        size = int.from_bytes(written[place + 4 : place + 6], "little")
        if left < 7:
            place += left
            continue
        joined += written[place + 7 : place + 7 + size]
        place += 7 + size
    return joined


def test_weights_and_biases_resumes_the_same_run(resumed: tuple[Ended, str]) -> None:
    ended, first = resumed
    folders = sorted((ended.output / "wandb").glob("offline-run-*"))
    assert [folder.name.rpartition("-")[2] for folder in folders] == [first] * 2
    saved = (ended.output / "checkpoint-10" / "run_config.json").read_text()
    assert json.loads(saved)["wandb_config"]["id"] == first
    # W&B's own count is training's, or the second file would begin at zero again
    written = (folders[1] / f"run-{first}.wandb").read_bytes()
    steps = re.findall(rb"\b_step\x82\x01(.)(\d+)", without_headers(written), re.DOTALL)
    counted = {int(digits[: ord(length)]) for length, digits in steps}  # and not what follows
    assert counted == {6, 7, 8, 9, 10, 11, 12}


def test_a_run_from_another_folder_is_a_new_one(
    runs: Runs, lora: dict[str, Any], resumed: tuple[Ended, str], tmp_path: Path
) -> None:
    ended, first = resumed
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n')  # of a run before
    moved = runs(
        tmp_path, lora | LOGS | {"resume_from_checkpoint": str(ended.output / "checkpoint-10")}
    )
    assert moved.codes == [0], moved.logs
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert not folder.name.endswith(first)
    assert [line["step"] for line in moved.metrics] == [11, 12]


def test_metrics_survive_a_checkpoint_that_cannot_be_resumed_from(
    runs: Runs, lora: dict[str, Any], output: Path
) -> None:
    metrics = (output / "metrics.jsonl").read_bytes()
    checkpoint = output / f"checkpoint-{STEPS}"
    weights = checkpoint / "model/rank-00000-00000.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    ended = runs(output, lora | {"resume_from_checkpoint": str(checkpoint)})
    assert ended.codes == [2], ended.logs
    assert (output / "metrics.jsonl").read_bytes() == metrics
