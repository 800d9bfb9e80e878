"""Weights of a GGUF file, compared with transformers' own reading of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_metadata import VALUES
from transformers import LlamaForCausalLM

from llama_recipes_local.errors import UsageError
from llama_recipes_local.gguf_files.folder_of_file import GgufModel
from llama_recipes_local.gguf_files.llama_tensors import targets
from llama_recipes_local.gguf_files.metadata import Metadata

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")
QUANTISED = gguf.GGMLQuantizationType.Q4_1


def write_gguf(path: Path, change: Any = lambda weights: weights) -> Path:
    """Write a tiny Llama with random weights, some of them quantised."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in VALUES.items():
        if key == "tokenizer.ggml.token_type" or isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif key != "general.architecture":
            writer.add_string(key, value)
    draw = np.random.default_rng(0)
    wanted = targets(Metadata(VALUES).shape())
    weights = {
        name: draw.normal(size=each.shape).astype(np.float32) for name, each in wanted.items()
    }
    for name, weight in change(weights).items():
        if name.endswith("attn_q.weight") and weight.shape[-1] % 32 == 0:
            writer.add_tensor(name, gguf.quantize(weight, QUANTISED), raw_dtype=QUANTISED)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_folder_has_the_weights_that_transformers_reads(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    out = tmp_path / "out"
    out.mkdir()
    GgufModel(path).write(out)
    ours = LlamaForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    expected = theirs.to(torch.bfloat16).state_dict()
    found = ours.state_dict()
    assert found.keys() == expected.keys() and len(found) == 21
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert ours.config.rope_parameters == theirs.config.rope_parameters


def without(name: str) -> Any:
    return lambda weights: {key: each for key, each in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("blk.1.ffn_up.weight"), "blk.1.ffn_up.weight"),
        (lambda found: found | {"blk.2.ffn_up.weight": found["blk.1.ffn_up.weight"]}, "blk.2"),
        (lambda found: found | {"output_norm.weight": np.ones(31, np.float32)}, "has the shape"),
        (
            lambda found: found | {"output_norm.weight": np.full(32, np.inf, np.float32)},
            "not finite",
        ),
    ],
)
def test_other_tensors_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", change)
    with pytest.raises(UsageError, match=said):
        GgufModel(path).write(tmp_path)


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (0, "it is empty"),
        (3, "it begins with b'GGU', not with b'GGUF'"),
        *((length, "the copy did not end, or the file is damaged") for length in (4, 9, 500, -9)),
    ],
)
def test_a_file_that_is_not_whole_is_refused_in_plain_words(
    length: int, said: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UsageError) as refused:
        GgufModel(path).write(tmp_path)
    (problem,) = refused.value.problems
    assert problem.what == f"{path} cannot be read as GGUF" and said in problem.why
