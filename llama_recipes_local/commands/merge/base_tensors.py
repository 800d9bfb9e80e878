"""The base model's tensors that the adapter is added to: dequantized, in a chosen dtype."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llama_recipes_local.commands.merge.skeleton import Skeleton
from llama_recipes_local.commands.merge.stored_scales import ScaledWeights
from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.tensors import StoredTensors, shape_mismatches

_QUANT_STATE = ".quant_state.bitsandbytes__"


@dataclass(frozen=True)
class FourBit:
    """How bitsandbytes quantises to 4 bits.

    Attributes:
        quant_type: "nf4" or "fp4".
        double: whether the scales are quantised too (double quantisation).
    """

    quant_type: str
    double: bool

    def round(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a weight quantised and dequantised, in its own dtype."""
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(
            tensor.contiguous(), compress_statistics=self.double, quant_type=self.quant_type
        )
        return functional.dequantize_4bit(packed, state).to(tensor.dtype)


class BaseTensors:
    """A base model's tensors by name.

    Weights that are stored in 4 or 8 bits or FP8 are dequantized when they are read.
    """

    def __init__(
        self,
        stored: StoredTensors,
        dtype: torch.dtype | None = None,
        four_bit: FourBit | None = None,
        linears: Collection[str] = (),
        block: Sequence[int] = (),
    ) -> None:
        """Take tensors from a folder.

        Args:
            stored: the folder's tensors.
            dtype: the dtype that they are cast to; None keeps each tensor's.
            four_bit: how the weights of linear layers are quantised and dequantised; None does not.
            linears: the names of those weights.
            block: rows and columns of a block of weights that are stored in FP8, if any are.
        """
        self._stored = stored
        self._dtype = dtype
        self._four_bit = four_bit
        self._linears = frozenset(linears)
        self._scaled = ScaledWeights(stored, block)
        self._packed = {
            name.partition(_QUANT_STATE)[0]: name for name in stored if _QUANT_STATE in name
        }

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._read(name)
        tensor = tensor.to(self._dtype or tensor.dtype)
        whole = name not in self._packed and name not in self._scaled
        if self._four_bit is not None and name in self._linears and whole:
            return self._four_bit.round(tensor)
        return tensor

    def _read(self, name: str) -> torch.Tensor:
        if name in self._scaled:
            return self._scaled[name]
        return self._dequantized(name) if name in self._packed else self._stored[name]

    @property
    def packed(self) -> bool:
        """Whether the folder has 4-bit weights."""
        return bool(self._packed)

    @property
    def scaled(self) -> bool:
        """Whether the folder has weights in 8 bits or FP8."""
        return bool(len(self._scaled))

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor as it is returned."""
        if self._dtype is not None:
            return self._dtype
        if name in self._packed:
            return getattr(torch, self._state(name)["dtype"])
        if name in self._scaled:
            return self._scaled.dtype
        return self._stored[name].dtype

    def shape(self, name: str) -> torch.Size:
        """Return the shape of a tensor as it is returned."""
        if name in self._packed:
            return torch.Size(self._state(name)["shape"])
        return self._stored[name].shape

    def _state(self, name: str) -> dict[str, Any]:
        """Return what bitsandbytes stores next to a 4-bit weight: its shape, dtype and more."""
        return json.loads(bytes(self._stored[self._packed[name]].tolist()))

    def _dequantized(self, name: str) -> torch.Tensor:
        from bitsandbytes import functional

        parts = {key: self._stored[key] for key in self._stored if key.startswith(f"{name}.")}
        state = functional.QuantState.from_dict(parts, torch.device("cpu"))
        return functional.dequantize_4bit(self._stored[name], state)


def check_base(skeleton: Skeleton, base: BaseTensors) -> list[Problem]:
    """Return which base tensors are missing or have another shape than the configuration gives.

    Args:
        skeleton: the adapted model.
        base: the base model's tensors.
    """
    tied_to = skeleton.embedding if skeleton.tied else ""
    missing = [
        name
        for name in skeleton.shapes
        if name not in base and not (name == skeleton.head and tied_to in base)
    ]
    if missing:
        return [_mismatch(f"missing: {join_names(missing)}")]
    kept = [
        name
        for name in skeleton.shapes
        if name in base and not skeleton.is_replaced(name) and not skeleton.has_new_rows(name)
    ]
    wrong = shape_mismatches({name: base.shape(name) for name in kept}, skeleton.shapes)
    return [_mismatch(f"shape mismatch: {join_names(wrong)}")] if wrong else []


def _mismatch(why: str) -> Problem:
    return Problem(
        "the base model's weights do not match its config.json",
        why,
        "copy the model again, or name another: --model DIR",
    )
