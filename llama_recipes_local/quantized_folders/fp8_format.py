"""The export format ``fp8``: weights in 8-bit floats, in compressed-tensors' layout.

vLLM and transformers read it. Weights have stored scales; scales of activations are computed at run
time. Embedding, norms and head are not quantised.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.errors import Problem, refusal
from llama_recipes_local.model_folders.auxiliary_files import copy_auxiliary_files
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.output_folder import check_free_space
from llama_recipes_local.model_folders.read_back import ReadBack, Tolerances
from llama_recipes_local.model_folders.save import write_config, write_weights
from llama_recipes_local.model_folders.tensors import StoredTensors
from llama_recipes_local.quantized_folders.folder_read_back import (
    KEPT,
    QUANTISED,
    Quantised,
    copied_tokenizer,
    read_folder_back,
)
from llama_recipes_local.quantized_folders.llama_layers import LINEAR, check_names

DTYPE = torch.float8_e4m3fn
LARGEST = torch.finfo(DTYPE).max
BLOCK = 128
"""Rows and columns of a block with one scale, as vLLM's kernels take them."""

_ACTIVATIONS: dict[str, dict[str, str | int]] = {
    "channel": {"strategy": "token"},
    "tensor": {"strategy": "token"},
    "block": {"strategy": "group", "group_size": BLOCK},
}
"""How activations are scaled that are multiplied with weights of a strategy."""
STRATEGIES = tuple(_ACTIVATIONS)


@dataclass(frozen=True)
class Fp8Export:
    """A model to be written in FP8.

    Attributes:
        model: the model.
        strategy: the unit that has a scale: "channel" (a row), "tensor" or "block".
    """

    model: ExportedModel
    strategy: str
    _scales: dict[str, torch.Tensor] = field(default_factory=dict)

    def check(self, out: Path) -> list[Problem]:
        """Return why vLLM cannot read the model, and a problem if the disk is full."""
        problems, weights = check_names(self.model, "FP8"), self.model.weights
        linears = {name: each for name, each in weights.items() if LINEAR.fullmatch(name)}
        odd = [name for name, each in linears.items() if any(size % BLOCK for size in each.shape)]
        if self.strategy == "block" and odd:
            first = tuple(weights[odd[0]].shape)
            why = f"blocks need multiples of {BLOCK} rows and columns, and {odd[0]} is {first}"
            what = f"the model in {self.model.source} cannot be written with --type block"
            problems.append(Problem(what, why, "--type channel"))
        size = sum(each.numel() * each.element_size() for each in self._planned().values())
        return problems or check_free_space(out, size)

    def written_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, read back from copies of its files."""
        return copied_tokenizer(self.model)

    def write(self, folder: Path) -> None:
        """Write weights, configuration, tokenizer and licence; one tensor is in memory."""
        model = self.model
        write_weights(folder, self._planned(), self._tensor)
        removed = [name for name in model.config_removed if name != "quantization_config"]
        changes = {**model.config_changes, "quantization_config": configuration(self.strategy)}
        write_config(model.source, folder, without=removed, **changes)
        copy_auxiliary_files(model.source, folder, model.tokenizer)

    def read_back(self, folder: Path) -> ReadBack:
        """Return the model in the folder together with the exported one."""
        form = Quantised(
            planned=self._planned(),
            dequantised=lambda stored, name: dequantised(stored, name, self.strategy),
            configuration=configuration(self.strategy),
            tolerances=Tolerances(
                weights={QUANTISED: 0.04, KEPT: 0.0}, divergence=0.1, perplexity=0.05
            ),
        )
        return read_folder_back(self.model, folder, form)

    def _planned(self) -> dict[str, torch.Tensor]:
        """Return a meta tensor of each tensor, each scale right after its weight."""
        planned = dict[str, torch.Tensor]()
        for name, each in self.model.weights.items():
            planned[name] = each
            if LINEAR.fullmatch(name):
                planned[name] = each.to(DTYPE)
                shape = scales_shape(each.shape, self.strategy)
                planned[f"{name}_scale"] = torch.empty(shape, dtype=each.dtype, device="meta")
        return planned

    def _tensor(self, name: str) -> torch.Tensor:
        if name in self._scales:
            return self._scales.pop(name)
        weight = self.model.weight(name)
        if not LINEAR.fullmatch(name):
            return weight
        rounded, self._scales[f"{name}_scale"] = quantized(weight, self.strategy)
        return rounded


def configuration(strategy: str) -> dict[str, object]:
    """Return ``quantization_config`` of ``config.json``."""
    number = {"num_bits": 8, "type": "float", "symmetric": True}
    weights = {**number, "dynamic": False, "strategy": strategy}
    if strategy == "block":
        weights["block_structure"] = [BLOCK, BLOCK]
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": {**number, "dynamic": True, **_ACTIVATIONS[strategy]},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def scales_shape(shape: torch.Size, strategy: str) -> tuple[int, ...]:
    """Return the shape of the scales for a weight, (rows, columns)."""
    rows, columns = shape
    if strategy == "block":
        return (rows // BLOCK, columns // BLOCK)
    return (rows, 1) if strategy == "channel" else (1,)


def quantized(weight: torch.Tensor, strategy: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight in FP8 and its scales.

    The scales are rounded to the weight's dtype, in which transformers holds them, before the
    weight is divided by them.
    """
    tiles, blocks = _tiles(weight.float(), strategy), scales_shape(weight.shape, strategy)
    largest = tiles.abs().amax(dim=(1, 3), keepdim=True)
    scales = (largest / LARGEST).to(weight.dtype).clamp(min=torch.finfo(weight.dtype).tiny)
    tiles = (tiles / scales.float()).clamp(-LARGEST, LARGEST)
    return tiles.reshape(weight.shape).to(DTYPE), scales.reshape(blocks)


def dequantised(stored: StoredTensors, name: str, strategy: str) -> torch.Tensor:
    """Return a weight in float32.

    Raises:
        UsageError: if its scales do not fit the strategy.
    """
    weight, scales = stored[name], stored[f"{name}_scale"].float()
    if scales.shape != scales_shape(weight.shape, strategy):
        raise refusal(f"{name}_scale", f"it is {tuple(scales.shape)}")
    tiles = _tiles(weight.float(), strategy)
    return (tiles * scales.reshape(tiles.shape[0], 1, tiles.shape[2], 1)).reshape(weight.shape)


def _tiles(weight: torch.Tensor, strategy: str) -> torch.Tensor:
    """Return a weight as (tiles, rows of a tile, tiles, columns of a tile); one scale a tile."""
    blocks = scales_shape(weight.shape, strategy)
    return weight.reshape(blocks[0], -1, (*blocks, 1)[1], weight.shape[1] // (*blocks, 1)[1])
