"""Launches Triton kernels in half the host's time.

A layer with LoRA on all its linear layers launches some fifty kernels, and in fp8 the device is
done with them sooner than Python is. Most of a launch is Triton's search for the compiled form of a
kernel, by all that it depends on. Here that is a key of few parts and a dictionary.
"""

from collections.abc import Callable
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
        self._compiled: dict[Any, Any] = {}

    def __getitem__(self, grid: Grid) -> Callable[..., None]:
        """Return what launches a grid of one to three lengths."""
        return lambda *arguments, **constants: self._launch(grid, arguments, constants)

    def _launch(self, grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]) -> None:
        key = torch.cuda.current_device(), *map(_kind, arguments), *constants.items()
        compiled = self._compiled.get(key)
        if compiled is None:
            self._compiled[key] = self.function[grid](*arguments, **constants)
            return
        own = self.function.arg_names[len(arguments) :]
        compiled[(*grid, 1, 1)[:3]](*arguments, *(constants[name] for name in own))


def _kind(argument: Any) -> Any:
    """Return what a compiled function depends on in an argument."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    if isinstance(argument, int):
        return argument == 1, argument % 16 == 0, argument.bit_length() > 31
    return argument if argument is None else type(argument)
