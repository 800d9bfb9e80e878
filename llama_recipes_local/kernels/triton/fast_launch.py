"""Launches Triton kernels in half the host's time.

A layer with LoRA on all its linear layers launches about fifty kernels, which in fp8 finish sooner
than Python can launch them. Most of a launch by Triton is the search for a compiled kernel, by
everything that it depends on, and calls of hooks. Here it is a key with few parts, a dictionary,
and the last call of Triton's own launch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

Grid = tuple[int, ...]


class fast:
    """A Triton function with a cache of its compiled kernels.

    The cache's key is what Triton specialises a function for: the constants, the dtypes of
    arguments, whether an address or a length is a multiple of 16, and whether a length is 1 or
    needs 64 bits. Constants are passed by name, in the order of the function's arguments, and are
    the last of these.
    """

    def __init__(self, function: Any) -> None:
        """Wrap what ``triton.jit`` returned."""
        self.function = function
        self._compiled: dict[Any, tuple[Any, ...]] = {}

    def __getitem__(self, grid: Grid) -> Callable[..., None]:
        """Return a function that launches the kernel on a grid of one to three lengths."""
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
