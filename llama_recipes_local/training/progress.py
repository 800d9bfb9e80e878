"""What a run reports: a line on the console now and then, and every step as a line of JSON."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import psutil
import torch

from llama_recipes_local.parallel import is_rank_zero, world_size

GIB = 2**30
SECONDS_BETWEEN_LINES = 1.0


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step.

    Attributes:
        step: steps done, from 1.
        epoch: epochs done, as a fraction.
        loss: mean over the label tokens of the global batch.
        lr: learning rate the step was taken with.
        grad_norm: norm of the gradient before clipping; None where it is not computed.
        label_tokens: label tokens of the global batch.
        tokens: positions computed by all ranks.
        tokens_per_second: over all ranks, since the step before.
        memory_gib: peak memory allocated on this rank's CUDA device, or resident in this process.
        seconds: since training began.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float | None
    label_tokens: int
    tokens: int
    tokens_per_second: float
    memory_gib: float
    seconds: float


class Progress:
    """Reports steps, on rank 0 only: a console line a second at most, and ``metrics.jsonl``."""

    def __init__(self, path: Path, total_steps: int) -> None:
        self.total_steps = total_steps
        self._file = path.open("w", encoding="utf-8") if is_rank_zero() else None
        self._started = self._last_step = time.perf_counter()
        self._last_line = 0.0
        self._step_seconds = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()

    def pause(self) -> None:
        """Leave the time since the last step out of the next step's."""
        self._last_step = time.perf_counter()

    def step(
        self,
        step: int,
        epoch: float,
        loss: float,
        lr: float,
        grad_norm: float | None,
        label_tokens: int,
        tokens: int,
    ) -> None:
        """Report a step; ``tokens`` are this rank's, and all ranks have about as many."""
        now = time.perf_counter()
        seconds, self._last_step = now - self._last_step, now
        self._step_seconds += seconds
        tokens *= world_size()
        metrics = StepMetrics(
            step=step,
            epoch=round(epoch, 4),
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            label_tokens=label_tokens,
            tokens=tokens,
            tokens_per_second=round(tokens / seconds, 1),
            memory_gib=round(memory_gib(), 3),
            seconds=round(now - self._started, 3),
        )
        if self._file is None:
            return
        self._file.write(json.dumps(asdict(metrics)) + "\n")
        self._file.flush()
        if step == self.total_steps or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(metrics), flush=True)

    def _line(self, metrics: StepMetrics) -> str:
        left = self._step_seconds / metrics.step * (self.total_steps - metrics.step)
        width = len(str(self.total_steps))
        norm = "" if metrics.grad_norm is None else f"  grad_norm {metrics.grad_norm:7.3f}"
        return (
            f"step {metrics.step:>{width}}/{self.total_steps}  loss {metrics.loss:7.4f}"
            f"{norm}  lr {metrics.lr:.2e}  {metrics.tokens_per_second:9,.0f} tok/s"
            f"  memory {metrics.memory_gib:5.1f} GiB  left {clock(left)}"
        )


def memory_gib() -> float:
    """Return the peak memory allocated on the CUDA device, or what this process holds, in GiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return psutil.Process().memory_info().rss / GIB


def clock(seconds: float) -> str:
    """Write a number of seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
