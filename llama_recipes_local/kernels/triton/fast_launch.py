"""Launches Triton kernels in half the host's time.

A layer with LoRA on all its linear layers launches some fifty kernels, and in fp8 the device is
done with them sooner than Python is. Most of a launch is Triton's search for the compiled form of a
kernel, by all that it depends on, and calls of hooks. Here that is a key of few parts, a dictionary
and the last call of Triton's own launch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

Grid = tuple[int, ...]


class fast:
    """A Triton function whose compiled forms are kept by what they depend on.

    That is what Triton specialises a function for: the constants, an argument's dtype, whether an
    address or a length is a multiple of 16, and whether a length is 1 or needs 64 bits. Constants
    are given by name, in the order of the function's arguments, of which they are the last.
    """

    def __init__(self, function: Any) -> None:
        """Wrap what ``triton.jit`` returned."""
        self.function = function
        self._compiled: dict[Any, tuple[Any, ...]] = {}

    def __getitem__(self, grid: Grid) -> Callable[..., None]:
        """Return what launches a grid of one to three lengths."""
        return partial(self._launch, grid)

    def _launch(self, grid: Grid, *arguments: Any, **constants: Any) -> None:
        device = torch._C._cuda_getDevice()
        key: list[Any] = [device, *constants.items()]
        for argument in arguments:  # by the cheapest question first: this runs for each argument
            kind = type(argument)
            if kind is int:
                key.append((argument == 1, argument & 15 == 0, argument >> 31))
            elif kind is float or argument is None:
                key.append(kind)
            else:
                aligned = argument.data_ptr() & 15 == 0
                key.append(argument.dtype if aligned else (argument.dtype,))
        found = self._compiled.get(tuple(key))
        if found is None:
            names = self.function.arg_names[len(arguments) :]
            compiled = self.function[grid](*arguments, **constants)
            own = [constants[name] for name in names]
            parts = compiled.run, compiled.function, compiled.packed_metadata, own
            self._compiled[tuple(key)] = parts
            return
        run, function, metadata, own = found
        # as Triton's own launch ends, but without the calls of profilers' hooks
        stream = torch._C._cuda_getCurrentRawStream(device)
        run(*(*grid, 1, 1)[:3], stream, function, metadata, None, None, None, *arguments, *own)
