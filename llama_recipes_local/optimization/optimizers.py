"""The optimisers that ``--optimizer`` names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from llama_recipes_local.configs.optimizer_names import BITSANDBYTES, OPTIMIZERS
from llama_recipes_local.library_patches import BITSANDBYTES_OPTIMIZERS

MakeOptimizer = Callable[..., torch.optim.Optimizer]


def make_optimizer(
    name: str, params: list[nn.Parameter], lr: float, weight_decay: float, **kwargs: object
) -> torch.optim.Optimizer:
    """Return an optimiser over trainable parameters.

    Args:
        name: one of ``OPTIMIZERS``, in any case.
        params: the parameters.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        **kwargs: further arguments of the optimiser's class.

    Raises:
        ValueError: if the optimiser is unknown, or does not take sharded parameters.
    """
    makers: dict[str, MakeOptimizer] = {
        "adamw": _adamw,
        "anyprecision": _any_precision,
    }
    key = name.lower()
    if key not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}: choose one of {', '.join(OPTIMIZERS)}")
    if key in BITSANDBYTES:
        return _bitsandbytes(key, params, lr=lr, weight_decay=weight_decay, **kwargs)
    return makers[key](params, lr=lr, weight_decay=weight_decay, **kwargs)


def _adamw(params: list[nn.Parameter], **kwargs: object) -> torch.optim.Optimizer:
    """Return torch's AdamW, fused: one kernel, which skips a step by a flag on the device."""
    fusable = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
    kwargs.setdefault("fused", fusable)
    make: MakeOptimizer = torch.optim.AdamW
    return make(params, **kwargs)


def _any_precision(params: list[nn.Parameter], **kwargs: object) -> torch.optim.Optimizer:
    """Return upstream's AnyPrecisionAdamW with bfloat16 moments, as ``main`` makes it."""
    from llama_recipes_local.policies import AnyPrecisionAdamW

    return AnyPrecisionAdamW(params, **kwargs)


def _bitsandbytes(name: str, params: list[nn.Parameter], **kwargs: object) -> torch.optim.Optimizer:
    """Return one of bitsandbytes' optimisers; on the CPU, where nothing is paged out, unpaged."""
    import bitsandbytes

    on_cpu = all(p.device.type == "cpu" for p in params)
    class_name = BITSANDBYTES[name]
    cls = getattr(bitsandbytes.optim, class_name.removeprefix("Paged") if on_cpu else class_name)
    distributed = [p for p in params if isinstance(p, DTensor)]
    if any(p.to_local().shape != p.shape for p in distributed):
        raise ValueError(f"{name} does not take parameters that are sharded: use AdamW")
    if distributed:
        cls = _on_replicas(cls)
    return cls(params, **kwargs)


Group = dict[str, Any]  # of the optimiser: parameters and settings


def _on_replicas(cls: Any) -> Any:
    """Return bitsandbytes' optimiser for replicated DTensors, as with NO_SHARD.

    Its kernels take no DTensor, so each step is on the rank's own tensor.

    Args:
        cls: a class of ``bitsandbytes.optim``, which has no types.
    """
    BITSANDBYTES_OPTIMIZERS.check()

    class OnReplicas(cls):  # type: ignore[misc]
        def init_state(self, group: Group, p: DTensor, gindex: int, pindex: int) -> None:
            with self._own(p) as own:
                super().init_state(group, own, gindex, pindex)

        def update_step(self, group: Group, p: DTensor, gindex: int, pindex: int) -> None:
            with self._own(p) as own:
                super().update_step(group, own, gindex, pindex)

        @contextmanager
        def _own(self, p: DTensor) -> Iterator[torch.Tensor]:
            own, gradient = p.to_local(), p.grad
            assert isinstance(gradient, DTensor)
            own.grad = gradient.to_local()
            self.state[own] = self.state[p]
            yield own
            del self.state[own]

    return OnReplicas
