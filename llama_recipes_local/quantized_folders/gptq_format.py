"""The export format ``gptq``: weights in 4 or 8 bits (2210.17323), for vLLM and transformers.

optimum and its back end gptqmodel do it, calibrated on rows that the model was trained on.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from llama_recipes_local.errors import Problem, refusal
from llama_recipes_local.extras import check_installed
from llama_recipes_local.model_folders import StoredTensors, check_free_space
from llama_recipes_local.model_folders.auxiliary_files import copy_auxiliary_files
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.read_back import ReadBack, Tolerances
from llama_recipes_local.model_folders.save import SHARD_BYTES, write_config
from llama_recipes_local.models import AutoConfig
from llama_recipes_local.models.deferred import empty_model
from llama_recipes_local.program import command
from llama_recipes_local.quantized_folders.folder_read_back import (
    KEPT,
    QUANTISED,
    Quantised,
    read_folder_back,
)
from llama_recipes_local.quantized_folders.llama_layers import LINEAR, check_names

GROUPS = (128, 64, 32)
"""Inputs of a layer that share a scale, the most that all layers are a multiple of; vLLM's."""
_TOLERANCES = {
    4: Tolerances(weights={QUANTISED: 0.3, KEPT: 0.0}, divergence=0.3, perplexity=0.25),
    8: Tolerances(weights={QUANTISED: 0.04, KEPT: 0.0}, divergence=0.02, perplexity=0.02),
}
"""By bits. A weight makes up for the rounding of others: its own error says less than elsewhere."""


@dataclass
class GptqExport:
    """A model to be written in GPTQ.

    Attributes:
        model: the model.
        bits: 4 or 8.
        rows: token ids that it is calibrated on, set before ``write``.
    """

    model: ExportedModel
    bits: int
    rows: Sequence[Sequence[int]] = field(default=())

    def check(self, out: Path) -> list[Problem]:
        """Return what is missing, what GPTQ cannot hold, and a problem if the disk is full."""
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

    def write(self, folder: Path) -> None:
        """Calibrate and write the model, which is in memory whole; its layers one by one on a GPU.

        Raises:
            UsageError: if there are no rows.
        """
        if not self.rows:
            fix = command("export", "--format", "gptq", "--dataset", "NAME")
            raise refusal("GPTQ without rows", "it is calibrated on training rows", fix)
        quantizer = self._quantizer()
        made = quantizer.quantize_model(self._loaded())
        quantizer.dataset = None  # or the rows would be published in config.json
        made.config.quantization_config = None
        quantizer.save(made, folder, max_shard_size=SHARD_BYTES)
        model = self.model
        removed = [name for name in model.config_removed if name != "quantization_config"]
        # asked for only now: while it is saved its format becomes the one that all readers know
        settings = quantizer.to_dict()
        changes = {**model.config_changes, "quantization_config": settings}
        write_config(model.source, folder, without=removed, **changes)
        copy_auxiliary_files(model.source, folder, model.tokenizer)

    def read_back(self, folder: Path) -> ReadBack:
        """Return what the folder says, beside the model."""

        def weight(stored: StoredTensors, name: str) -> torch.Tensor:
            return dequantised(stored, name.removesuffix(".weight"), self.bits)

        form = Quantised(beside="qweight", dequantised=weight, tolerances=_TOLERANCES[self.bits])
        return read_folder_back(self.model, folder, form)

    def _linears(self) -> dict[str, torch.Size]:
        weights = self.model.weights
        return {name: each.shape for name, each in weights.items() if LINEAR.fullmatch(name)}

    def _loaded(self) -> transformers.LlamaForCausalLM:
        """Return the model on the CPU; weights that are mapped from files stay so."""
        source = self.model
        config: Any = AutoConfig.from_pretrained(source.source)
        for name, value in source.config_changes.items():
            setattr(config, name, value)
        config.use_cache = False
        model: Any = empty_model(config)
        model.load_state_dict(
            {name: source.weight(name).detach() for name in source.weights},
            strict=False,
            assign=True,
        )
        if config.tie_word_embeddings:
            model.lm_head.weight = model.model.embed_tokens.weight
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
        return model.eval()

    def _quantizer(self) -> Any:  # optimum is an optional package
        for name in ("optimum", "gptqmodel"):
            logging.getLogger(name).setLevel(logging.WARNING)
        from optimum.gptq import GPTQQuantizer

        columns = [each[1] for each in self._linears().values()]
        rows = [torch.tensor([list(row)]) for row in self.rows]
        tokens = sum(row.numel() for row in rows)
        print(f"--> calibrating on {len(rows)} training rows, {tokens:,} tokens")
        return GPTQQuantizer(
            bits=self.bits,
            dataset=[{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows],
            group_size=next(size for size in GROUPS if all(each % size == 0 for each in columns)),
            block_name_to_quantize="model.layers",
            model_seqlen=max(row.shape[1] for row in rows),
        )


def dequantised(stored: StoredTensors, layer: str, bits: int) -> torch.Tensor:
    """Return a layer's weight, (rows, columns), in float32.

    Args:
        stored: the folder's tensors, in GPTQ's first format: zero points are one less in it.
        layer: name of the layer.
        bits: of a weight; some are packed into 32.
    """
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    most = 2**bits - 1
    packed, zeros = stored[f"{layer}.qweight"], stored[f"{layer}.qzeros"]
    numbers = (packed[:, None, :] >> shifts[:, None] & most).flatten(0, 1)  # (columns, rows)
    points = (zeros[:, :, None] >> shifts & most).flatten(1) + 1 & most  # (groups, rows)
    group = stored[f"{layer}.g_idx"].long()
    scales = stored[f"{layer}.scales"].float()
    return ((numbers - points[group]) * scales[group]).T.contiguous()
