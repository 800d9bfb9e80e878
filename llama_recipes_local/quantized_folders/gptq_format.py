"""The export format ``gptq``: weights in 4 or 8 bits (2210.17323), for vLLM and transformers.

optimum and its back end gptqmodel quantise, calibrated on rows that the model was trained on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.errors import Problem, refusal
from llama_recipes_local.extras import check_installed
from llama_recipes_local.model_folders.auxiliary_files import copy_auxiliary_files
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.output_folder import check_free_space
from llama_recipes_local.model_folders.read_back import ReadBack, Tolerances
from llama_recipes_local.model_folders.save import write_config, write_weights
from llama_recipes_local.model_folders.tensors import StoredTensors
from llama_recipes_local.program import command
from llama_recipes_local.quantized_folders.folder_read_back import (
    KEPT,
    QUANTISED,
    Quantised,
    copied_tokenizer,
    read_folder_back,
)
from llama_recipes_local.quantized_folders.gptq_layers import GptqLayers
from llama_recipes_local.quantized_folders.gptq_weights import dequantised, planned_parts
from llama_recipes_local.quantized_folders.llama_layers import LINEAR, check_names, layer_number

GROUPS = (128, 64, 32)
"""Inputs of a layer that share a scale, the most that all layers are a multiple of; vLLM's."""
_ROW = 10
"""Of ``Tolerances``: where activations are massive, as a row of SmolLM2's down_proj in two layers,
the weights of a row make up for others until they are off by twice their size."""
_TOLERANCES = {
    4: Tolerances(weights={QUANTISED: 0.3, KEPT: 0.0}, row=_ROW, divergence=0.3, perplexity=0.25),
    8: Tolerances(weights={QUANTISED: 0.04, KEPT: 0.0}, row=_ROW, divergence=0.02, perplexity=0.02),
}
"""By bits. A weight makes up for the rounding of others: its own error says less than elsewhere."""


@dataclass
class GptqExport:
    """A model to be written in GPTQ.

    Attributes:
        model: the model.
        bits: 4 or 8.
        rows: token ids for the calibration, set before ``write``.
    """

    model: ExportedModel
    bits: int
    rows: Sequence[Sequence[int]] = field(default=())

    def check(self, out: Path) -> list[Problem]:
        """Return missing packages, what GPTQ cannot hold, and a problem if the disk is full."""
        problems = check_names(self.model, "GPTQ")
        for package in ("optimum", "gptqmodel"):
            problems += check_installed(package, "--format gptq", "gptq")
        linears = self._linears()
        odd = [name for name, each in linears.items() if any(size % GROUPS[-1] for size in each)]
        if odd:
            what = f"the model in {self.model.source} cannot be written in GPTQ"
            why = f"it needs multiples of {GROUPS[-1]} rows and columns, and {odd[0]} is "
            problems.append(Problem(what, why + str(tuple(linears[odd[0]])), "--format fp8"))
        kept = 8 * self.model.size() - sum(16 * math.prod(each) for each in linears.values())
        size = kept + sum((self.bits + 1) * math.prod(each) for each in linears.values())
        return problems or check_free_space(out, size // 8)

    def written_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, read back from copies of its files."""
        return copied_tokenizer(self.model)

    def write(self, folder: Path) -> None:
        """Calibrate and write the model: a layer and the rows before it are in memory.

        Raises:
            UsageError: if there are no rows.
        """
        if not self.rows:
            fix = command("export", "--format", "gptq", "--dataset", "NAME")
            raise refusal("GPTQ without rows", "it is calibrated on training rows", fix)
        model, tokens = self.model, sum(len(row) for row in self.rows)
        print(f"--> calibrating on {len(self.rows)} training rows, {tokens:,} tokens")
        settings = configuration(self.bits, self._group_size())
        layers = GptqLayers(model, self.rows, settings)
        parts = dict[str, torch.Tensor]()

        def tensor(name: str) -> torch.Tensor:
            if name in model.weights:
                return model.weight(name)
            if name not in parts:
                parts.update(layers.quantised(layer_number(name)))
            return parts.pop(name)

        write_weights(folder, self._planned(), tensor)
        removed = [name for name in model.config_removed if name != "quantization_config"]
        settings["meta"] = {"quantizer": layers.versions}
        changes = {**model.config_changes, "quantization_config": settings}
        write_config(model.source, folder, without=removed, **changes)
        copy_auxiliary_files(model.source, folder, model.tokenizer)

    def read_back(self, folder: Path) -> ReadBack:
        """Return the model in the folder together with the exported one."""

        def weight(stored: StoredTensors, name: str) -> torch.Tensor:
            return dequantised(stored, name.removesuffix(".weight"), self.bits)

        form = Quantised(
            planned=self._planned(),
            dequantised=weight,
            configuration=configuration(self.bits, self._group_size()),
            tolerances=_TOLERANCES[self.bits],
        )
        return read_folder_back(self.model, folder, form)

    def _linears(self) -> dict[str, torch.Size]:
        weights = self.model.weights
        return {name: each.shape for name, each in weights.items() if LINEAR.fullmatch(name)}

    def _group_size(self) -> int:
        columns = [each[1] for each in self._linears().values()]
        return next(size for size in GROUPS if all(each % size == 0 for each in columns))

    def _planned(self) -> dict[str, torch.Tensor]:
        """Return a meta tensor of each tensor, layer by layer."""
        planned = dict[str, torch.Tensor]()
        for name, weight in sorted(self.model.weights.items(), key=lambda it: layer_number(it[0])):
            if LINEAR.fullmatch(name):
                layer, size = name.removesuffix("weight"), self._group_size()
                for part, each in planned_parts(weight, self.bits, size).items():
                    planned[layer + part] = each
            else:
                planned[name] = weight
        return planned


def configuration(bits: int, group_size: int) -> dict[str, Any]:
    """Return ``quantization_config`` of ``config.json``."""
    return {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "desc_act": False,
        "sym": True,
        "format": "gptq",
    }
