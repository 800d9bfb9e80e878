"""One clock for every tool: torch calls a hook after each step of any optimiser.

The hook records a CUDA event on the stream that the step ran on. Nothing waits for the device but
after the first step and after the last. torch is imported when the tool does it: some read files
meanwhile, some must come before it.
"""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

GIB = 2**30


class WhenImported(MetaPathFinder):
    """Calls a function with a module once that has been imported."""

    def __init__(self, name: str, then: Callable[[Any], None]) -> None:
        self.name, self.then = name, then
        if name in sys.modules:
            then(sys.modules[name])
        else:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's own spec, with a loader that calls the function at its end."""
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None and spec.loader is not None
        loader, execute = spec.loader, spec.loader.exec_module

        def execute_and_tell(module: ModuleType) -> None:
            execute(module)
            self.then(module)

        setattr(loader, "exec_module", execute_and_tell)  # noqa: B010 (of this loader alone)
        return spec


class Clock:
    """Records when each optimiser step ended on the device, and the memory that steps take."""

    def __init__(self, out: Path, started: float, steps: int) -> None:
        """Start.

        Args:
            out: file for what was recorded, which appears whole.
            started: when the process was started, in seconds since the epoch.
            steps: optimiser steps after which it is written.
        """
        self.out, self.started, self.steps = out, started, steps
        self.until_first_step = 0.0
        self.start_gib = 0.0
        self.marks: list[Any] = []
        WhenImported("torch.optim.optimizer", self.hook_into)

    def hook_into(self, optimizer: Any) -> None:
        """Have torch call ``mark`` after each step.

        Args:
            optimizer: the module ``torch.optim.optimizer``.
        """
        self.hook = optimizer.register_optimizer_step_post_hook(self.mark)

    def mark(self, *_: object) -> None:
        """Record the end of a step."""
        import torch

        if not torch.cuda.is_available():
            self.marks.append(time.perf_counter())
        else:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        if len(self.marks) == 1:
            self._end_start()
        if len(self.marks) == self.steps:
            self._write()

    def _end_start(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.start_gib = torch.cuda.max_memory_allocated() / GIB
            torch.cuda.reset_peak_memory_stats()
        self.until_first_step = time.time() - self.started

    def _write(self) -> None:
        """Write the seconds of each step after the first, and the peaks before and after it."""
        import torch

        pairs = list(zip(self.marks, self.marks[1:], strict=False))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            seconds = [began.elapsed_time(ended) / 1e3 for began, ended in pairs]
            peak = torch.cuda.max_memory_allocated() / GIB
        else:
            seconds, peak = [ended - began for began, ended in pairs], 0.0
        found = {
            "step_seconds": seconds,
            "peak_gib": round(peak, 1),
            "start_gib": round(self.start_gib, 1),
            "seconds_to_first_step": round(self.until_first_step, 1),
        }
        draft = self.out.with_suffix(".draft")
        draft.write_text(json.dumps(found))
        draft.rename(self.out)
