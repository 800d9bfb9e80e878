"""Upstream's profiler and FLOP counter, around the steps of an epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from llama_recipes_local import configs
from llama_recipes_local._upstream import load


@contextmanager
def profile(train_config: configs.train_config) -> Iterator[Any]:
    """Profile or count FLOPs as upstream does, where a flag asks for it; else yield None."""
    if train_config.use_profiler or train_config.flop_counter:
        with load("utils.train_utils").profile(train_config) as profiler:
            yield profiler
    else:
        yield None


def profile_step(
    profiler: Any,  # torch's profiler or upstream's FlopMeasure, which have no common type
    train_config: configs.train_config,
    device: torch.device,
) -> float | None:
    """End the profiler's step; return TFLOPS once counted."""
    if profiler is None:
        return None
    if train_config.flop_counter and device.type == "cuda":
        torch.cuda.synchronize(device)  # it takes the time from one step to the next
    profiler.step()
    if not train_config.flop_counter or not profiler.is_done():
        return None
    return profiler.get_flops_per_sec() / 1e12
