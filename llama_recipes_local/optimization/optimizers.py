"""The optimisers that ``--optimizer`` names."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from llama_recipes_local.library_patches import BITSANDBYTES_OPTIMIZERS

BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
OPTIMIZERS = ("adamw", "anyprecision", *BITSANDBYTES)


def make_optimizer(
    name: str, params: list[nn.Parameter], lr: float, weight_decay: float, **kwargs: Any
) -> torch.optim.Optimizer:
    """Return an optimiser over parameters that are trained.

    Args:
        name: one of ``OPTIMIZERS``, in any case.
        params: the parameters.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        **kwargs: further arguments of the optimiser's class.

    Raises:
        ValueError: if there is no optimiser of that name, or it does not take sharded parameters.
    """
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": _adamw,
        "anyprecision": _any_precision,
    }
    key = name.lower()
    if key not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer {name!r}, there are {', '.join(OPTIMIZERS)}")
    if key in BITSANDBYTES:
        return _bitsandbytes(key, params, lr=lr, weight_decay=weight_decay, **kwargs)
    return makers[key](params, lr=lr, weight_decay=weight_decay, **kwargs)


def _adamw(params: list[nn.Parameter], **kwargs: Any) -> torch.optim.AdamW:
    """Return torch's AdamW, fused: one kernel that can be told on the device to do nothing."""
    fusable = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
    kwargs.setdefault("fused", fusable)
    return torch.optim.AdamW(params, **kwargs)


def _any_precision(params: list[nn.Parameter], **kwargs: Any) -> torch.optim.Optimizer:
    """Return upstream's AnyPrecisionAdamW with bfloat16 moments, as ``main`` makes it."""
    from llama_recipes_local.policies import AnyPrecisionAdamW

    return AnyPrecisionAdamW(params, **kwargs)


def _bitsandbytes(name: str, params: list[nn.Parameter], **kwargs: Any) -> torch.optim.Optimizer:
    """Return one of bitsandbytes' optimisers; on CPU a paged one keeps its state where it is."""
    import bitsandbytes

    cls = getattr(bitsandbytes.optim, BITSANDBYTES[name])
    distributed = [p for p in params if isinstance(p, DTensor)]
    if any(p.to_local().shape != p.shape for p in distributed):
        raise ValueError(f"{name} does not take parameters that are sharded: use AdamW")
    if distributed:
        cls = _on_replicas(cls)
    # on CPU there is nothing to page out, which bitsandbytes says for each parameter
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    return cls(params, **kwargs)


def _on_replicas(cls: Any) -> Any:
    """Return bitsandbytes' optimiser for DTensors that each rank has whole, as with NO_SHARD.

    Its kernels take no DTensor, so each step is on the rank's own tensor.
    """
    BITSANDBYTES_OPTIMIZERS.check()

    class OnReplicas(cls):  # type: ignore[misc]
        def init_state(self, group: Any, p: DTensor, gindex: int, pindex: int) -> None:
            with self._own(p) as own:
                super().init_state(group, own, gindex, pindex)

        def update_step(self, group: Any, p: DTensor, gindex: int, pindex: int) -> None:
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
