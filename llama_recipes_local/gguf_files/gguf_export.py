"""The export format GGUF: a file for llama.cpp, and a Modelfile for Ollama beside it."""

import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.errors import Problem, caught, refusal, refuse
from llama_recipes_local.gguf_files.file_header import header, value_type
from llama_recipes_local.gguf_files.folder_of_file import GgufModel
from llama_recipes_local.gguf_files.llama_tensors import FREQUENCIES, swapped, targets
from llama_recipes_local.gguf_files.metadata import ARCHITECTURE, ARCHITECTURE_KEY, Metadata
from llama_recipes_local.gguf_files.modelfile import (
    example_prompt,
    stops,
    trained_template,
    write_modelfile,
)
from llama_recipes_local.gguf_files.shape import AS_SAFETENSORS, Shape, shape_of, unwritable
from llama_recipes_local.gguf_files.spaced_prompts import other_spaces
from llama_recipes_local.gguf_files.tensor_types import (
    FileType,
    block_of,
    row_bytes,
    stored,
    tensor_type,
)
from llama_recipes_local.gguf_files.tokenizer_folder import read_tokenizer
from llama_recipes_local.gguf_files.tokenizer_values import (
    further_templates,
    own_template,
    vocabulary_of,
)
from llama_recipes_local.gguf_files.tolerances import tolerances
from llama_recipes_local.gguf_files.vocabulary import OTHER_ENDS, Vocabulary
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.output_folder import check_free_space
from llama_recipes_local.model_folders.read_back import ComparedModel, ReadBack
from llama_recipes_local.models import AutoConfig, AutoTokenizer

_WEIGHTS_AT_ONCE = 2**24
"""Weights that are quantised at once, which bounds the memory beside the tensor."""


class _Planned(NamedTuple):
    """A tensor of the file: its name in it, shape, type, name in the folder, and swapped heads."""

    name: str
    shape: tuple[int, ...]
    kind: str
    source: str
    heads: int

    @property
    def bytes_in_file(self) -> int:
        return math.prod(self.shape[:-1]) * row_bytes(self.kind, self.shape[-1])


class GgufExport:
    """A model to be written as GGUF in one of llama.cpp's types."""

    def __init__(self, model: ExportedModel, file: FileType) -> None:
        """Prepare the export.

        Args:
            model: the model.
            file: the file's type.
        """
        self._model = model
        self._file = file

    def check(self, out: Path) -> list[Problem]:
        """Return what a GGUF file cannot hold of the model, and a problem if the disk is full."""
        problems = unwritable(self._config, f"the model in {self._model.source}")
        if problems:
            return problems
        with caught() as problems:
            self._check_tensors()
            self._check_header()
            self._check_ends()
        return problems or check_free_space(out, sum(each.bytes_in_file for each in self._plan))

    def written_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the file's keys."""
        known = Metadata({ARCHITECTURE_KEY: ARCHITECTURE, **self._header})
        return read_tokenizer(known.vocabulary(), self._shape.positions)

    def write(self, folder: Path) -> None:
        """Write the file and the Modelfile; one tensor at a time is in memory."""
        path = folder / self._name
        self._write_file(path)
        write_modelfile(folder, path.name, self._model, self._tokenizer)

    def read_back(self, folder: Path) -> ReadBack:
        """Return the model in the file together with the exported one.

        Raises:
            UsageError: if it cannot be read.
        """
        model, path = self._model, folder / self._name
        found = GgufModel(path)
        known = found.vocabulary
        ends = {known.end, *known.other_ends}
        kinds = {each.name: each.kind for each in self._plan}
        prompt = example_prompt(model, self._tokenizer)
        return ReadBack(
            original=ComparedModel(
                config=self._config,
                settings=_settings(self._shape, self._header, kinds),
                tokenizer=self._tokenizer,
                ends=stops(model, self._tokenizer),
                weight=self._model.weight,
            ),
            exported=ComparedModel(
                config=found.shape.config(torch.float32),
                settings=_settings(found.shape, found.header, found.weights.kinds_of_tensors()),
                tokenizer=read_tokenizer(known, found.shape.positions),
                ends=[each for each in ends if each is not None],
                weight=found.weights,
            ),
            names=model.weights.keys(),
            numbers=sum(math.prod(each.shape) for each in model.weights.values()),
            kind=found.weights.kind,
            tolerances=tolerances(self._file.name.lower()),
            files=[path],
            other_prompt=other_spaces(known, self._tokenizer, prompt),
        )

    @cached_property
    def _name(self) -> str:
        return f"{self._model.source.name or 'model'}-{self._file.name}.gguf"

    @cached_property
    def _config(self) -> Any:
        config = AutoConfig.from_pretrained(self._model.source)
        for name in ("vocab_size", "tie_word_embeddings"):
            setattr(config, name, self._model.config_changes.get(name, getattr(config, name)))
        return config

    @cached_property
    def _shape(self) -> Shape:
        return shape_of(self._config, tied="lm_head.weight" not in self._model.weights)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        model, rows = self._model, self._config.vocab_size
        ends = stops(model, self._tokenizer)
        found = vocabulary_of(self._tokenizer, model.tokenizer, rows, ends)
        template, tokenizer = self._template, self._tokenizer
        further = further_templates(tokenizer) if template == own_template(tokenizer) else {}
        return replace(found, chat_template=template, further_templates=further)

    @cached_property
    def _header(self) -> dict[str, Any]:
        return header(self._shape, self._vocabulary, self._file, self._model.source.name)

    @cached_property
    def _template(self) -> str | None:
        """Return the chat template for the file: the run's, lest the base model's be used."""
        trained = trained_template(self._model, self._tokenizer)
        return trained if trained is not None else own_template(self._tokenizer)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(self._model.tokenizer)

    @cached_property
    def _plan(self) -> list[_Planned]:
        shape = self._shape
        return [
            _Planned(
                name,
                target.shape,
                tensor_type(name, target.shape, self._file, shape.layers, shape.tied),
                target.name,
                target.heads,
            )
            for name, target in targets(shape).items()
        ]

    def _check_tensors(self) -> None:
        """Refuse tensors that a file cannot represent.

        Raises:
            UsageError: with the first such tensor.
        """
        named = {each.source: each.shape for each in self._plan}
        found = {name: tuple(each.shape) for name, each in self._model.weights.items()}
        if odd := sorted({str(each) for each in named.items() ^ found.items()}):
            what = f"the model in {self._model.source} has other tensors than a Llama"
            raise refusal(what, ", ".join(odd[:4]))
        for each in self._plan:
            if each.shape[-1] % block_of(each.kind):
                why = f"{each.kind} needs a multiple of {block_of(each.kind)}"
                fix = "take a type without blocks: --type f16"
                what = f"{each.source} has rows of {each.shape[-1]} numbers"
                raise refusal(what, why, fix)

    def _check_header(self) -> None:
        """Refuse sizes, rotary settings and tokens that cannot be read back from a file.

        Raises:
            UsageError: if there are any.
        """
        shape, values = self._shape, {ARCHITECTURE_KEY: ARCHITECTURE, **self._header}
        with caught() as problems:
            known = Metadata(values)
            known.shape(shape.tied, shape.frequency_factors())
            known.vocabulary()
        what = f"the model in {self._model.source} cannot be read back from a GGUF file"
        refuse([Problem(what, f"{each.what}: {each.why}", AS_SAFETENSORS) for each in problems])

    def _check_ends(self) -> None:
        """Refuse more tokens that end an answer than a file names, unless the user accepts that.

        Raises:
            UsageError: if there are more.
        """
        known, ends = self._vocabulary, stops(self._model, self._tokenizer)
        lost = sorted({*ends} - {known.end, *known.other_ends})
        if not lost or "ends" in self._model.accepted:
            return
        names = join_names(map(str, self._tokenizer.convert_ids_to_tokens(lost)))
        what = f"the model in {self._model.source} has {len(ends)} tokens that end an answer"
        why = (
            f"a GGUF file names the tokenizer's eos_token and {len(OTHER_ENDS)} others: not {names}"
        )
        raise refusal(what, why, f"{AS_SAFETENSORS}, or accept it: --accept ends")

    def _write_file(self, path: Path) -> None:
        from gguf import GGMLQuantizationType, GGUFWriter

        writer = GGUFWriter(path, ARCHITECTURE)
        for key, value in self._header.items():
            writer.add_key_value(key, value, value_type(value))
        factors = self._shape.frequency_factors()
        if factors is not None:
            writer.add_tensor_info(
                FREQUENCIES, factors.shape, factors.numpy().dtype, 4 * len(factors)
            )
        for each in self._plan:
            raw = GGMLQuantizationType[each.kind]
            blank = stored(torch.zeros(1, block_of(each.kind)), each.kind).dtype
            packed = (*each.shape[:-1], row_bytes(each.kind, each.shape[-1]))
            shape = packed if blank == "uint8" else each.shape
            writer.add_tensor_info(each.name, shape, blank, each.bytes_in_file, raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors.numpy())
        for each in tqdm(self._plan, unit=" tensors", desc="writing", leave=False, disable=None):
            writer.write_tensor_data(self._values(each))
        writer.close()

    def _values(self, each: _Planned) -> Any:
        """Return a tensor's values in the file's order."""
        import numpy as np

        weight = self._model.weight(each.source).detach()
        if each.heads:
            weight = swapped(weight, each.heads)
        if weight.ndim == 1:
            return stored(weight, each.kind)
        rows = max(1, _WEIGHTS_AT_ONCE // weight.shape[1])
        return np.concatenate([stored(part, each.kind) for part in weight.split(rows)])


def _settings(shape: Shape, header: dict[str, Any], kinds: dict[str, str]) -> dict[str, object]:
    """Return the settings that are compared: each key, and what the tensors themselves show."""
    types = {f"type of {name}": kind for name, kind in kinds.items()}
    factors = shape.frequency_factors()  # other settings may make the same
    scaling = shape.scaling if factors is None else factors.tolist()
    return {**header, **types, "rotary scaling": scaling, "tied head": shape.tied}
