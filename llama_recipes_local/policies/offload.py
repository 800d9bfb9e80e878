"""Keeps the inputs of layers in host memory between the forward and the backward pass.

With activation checkpointing, a layer's input is all that is kept of it. Here the input is copied
to pinned host memory while its layer is computed. It is copied back while the layer after it is
recomputed. Both copies run on a stream of their own, and change no bit. The input of the last layer
stays on the device.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.library_patches import CHECKPOINTED_LAYER, TargetMissingError

_MOST = 1 << 26  # bytes of a block of host memory
_FUNCTION = "_gradient_checkpointing_func"


def offload_inputs(model: nn.Module) -> None:
    """Keep the inputs of a model's checkpointed layers in host memory.

    Raises:
        TargetMissingError: if transformers' layers are checkpointed otherwise.
    """
    CHECKPOINTED_LAYER.check()
    layers = [module for module in model.modules() if hasattr(module, _FUNCTION)]
    if not layers:
        raise TargetMissingError(f"no layer of {type(model).__name__} has a {_FUNCTION}")
    inputs = HostInputs()
    for layer in layers:
        setattr(layer, _FUNCTION, inputs.wrap(getattr(layer, _FUNCTION)))


class HostInputs:
    """Keeps the inputs of one model's layers.

    Host memory is taken in equal blocks, which are used again: pinning takes as long as many
    copies, and torch rounds what it pins up to a power of two. One copy is under way at a time. Its
    tensor is kept until the device has been told to wait for it, so that no other tensor is written
    to its memory meanwhile.
    """

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []
        self._size = 0
        self._stream: torch.cuda.Stream | None = None
        self._newest: Callable[[], _Input | None] = lambda: None
        self._moving: _Moving | None = None

    def wrap(self, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
        """Return a checkpoint function whose inputs are kept here.

        Args:
            checkpoint: torch's ``checkpoint``, the variant that is not reentrant.
        """

        def run(*args: Any, **kwargs: Any) -> Any:
            # what the layer itself saves goes through the checkpoint's own hooks
            with saved_tensors_hooks(self.pack, self.unpack):
                return checkpoint(*args, **kwargs)

        return run

    def pack(self, x: torch.Tensor) -> "_Input | torch.Tensor":
        """Begin to copy a layer's input to host memory; an empty tensor of torch's is returned."""
        if not x.numel():
            return x.detach()
        self._finish()
        x = x.detach().contiguous()
        if x.is_cuda and self._stream is None:
            self._stream = torch.cuda.Stream(x.device)
        own = _Input(x.shape, x.dtype, x.device, self._blocks(x.nbytes), self._free, self._newest)
        self._newest = weakref.ref(own)
        self._move(own, x, to_host=True)
        return own

    def unpack(self, own: "_Input | torch.Tensor") -> torch.Tensor:
        """Return a layer's input, and begin to copy back that of the layer before it."""
        if isinstance(own, torch.Tensor):
            return own
        if self._moving is None or self._moving.input is not own:
            self._fetch(own)
        assert self._moving is not None
        x = self._moving.tensor
        self._finish()
        before = own.before()
        if before is not None:
            self._fetch(before)
        return x

    def _fetch(self, own: "_Input") -> None:
        self._finish()
        self._move(own, torch.empty(own.shape, dtype=own.dtype, device=own.device), to_host=False)

    def _move(self, own: "_Input", x: torch.Tensor, to_host: bool) -> None:
        """Copy between an input's tensor on the device and its blocks, behind what is queued."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(x.device))
        parts = x.view(-1).view(torch.uint8).split(self._size)
        with torch.cuda.stream(self._stream):
            for part, block in zip(parts, own.blocks, strict=True):
                place = block[: len(part)]
                target, source = (place, part) if to_host else (part, place)
                target.copy_(source, non_blocking=True)
        done = None if self._stream is None else self._stream.record_event()
        self._moving = _Moving(own, x, done)

    def _finish(self) -> None:
        """Have the device wait for the copy that is under way, and let go of its tensor."""
        moving, self._moving = self._moving, None
        if moving is not None and moving.done is not None:
            torch.cuda.current_stream(moving.tensor.device).wait_event(moving.done)

    def _blocks(self, size: int) -> list[torch.Tensor]:
        """Return blocks of host memory for some bytes; copies from them may be queued."""
        self._size = self._size or min(_MOST, 1 << (size - 1).bit_length())
        count = -(-size // self._size)
        while len(self._free) < count:
            self._free.append(_host_memory(self._size, pins=self._stream is not None))
        return [self._free.pop() for _ in range(count)]


def _host_memory(size: int, pins: bool) -> torch.Tensor:
    """Return so many bytes of host memory, (size,) uint8.

    Raises:
        TrainingError: if there are none left that can be pinned.
    """
    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=pins)
    except RuntimeError as error:
        raise TrainingError(
            f"stopped: no {size:,} bytes of host memory can be pinned for the input of a layer, "
            "which --activation_policy offload keeps there\n"
            "   fix: keep inputs on the device: --activation_policy full"
        ) from error


@dataclass(eq=False)
class _Input:
    """A layer's input in host memory.

    Attributes:
        shape: of the tensor.
        dtype: of the tensor.
        device: that it comes back to.
        blocks: where it lies.
        free: where its blocks go when nothing needs it any more.
        before: returns the input that was packed before it, if that is still needed.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    blocks: list[torch.Tensor] = field(repr=False)
    free: list[torch.Tensor] = field(repr=False)
    before: "Callable[[], _Input | None]"

    def __del__(self) -> None:
        self.free.extend(self.blocks)


@dataclass(frozen=True)
class _Moving:
    """A copy that is under way; ``done`` is None where it is done at once."""

    input: _Input
    tensor: torch.Tensor
    done: torch.cuda.Event | None
