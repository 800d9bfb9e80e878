"""Quantises a Llama's layers by GPTQ in order, one at a time in memory.

optimum quantises whole models. So it gets models of one layer, whose embedding returns the outputs
of the layers before.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.tensors import StoredTensors
from llama_recipes_local.models import AutoConfig
from llama_recipes_local.models.deferred import empty_model
from llama_recipes_local.parallel import device_type
from llama_recipes_local.quantized_folders.gptq_weights import dequantised
from llama_recipes_local.quantized_folders.llama_layers import LINEAR

_SETTINGS = ("bits", "group_size", "desc_act", "sym")
_EMBEDDING, _FIRST = "model.embed_tokens.weight", "model.layers.0."


class GptqLayers:
    """The layers of a model, and its rows, as far as they are computed.

    Attributes:
        versions: versions of the quantising packages, as ``config.json`` names them.
    """

    def __init__(
        self, model: ExportedModel, rows: Sequence[Sequence[int]], settings: Mapping[str, Any]
    ) -> None:
        """Embed the rows.

        Args:
            model: the model.
            rows: token ids for the calibration.
            settings: ``quantization_config`` of ``config.json``.
        """
        for name in ("optimum", "gptqmodel"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._model, self._settings = model, settings
        self._config: Any = AutoConfig.from_pretrained(model.source)
        for name, value in model.config_changes.items():
            setattr(self._config, name, value)
        self._config.num_hidden_layers, self._config.use_cache = 1, False
        embedding = model.weight(_EMBEDDING).detach()
        self._rows = [F.embedding(torch.tensor([list(row)]), embedding) for row in rows]
        self.versions: list[str] = []

    def quantised(self, number: int) -> dict[str, torch.Tensor]:
        """Return the tensors of a layer's weights, by name, and compute the rows after it.

        Call this for the layers in order.
        """
        prefix = f"model.layers.{number}."
        names = [name for name in self._model.weights if name.startswith(prefix)]
        weights = {
            _FIRST + name.removeprefix(prefix): self._model.weight(name).detach() for name in names
        }
        found = self._quantise(weights)
        linears = [name for name in weights if LINEAR.fullmatch(name)]
        for name in linears:
            layer, bits = name.removesuffix(".weight"), self._settings["bits"]
            weights[name] = dequantised(found, layer, bits).to(weights[name].dtype)
        self._advance(weights)
        parts = tuple(name.removesuffix("weight") for name in linears)
        return {
            prefix + name.removeprefix(_FIRST): each
            for name, each in found.items()
            if name.startswith(parts)
        }

    def _quantise(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the tensors that optimum makes of a model with one layer."""
        model = self._of_one_layer({name: each.clone() for name, each in weights.items()})
        model.model.embed_tokens = _Before(self._rows)
        places = [torch.full(row.shape[:2], place) for place, row in enumerate(self._rows)]
        with tempfile.TemporaryDirectory() as folder:
            with _quiet():
                from optimum.gptq import GPTQQuantizer

                quantizer = GPTQQuantizer(
                    **{key: self._settings[key] for key in _SETTINGS},
                    dataset=[
                        {"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in places
                    ],
                    block_name_to_quantize="model.layers",
                    model_seqlen=max(row.shape[1] for row in self._rows),
                    cache_block_outputs=False,
                )
                made = quantizer.quantize_model(model)
                quantizer.dataset = made.config.quantization_config = None  # saved as JSON
                quantizer.save(made, folder)
            self.versions = quantizer.to_dict()["meta"]["quantizer"]
            stored = StoredTensors([Path(folder) / "model.safetensors"])
            return {name: stored[name].clone() for name in stored}

    @torch.no_grad()
    def _advance(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Compute the rows after a layer."""
        model = self._of_one_layer(weights).to(device_type())
        for place, row in enumerate(self._rows):
            made = model.model(inputs_embeds=row.to(device_type()))
            self._rows[place] = made.last_hidden_state.cpu()

    def _of_one_layer(self, weights: Mapping[str, torch.Tensor]) -> Any:  # as transformers has it
        model = empty_model(self._config)
        model.load_state_dict(dict(weights), strict=False, assign=True)
        inner = model.model
        inner.embed_tokens, inner.norm, model.lm_head = nn.Identity(), nn.Identity(), nn.Identity()
        inner.rotary_emb = type(inner.rotary_emb)(self._config)
        return model.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the libraries print for each layer, such as bars and kernels."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


class _Before(nn.Module):
    """A replacement of the embedding: returns the outputs of the layers before."""

    def __init__(self, rows: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._rows = rows

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the row whose number all of ``ids``, (1, seq), are; as (1, seq, hidden)."""
        return self._rows[int(ids[0, 0])]
