"""Reports a run's steps: the newest to the display about once a second, all to the loggers.

The numbers of a step wait here on the device. They are fetched together when one of them is to be
shown, at the end of an epoch, and when a run ends for whatever reason.
"""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import psutil
import torch

from llama_recipes_local.parallel import is_rank_zero, world_size
from llama_recipes_local.run.stages import print_stage
from llama_recipes_local.training.display import Display, Shown
from llama_recipes_local.training.flops import TrainingFlops
from llama_recipes_local.training.loggers import Logger
from llama_recipes_local.training.step_sync import StepSync
from llama_recipes_local.training.stepping import Figures
from llama_recipes_local.training.train_state import TrainState

GIB = 2**30
SECONDS_BETWEEN_FETCHES = 1.0


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step.

    Attributes:
        step: steps done, from 1.
        epoch: epochs done, as a fraction.
        loss: mean over the label tokens of the global batch.
        lr: learning rate the step was taken with.
        grad_norm: norm of the gradient before clipping; None where it overflowed in float16.
        label_tokens: label tokens of the global batch.
        tokens: positions computed by all ranks.
        tokens_per_second: over all ranks, in the steps that were fetched together.
        tflops: TFLOPS per device that the model needs; None if not counted.
        mfu: TFLOPS as a fraction of the device's peak; None if unknown.
        memory_gib: peak memory allocated on this rank's CUDA device; without one, resident memory.
        data_seconds: how long the host waited for the step's data; meanwhile the device is busy.
        seconds: since training began; steps that were fetched together share the time between.
        by_source: of each source of a mixture that is in the step, the mean over its label tokens,
            and how many those are.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float | None
    label_tokens: int
    tokens: int
    tokens_per_second: float
    tflops: float | None
    mfu: float | None
    memory_gib: float
    data_seconds: float
    seconds: float
    by_source: dict[str, tuple[float, int]] = field(default_factory=dict)

    def numbers(self) -> dict[str, Any]:
        """Return what is logged."""
        own = {name: value for name, value in vars(self).items() if name != "by_source"}
        losses = {f"loss/{name}": loss for name, (loss, _) in self.by_source.items()}
        counts = {f"label_tokens/{name}": count for name, (_, count) in self.by_source.items()}
        return own | losses | counts


@dataclass(frozen=True)
class PendingStep:
    """A step that was sent to the device.

    Attributes:
        step: steps done with it, from 1.
        epoch: epochs done, as a fraction.
        lr: learning rate it is taken with.
        sync: what its global batch holds.
        figures: its numbers, on the device.
        data_seconds: what this rank waited for its micro-batches.
        first_micro_batch: its first micro-batch in the epoch, from 0.
        input_ids: of this rank's micro-batches, in host memory.
    """

    step: int
    epoch: float
    lr: float
    sync: StepSync
    figures: Figures
    data_seconds: float
    first_micro_batch: int
    input_ids: Sequence[torch.Tensor]


@dataclass(frozen=True)
class FetchedStep:
    """A step whose numbers have arrived; see ``stepping.Figures`` for the last two."""

    pending: PendingStep
    metrics: StepMetrics
    stop: bool
    bad_ranks: list[int]


class Progress:
    """Reports steps: to the first rank's display, once a second at most, and to loggers."""

    def __init__(
        self,
        total_steps: int,
        loggers: Sequence[Logger] = (),
        flops: TrainingFlops | None = None,
        peak_flops: float | None = None,
        epochs: int = 1,
        sources: Sequence[str] = (),
    ) -> None:
        self.total_steps = total_steps
        self.epochs = epochs
        self._sources = sources
        self.display = Display()
        self.loggers = loggers
        self._flops = flops
        self._peak_flops = peak_flops
        self._pending: list[PendingStep] = []
        self._started = self._window_began = time.perf_counter()
        self._last_fetch = -math.inf
        self._step_seconds = 0.0
        self._steps_done = 0

    def __enter__(self) -> "Progress":
        self.display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # a device that failed has no numbers, and its error is the one to show
        with self.display, contextlib.suppress(RuntimeError) if error else contextlib.nullcontext():
            self.fetch()
        for logger in self.loggers:
            logger.close()

    @property
    def seconds(self) -> float:
        """Seconds since training began, without those between an interruption and resuming."""
        return time.perf_counter() - self._started

    def resume(self, state: TrainState, seconds: float, same_folder: bool) -> None:
        """Resume after a checkpoint; what the same run logged after it is dropped.

        Args:
            state: the checkpoint's.
            seconds: what training took until then.
            same_folder: whether it is in this run's own folder, where that run's logs are.
        """
        self._started = time.perf_counter() - seconds
        for logger in self.loggers if same_folder else ():
            logger.resume(state.step, state.validated)

    def due(self, step: int) -> bool:
        """Whether this rank is due to show ``step``."""
        late = time.perf_counter() - self._last_fetch >= SECONDS_BETWEEN_FETCHES
        return is_rank_zero() and (step == self.total_steps or late)

    def add(self, pending: PendingStep) -> None:
        """Add a step that was sent to the device."""
        self._pending.append(pending)

    def pause(self) -> None:
        """Exclude the time since the last fetch from the next steps."""
        self._window_began = time.perf_counter()

    def fetch(self, show: bool = False) -> list[FetchedStep]:
        """Wait for the steps that are pending and report them.

        Args:
            show: whether to show the last of them.

        Returns:
            The steps up to the first at which training has to stop; that one is not reported.
        """
        if not self._pending:
            return []
        pending, self._pending = self._pending, []
        is_first = not self._steps_done
        values = torch.stack([step.figures.values for step in pending]).tolist()
        fetched = self._measure(pending, values)
        if is_first and is_rank_zero() and not fetched[0].stop:
            print_stage("first step", self._step_seconds / len(pending))
        for step in fetched:
            if step.stop:
                break
            self.log("train", step.metrics.numbers())
        if show and is_rank_zero() and not fetched[-1].stop:
            self._last_fetch = time.perf_counter()
            self.display.step(self._shown(fetched[-1].metrics))
        return fetched

    def log(self, kind: str, numbers: Mapping[str, float | None]) -> None:
        """Log numbers with their ``step`` to all loggers."""
        rest = dict(numbers)
        step = rest.pop("step")
        assert isinstance(step, int)
        for logger in self.loggers:
            logger.log(kind, step, rest)

    def _measure(self, pending: list[PendingStep], values: list[list[float]]) -> list[FetchedStep]:
        """Spread the time since the last fetch over the steps, by their tokens."""
        now = time.perf_counter()
        began, self._window_began = self._window_began, now
        seconds = now - began
        self._step_seconds += seconds
        self._steps_done += len(pending)
        tokens = sum(step.sync.tokens for step in pending)
        memory = round(memory_gib(), 3)
        tflops, mfu = self._rates(pending, seconds)
        fetched, done = [], 0
        for step, (loss, norm, stop, *bad) in zip(pending, values, strict=True):
            done += step.sync.tokens
            metrics = StepMetrics(
                step=step.step,
                epoch=round(step.epoch, 4),
                loss=loss,
                lr=step.lr,
                grad_norm=norm if math.isfinite(norm) else None,
                label_tokens=step.sync.label_tokens,
                tokens=step.sync.tokens,
                tokens_per_second=round(tokens / seconds, 1),
                tflops=tflops,
                mfu=mfu,
                memory_gib=memory,
                data_seconds=round(step.data_seconds, 4),
                seconds=round(began - self._started + seconds * done / tokens, 3),
                by_source=self._by_source(step),
            )
            bad_ranks = [number for number, flag in enumerate(bad) if flag]
            fetched.append(FetchedStep(step, metrics, bool(stop), bad_ranks))
            if stop:
                break
        return fetched

    def _by_source(self, step: PendingStep) -> dict[str, tuple[float, int]]:
        if not self._sources:
            return {}
        sums = step.figures.source_sums.tolist()
        each = zip(self._sources, sums, step.sync.source_tokens, strict=True)
        return {name: (total / count, count) for name, total, count in each if count}

    def _rates(
        self, pending: list[PendingStep], seconds: float
    ) -> tuple[float | None, float | None]:
        """Return TFLOPS per device, and MFU as a fraction."""
        if self._flops is None:
            return None, None
        needed = sum(
            self._flops.of(step.sync.real_tokens, step.sync.squared_lengths) for step in pending
        )
        rate = needed / seconds / world_size()
        mfu = None if self._peak_flops is None else round(rate / self._peak_flops, 4)
        return float(f"{rate / 1e12:.4g}"), mfu

    def _shown(self, metrics: StepMetrics) -> Shown:
        return Shown(
            step=metrics.step,
            total=self.total_steps,
            epoch=metrics.epoch,
            epochs=self.epochs,
            loss=metrics.loss,
            grad_norm=math.inf if metrics.grad_norm is None else metrics.grad_norm,
            lr=metrics.lr,
            tokens_per_second=metrics.tokens_per_second,
            tflops=metrics.tflops,
            memory_gib=metrics.memory_gib,
            seconds_left=self._step_seconds / self._steps_done * (self.total_steps - metrics.step),
        )


def memory_gib() -> float:
    """Return the peak memory allocated on the CUDA device, without one resident memory, in GiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return psutil.Process().memory_info().rss / GIB
