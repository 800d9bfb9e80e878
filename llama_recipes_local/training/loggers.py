"""Loggers: JSON lines always; TensorBoard, W&B, MLflow and SwanLab on request.

Each writes into the output folder. None is given a server, so nothing leaves the machine unless
``wandb_config.mode`` asks for it.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TextIO

from llama_recipes_local import configs
from llama_recipes_local.checkpoints import selection
from llama_recipes_local.run import Run
from llama_recipes_local.run.logged_metrics import EVALUATIONS_FILE, METRICS_FILE, step_of
from llama_recipes_local.run.record import SavedRun
from llama_recipes_local.storage.publishing import write_text

TENSORBOARD_FOLDER = "tensorboard"
MLFLOW_FOLDER = "mlruns"
SWANLAB_FOLDER = "swanlog"
PROJECT = "llama-recipes-local"
Numbers = Mapping[str, float | None]


class WandbRun(Protocol):
    """The methods that are used of a Weights & Biases run, which is an optional package."""

    def log(
        self, data: dict[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        """Log values."""

    def finish(self) -> None:
        """End the run."""


class Logger(Protocol):
    """Receives the numbers of a run."""

    def resume(self, step: int, validated: int) -> None:
        """Keep what the run logged up to its checkpoint, and drop what it logged later.

        Args:
            step: the checkpoint's.
            validated: the step of the last validation before it.
        """

    def log(self, kind: str, step: int, numbers: Numbers) -> None:
        """Log numbers of one ``kind``, "train" or "eval", after ``step`` optimiser steps."""

    def close(self) -> None:
        """Write what is buffered."""


class JsonLines:
    """``metrics.jsonl`` holds a line a step, ``evaluations.jsonl`` a line a validation."""

    def __init__(self, output: Path) -> None:
        self._paths = {"train": output / METRICS_FILE, "eval": output / EVALUATIONS_FILE}
        self._files: dict[str, TextIO] = {}
        self._folder = _inode(output)
        self._kept = {
            "train": -1,
            "eval": -1,
        }  # the last steps to keep of the run before it was resumed
        self._paths["train"].touch()

    def resume(self, step: int, validated: int) -> None:
        self._kept = {"train": step, "eval": max(validated, 0)}

    def log(self, kind: str, step: int, numbers: Numbers) -> None:
        if not self._files:
            self._begin()
        if kind not in self._files:
            self._files[kind] = self._paths[kind].open("a+", encoding="utf-8")
        self._files[kind].write(json.dumps({"step": step, **numbers}) + "\n")
        self._files[kind].flush()

    def _begin(self) -> None:
        """Truncate the files to what is kept, each atomically."""
        for kind, path in self._paths.items():
            kept = "".join(_lines_up_to(path, self._kept[kind]))
            if kept:
                write_text(path, kept)
            else:
                path.unlink(missing_ok=True)
        self._files["train"] = self._paths["train"].open("a+", encoding="utf-8")

    def close(self) -> None:
        for kind, file in self._files.items():
            if not self._paths[kind].exists() and self._folder == _inode(self._paths[kind].parent):
                file.seek(0)  # it was removed while it was written
                write_text(self._paths[kind], file.read())
            file.close()


def _inode(folder: Path) -> int | None:
    """Return a number that identifies a folder regardless of its name; None if it is missing."""
    return folder.stat().st_ino if folder.is_dir() else None


def _lines_up_to(path: Path, last: int) -> Iterator[str]:
    """Yield the lines up to a step; corrupt lines are left out and counted in one message."""
    if last < 0 or not path.is_file():
        return
    corrupt = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            step = step_of(line)
            if step is None:
                corrupt.append(number)
            elif step <= last:
                yield line.decode("utf-8").rstrip("\n") + "\n"
    if corrupt:
        first = f"the first is line {corrupt[0]}"
        print(f"--> {path}: {len(corrupt)} corrupt line(s) left out, {first}")


class TensorBoard:
    """Event files for ``tensorboard --logdir OUTPUT/tensorboard``."""

    def __init__(self, output: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = lambda **kwargs: SummaryWriter(str(output / TENSORBOARD_FOLDER), **kwargs)
        self._writer: Any = self._make()

    def resume(self, step: int, validated: int) -> None:
        self._writer.close()
        self._writer = self._make(purge_step=step + 1)

    def log(self, kind: str, step: int, numbers: Numbers) -> None:
        for name, value in _present(kind, numbers).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases: the one given, or one of ``wandb_config``, offline by default.

    It counts training steps, so that steps which a resumed run logs again replace the old ones. A
    run that a script passes keeps its own count.
    """

    def __init__(
        self, output: Path, wandb_run: WandbRun | None = None, run: Run | None = None
    ) -> None:
        self._own = wandb_run is None
        config = configs.wandb_config() if run is None else run.wandb
        self._run = _start_wandb(output, config) if wandb_run is None else wandb_run
        self._counts = self._own or run is not None

    def resume(self, step: int, validated: int) -> None:
        """Do nothing: a resumed run was started with its ``id``, see ``name_wandb_run``."""

    def log(self, kind: str, step: int, numbers: Numbers) -> None:
        values = {f"{kind}/step": step} | _present(kind, numbers)
        self._run.log(values, step=step if self._counts else None)

    def close(self) -> None:
        if self._own:
            self._run.finish()


class MlFlow:
    """A run in a local MLflow folder, for ``mlflow ui --backend-store-uri OUTPUT/mlruns``."""

    def __init__(self, output: Path, train_config: configs.train_config) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # a folder is enough here, although MLflow recommends a database
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=(output / MLFLOW_FOLDER).resolve().as_uri())
        experiment = self._client.get_experiment_by_name(PROJECT)
        self._experiment = (
            experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        )
        self._name = output.name
        self._settings = vars(train_config)
        self._run: str | None = None
        self._logged = {"train": -1, "eval": -1}  # the last steps of the resumed run

    def resume(self, step: int, validated: int) -> None:
        """Resume the newest run, keeping what it has: MLflow removes no step."""
        newest = ["attributes.start_time DESC"]
        for found in self._client.search_runs([self._experiment], order_by=newest, max_results=1):
            self._run = found.info.run_id
            self._client.update_run(self._run, status="RUNNING")
            for kind in self._logged:
                history = self._client.get_metric_history(self._run, f"{kind}/loss")
                self._logged[kind] = max((metric.step for metric in history), default=-1)

    def log(self, kind: str, step: int, numbers: Numbers) -> None:
        from mlflow.entities import Metric

        if step <= self._logged[kind]:
            return
        self._run = self._run or self._begin()
        now = int(time.time() * 1000)
        present = _present(kind, numbers).items()
        metrics = [Metric(name, value, now, step) for name, value in present]
        self._client.log_batch(self._run, metrics=metrics)

    def _begin(self) -> str:
        """Begin a run, and return its id."""
        run_id: str = self._client.create_run(self._experiment, run_name=self._name).info.run_id
        for name, value in self._settings.items():
            self._client.log_param(run_id, name, value)
        return run_id

    def close(self) -> None:
        if self._run is not None:
            self._client.set_terminated(self._run)


class SwanLab:
    """A run in a local SwanLab folder, for ``swanlab watch OUTPUT/swanlog``.

    SwanLab resumes no run of its local mode, so a resumed run is a new one that begins with the
    steps before it. What it would say of the machine, and print a second time, is left out.
    """

    def __init__(self, output: Path, train_config: configs.train_config) -> None:
        import swanlab

        collected = ("hardware", "runtime", "requirements", "git", "swanlab", "monitor")
        quiet = swanlab.Settings(
            interactive=False,
            terminal={"proxy_type": "none"},
            probe=dict.fromkeys(collected, False),
            integration={"webhook": {"url": ""}},  # which the environment may name
        )
        self._paths = {"train": output / METRICS_FILE, "eval": output / EVALUATIONS_FILE}
        self._run = swanlab.init(
            mode="local",
            log_dir=str(output / SWANLAB_FOLDER),
            project=PROJECT,
            name=output.name,
            config=dict(vars(train_config)),
            settings=quiet,
        )

    def resume(self, step: int, validated: int) -> None:
        for kind, last in (("train", step), ("eval", max(validated, 0))):
            for line in _lines_up_to(self._paths[kind], last):
                numbers = json.loads(line)
                self.log(kind, numbers.pop("step"), numbers)

    def log(self, kind: str, step: int, numbers: Numbers) -> None:
        self._run.log(_present(kind, numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def make_loggers(
    train_config: configs.train_config,
    wandb_run: WandbRun | None = None,
    run: Run | None = None,
) -> list[Logger]:
    """Return the loggers of a run; only its first rank has any.

    Args:
        train_config: its ``output_dir``, which exists, and ``report_to``.
        wandb_run: the run that upstream's ``use_wandb`` has started, or None.
        run: the run that ``finetuning.main`` is in, or None in a script.
    """
    output = Path(train_config.output_dir)
    loggers: list[Logger] = [JsonLines(output)]
    if "tensorboard" in train_config.report_to:
        loggers.append(TensorBoard(output))
    if wandb_run is not None or "wandb" in train_config.report_to:
        loggers.append(WeightsAndBiases(output, wandb_run, run))
    if "mlflow" in train_config.report_to:
        loggers.append(MlFlow(output, train_config))
    if "swanlab" in train_config.report_to:
        loggers.append(SwanLab(output, train_config))
    return loggers


def name_wandb_run(run: Run) -> None:
    """Set a run's id in Weights & Biases: that of the run it resumes, or a new one.

    ``run_config.json`` records it, also in each checkpoint. An id that the user gives stays.
    """
    config, wanted = run.wandb, run.train.use_wandb or "wandb" in run.train.report_to
    given = config.id or config.resume or {"WANDB_RUN_ID", "WANDB_RESUME"} & os.environ.keys()
    if given or not wanted:
        return
    folder = selection.expected(run.train)
    if folder is not None and selection.is_in(Path(run.train.output_dir), folder):
        config.id = SavedRun(folder).get("wandb_config", "id")
    config.resume = "allow" if config.id else None
    config.id = config.id or secrets.token_hex(4)


def _start_wandb(output: Path, config: configs.wandb_config) -> WandbRun:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    run: WandbRun = wandb.init(**asdict(config), dir=str(output))
    return run


def _present(kind: str, numbers: Numbers) -> dict[str, float]:
    """Return the numbers that are not None, under the names that loggers group by."""
    return {f"{kind}/{name}": value for name, value in numbers.items() if value is not None}
