"""Reads the weights of a GGUF file under the names of a folder, one at a time, dequantised."""

from collections import Counter
from typing import TYPE_CHECKING

import torch

from llama_recipes_local.errors import refusal
from llama_recipes_local.gguf_files.llama_tensors import FREQUENCIES, targets, unswapped
from llama_recipes_local.gguf_files.shape import Shape

if TYPE_CHECKING:
    from gguf.gguf_reader import ReaderTensor

_AGAIN = "copy the file again"


class FileWeights:
    """The weights of a GGUF file, each dequantised when it is read.

    Attributes:
        shapes: of the weights, by their names in a folder.
    """

    def __init__(self, tensors: "list[ReaderTensor]", shape: Shape) -> None:
        """Find the tensors of a Llama.

        Args:
            tensors: of the file.
            shape: of the model.

        Raises:
            UsageError: if one is missing, unknown or of another shape.
        """
        wanted = targets(shape)
        weights = [tensor for tensor in tensors if tensor.name != FREQUENCIES]
        names = [tensor.name for tensor in weights]
        if sorted(names) != sorted(wanted):
            odd = sorted(set(names) ^ set(wanted)) or ["one twice"]
            what = "the GGUF file has other tensors than a Llama"
            raise refusal(what, ", ".join(odd[:5]), _AGAIN)
        self._tensors = {wanted[each.name].name: (wanted[each.name], each) for each in weights}
        for target, tensor in self._tensors.values():
            found = tuple(int(size) for size in reversed(tensor.shape))
            if found != target.shape:
                why = f"it must be {target.shape}"
                raise refusal(f"{tensor.name} has the shape {found}", why, _AGAIN)
        self.shapes = {name: target.shape for name, (target, _) in self._tensors.items()}

    def kind(self, name: str) -> str:
        """Return a weight's type."""
        return str(self._tensors[name][1].tensor_type.name)

    def kinds_of_tensors(self) -> dict[str, str]:
        """Return each tensor's type, by its name in the file."""
        return {each.name: each.tensor_type.name for _, each in self._tensors.values()}

    def kinds(self) -> list[str]:
        """Return the types of the matrices, the most frequent one first."""
        found = Counter(
            each.tensor_type.name
            for target, each in self._tensors.values()
            if len(target.shape) == 2
        )
        return [name for name, _ in found.most_common()]

    def dtype(self) -> torch.dtype:
        """Return the dtype for the weights: the file's own, or bfloat16 for quantised ones."""
        return {"F32": torch.float32, "F16": torch.float16}.get(self.kinds()[0], torch.bfloat16)

    def __call__(self, name: str) -> torch.Tensor:
        """Return a weight by its name in a folder, in float32.

        Raises:
            UsageError: if it is not finite.
        """
        target, tensor = self._tensors[name]
        weight = dequantised(tensor).reshape(target.shape)
        if target.heads:
            weight = unswapped(weight, target.heads)
        if not weight.isfinite().all():
            raise refusal(f"{tensor.name} has weights that are not finite", "it is corrupt", _AGAIN)
        return weight.contiguous()


def frequency_factors(tensors: "list[ReaderTensor]") -> torch.Tensor | None:
    """Return the divisors of a file's rotary frequencies in float32, if it has them."""
    return next((dequantised(each) for each in tensors if each.name == FREQUENCIES), None)


def dequantised(tensor: "ReaderTensor") -> torch.Tensor:
    """Return a tensor's values in float32.

    Raises:
        UsageError: if the package ``gguf`` cannot read its type.
    """
    from gguf import dequantize

    try:
        return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
    except NotImplementedError as error:
        what = f"{tensor.name} is of the type {tensor.tensor_type.name}"
        raise refusal(
            what, "the package gguf does not dequantise it", "take another file"
        ) from error
