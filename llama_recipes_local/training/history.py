"""The losses and times of a run by epoch, and upstream's summary of them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local._upstream import load
from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.storage.publishing import published_file
from llama_recipes_local.training.evaluation import Evaluated

# what a resumed run needs of the one before
KEPT = (
    "initial_eval_loss",
    "initial_eval_tokens",
    "last_eval_tokens",
    "train_loss",
    "eval_loss",
    "train_step_loss",
    "eval_step_loss",
    "epoch_seconds",
    "checkpoint_seconds",
    "tflops",
    "tokens",
    "source_sums",
)


class History:
    """Collects losses and times; with ``save_metrics``, writes upstream's JSON file of them."""

    def __init__(self, train_config: configs.train_config, local_rank: int | None) -> None:
        self._config = train_config
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        self.path = Path(train_config.output_dir) / f"metrics_data_{local_rank}-{stamp}.json"
        self.initial_eval_loss: float | None = None
        self.initial_eval_tokens: int | None = None  # label tokens of that validation
        self.last_eval_tokens: int | None = None
        self._added = False  # whether this process has trained or validated
        self.train_loss: list[float] = []
        self.eval_loss: list[float] = []
        self.train_step_loss: list[float] = []
        self.eval_step_loss: list[float] = []
        self.epoch_seconds: list[float] = []
        self.checkpoint_seconds: list[float] = []
        self.tflops: float | None = None
        self.tokens: int | None = 0  # positions computed; None after a checkpoint without them
        # of the epoch, or the one that ended last: the losses and label tokens of each source
        self.source_sums: dict[str, tuple[float, int]] = {}
        self._epoch_steps: list[tuple[float, int]] = []
        # the steps and seconds of the epoch that ended last, and of one to be continued
        self._ended: tuple[list[tuple[float, int]], float] = [], 0.0
        self._open: tuple[list[tuple[float, int]], float] | None = None
        self._epoch_began = 0.0
        self._seconds_before = 0.0  # of the current epoch, before this run was resumed

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Time the rest of an epoch; its loss is the mean over all its label tokens."""
        self._epoch_began = time.perf_counter()
        self._open = None
        yield
        self.epoch_seconds.append(self._epoch_seconds())
        labels = sum(count for _, count in self._epoch_steps)
        total = sum(loss * count for loss, count in self._epoch_steps)
        self.train_loss.append(total / max(labels, 1))
        self._ended = self._epoch_steps, self.epoch_seconds[-1]
        self._epoch_steps, self._seconds_before = [], 0.0

    def keep_open(self) -> None:
        """Have a resumed run continue the last epoch, because the run ended within it."""
        self._open = self._ended

    def close(self) -> None:
        """Mark the last epoch as complete."""
        self._open = None

    def _epoch_seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._epoch_began

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Time a save."""
        started = time.perf_counter()
        yield
        self.checkpoint_seconds.append(time.perf_counter() - started)

    def add_step(
        self,
        loss: float,
        label_tokens: int,
        tokens: int,
        by_source: Mapping[str, tuple[float, int]] = MappingProxyType({}),
    ) -> None:
        """Add a step of the epoch; for a mixture with the mean loss and label tokens by source."""
        self._added = True
        if not self._epoch_steps:
            self.source_sums = {}
        for name, (mean, count) in by_source.items():
            total, counted = self.source_sums.get(name, (0.0, 0))
            self.source_sums[name] = (total + mean * count, counted + count)
        self.tokens = None if self.tokens is None else self.tokens + tokens
        self._epoch_steps.append((loss, label_tokens))
        self.train_step_loss.append(loss)

    def add_initial_evaluation(self, evaluated: Evaluated) -> None:
        """Record the validation loss before training."""
        self.initial_eval_loss = evaluated.loss
        self.initial_eval_tokens = evaluated.label_tokens

    def add_evaluation(self, evaluated: Evaluated) -> None:
        """Add a validation's losses."""
        self._added = True
        self.eval_loss.append(evaluated.loss)
        self.eval_step_loss.extend(evaluated.step_losses)
        self.last_eval_tokens = evaluated.label_tokens

    def state_dict(self) -> dict[str, Any]:
        """Return the losses and times so far as JSON-ready data."""
        kept: dict[str, Any] = {name: getattr(self, name) for name in KEPT}
        started = bool(self._epoch_steps)
        if self._open is not None:
            steps, seconds = self._open
            closed = {name: kept[name][:-1] for name in ("train_loss", "epoch_seconds")}
            return (
                kept
                | closed
                | {
                    "file": self.path.name,
                    "epoch_steps": steps,
                    "seconds_of_epoch": seconds,
                }
            )
        return kept | {
            "file": self.path.name,
            "epoch_steps": self._epoch_steps,
            "seconds_of_epoch": self._epoch_seconds() if started else 0.0,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what ``state_dict`` returned."""
        for name in KEPT:
            setattr(self, name, state.get(name))
        saved = state.get("source_sums") or {}  # a run before it was measured has none
        self.source_sums = {name: (total, count) for name, (total, count) in saved.items()}
        self.path = self.path.with_name(Path(state["file"]).name)
        self._epoch_steps = [(loss, labels) for loss, labels in state["epoch_steps"]]
        self._seconds_before = state["seconds_of_epoch"]

    def summary(self) -> dict[str, Any]:
        """Return the validation losses before and after, the tokens, and whether this one trained.

        ``other_batches`` says that the loss before is left out because it is of other batches than
        the one after: a resumed run may validate on more of them, or on fewer.
        """
        tokens = (self.initial_eval_tokens, self.last_eval_tokens)
        other_batches = None not in tokens and tokens[0] != tokens[1]
        return {
            "eval_loss_before": None if other_batches else self.initial_eval_loss,
            "eval_loss_after": self.eval_loss[-1] if self.eval_loss else None,
            "other_batches": other_batches,
            "trained": self._added,
            "train_loss_by_source": {
                name: total / count for name, (total, count) in self.source_sums.items()
            },
            "tokens": self.tokens,
        }

    def results(self) -> dict[str, Any]:
        """Return what upstream's ``train`` returns: means over the epochs."""
        results: dict[str, Any] = {
            "avg_train_prep": fmean(map(perplexity, self.train_loss)),
            "avg_train_loss": fmean(self.train_loss),
        }
        if self.eval_loss:
            results["avg_eval_prep"] = fmean(map(perplexity, self.eval_loss))
            results["avg_eval_loss"] = fmean(self.eval_loss)
        results["avg_epoch_time"] = fmean(self.epoch_seconds)
        results["avg_checkpoint_time"] = fmean(self.checkpoint_seconds or [0.0])
        if self._config.save_metrics:
            results["metrics_filename"] = str(self.path)
        if self._config.flop_counter:
            results["model_tflops"] = self.tflops
        return results

    def save(self) -> None:
        """Write upstream's JSON file, which its ``utils.plot_metrics`` draws."""
        if not self._config.save_metrics:
            return
        losses = (
            self.train_step_loss,
            self.train_loss,
            self.eval_step_loss,
            self.eval_loss,
        )
        train_steps, train_epochs, eval_steps, eval_epochs = (
            (loss, [perplexity(value) for value in loss]) for loss in losses
        )
        with published_file(self.path) as draft:
            load("utils.train_utils").save_to_json(
                str(draft),
                train_steps[0],
                train_epochs[0],
                train_steps[1],
                train_epochs[1],
                eval_steps[0],
                eval_epochs[0],
                eval_steps[1],
                eval_epochs[1],
            )
