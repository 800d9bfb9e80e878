"""Pickled weights, Meta's layout and shards without an index become model folders."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from llama_recipes_local.commands.convert.command import Conversion, convert
from llama_recipes_local.errors import UsageError
from llama_recipes_local.preflight import model as model_rules
from llama_recipes_local.run.resolution import resolve

Tensors = dict[str, torch.Tensor]
IDS = torch.arange(5, 25)
PARAMS = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "norm_eps": 1e-5,
    "vocab_size": -1,
    "multiple_of": 16,
    "rope_theta": 500000.0,
}


def logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(IDS[None]).logits[0]


def meta_weights() -> Tensors:
    """Random weights of two layers, by Meta's names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shapes = {"tok_embeddings": (1000, 32), "output": (1000, 32), "norm": (32,)}
        for layer in ("layers.0.", "layers.1."):
            shapes |= {f"{layer}attention.w{each}": (32, 32) for each in "qo"}
            shapes |= {f"{layer}attention.w{each}": (16, 32) for each in "kv"}
            shapes |= {f"{layer}feed_forward.w{each}": (48, 32) for each in "13"}
            shapes |= {f"{layer}feed_forward.w2": (32, 48)}
            shapes |= {f"{layer}{each}_norm": (32,) for each in ("attention", "ffn")}
        return {f"{name}.weight": torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def meta_forward(w: Tensors) -> torch.Tensor:
    """The logits, computed as Meta's papers and code describe the model: rotations as complex."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w[f"{name}.weight"]

    def rotate(x: torch.Tensor) -> torch.Tensor:  # (seq, heads, 8)
        angles = torch.outer(
            torch.arange(len(IDS)).float(), 500000.0 ** -(torch.arange(0, 8, 2).float() / 8)
        )
        turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        turned = turned * torch.polar(torch.ones_like(angles), angles)[:, None]
        return torch.view_as_real(turned).flatten(-2)

    x = w["tok_embeddings.weight"][IDS]
    for layer in ("layers.0.", "layers.1."):
        h = norm(x, f"{layer}attention_norm")
        q, k, v = (
            (h @ w[f"{layer}attention.w{each}.weight"].T).view(len(IDS), -1, 8) for each in "qkv"
        )
        q, k = rotate(q), rotate(k)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        attended = F.scaled_dot_product_attention(
            q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), is_causal=True
        )
        out = attended.transpose(0, 1).reshape(len(IDS), 32)
        x = x + out @ w[f"{layer}attention.wo.weight"].T
        h = norm(x, f"{layer}ffn_norm")
        gate, up = (h @ w[f"{layer}feed_forward.w{each}.weight"].T for each in "13")
        x = x + (F.silu(gate) * up) @ w[f"{layer}feed_forward.w2.weight"].T
    return norm(x, "norm") @ w["output.weight"].T


def write_meta(folder: Path, weights: Tensors, files: int, by_rows: bool, **changes: Any) -> None:
    """Write the layout of ``files`` GPUs."""
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(PARAMS | changes))
    for number in range(files):
        part = {"rope.freqs": torch.zeros(4)}
        for name, tensor in weights.items():
            columns = name.endswith(("wo.weight", "w2.weight"))
            columns |= name.startswith("tok_embeddings") and not by_rows
            whole = tensor.dim() == 1
            part[name] = tensor if whole else tensor.chunk(files, int(columns))[number].clone()
        torch.save(part, folder / f"consolidated.{number:02}.pth")


@pytest.mark.parametrize(("files", "by_rows"), [(1, True), (2, True), (2, False)])
def test_metas_layout_computes_what_metas_code_does(
    files: int, by_rows: bool, tiny_model: Path, tmp_path: Path
) -> None:
    weights = meta_weights()
    write_meta(tmp_path / "meta", weights, files, by_rows)
    (tmp_path / "meta/LICENSE.txt").write_text("the licence")
    out = tmp_path / "out"
    convert(Conversion(checkpoint=tmp_path / "meta", out=out, tokenizer=tiny_model))
    torch.testing.assert_close(logits(out), meta_forward(weights), rtol=1e-4, atol=1e-4)
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 8192
    assert (out / "LICENSE.txt").read_text() == "the licence"
    run = resolve({"model_name": str(out), "context_length": 64})
    assert model_rules.check_model(run) == []


def test_a_head_that_is_the_embedding_is_tied(tiny_model: Path, tmp_path: Path) -> None:
    weights = meta_weights()
    weights["output.weight"] = weights["tok_embeddings.weight"]
    write_meta(tmp_path / "meta", weights, 1, True, use_scaled_rope=True)
    out = tmp_path / "out"
    convert(Conversion(checkpoint=tmp_path / "meta", out=out, tokenizer=tiny_model))
    config = json.loads((out / "config.json").read_text())
    assert config["tie_word_embeddings"]
    assert config["rope_scaling"]["factor"] == 8.0
    assert config["max_position_embeddings"] == 131072
    assert "lm_head.weight" not in load_file(out / "model.safetensors")


def without_index(folder: Path, tensors: Tensors) -> None:
    names = sorted(tensors)
    for number, part in enumerate((names[:9], names[9:]), 1):
        shard = {name: tensors[name] for name in part}
        save_file(shard, folder / f"model-0000{number}-of-00002.safetensors", {"format": "pt"})


def pickled(folder: Path, tensors: Tensors) -> None:
    names = sorted(tensors)
    for number, part in enumerate((names[:9], names[9:]), 1):
        shard = {name: tensors[name] for name in part}
        torch.save(shard, folder / f"pytorch_model-0000{number}-of-00002.bin")


def pickled_as_before_torch_1_6(folder: Path, tensors: Tensors) -> None:
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    path = folder / "pytorch_model.bin"
    torch.save(tensors | frequencies, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [without_index, pickled, pickled_as_before_torch_1_6])
def test_other_files_become_safetensors(write: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write(folder, tensors)
    (problem,) = model_rules.check_model(resolve({"model_name": str(folder), "context_length": 64}))
    assert f"llama-recipes-local convert {folder} --out DIR" in problem.fix
    convert(Conversion(checkpoint=folder, out=tmp_path / "out"))
    torch.testing.assert_close(logits(tmp_path / "out"), logits(tiny_model), rtol=0, atol=0)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def bomb(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "ran")))


def one_missing(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (bomb, "is not a file of tensors"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b""), "not a file of tensors"),
        (lambda folder: torch.save([1], folder / "pytorch_model.bin"), "no tensors by name"),
        (one_missing, "missing: model.norm.weight"),
    ],
)
def test_what_is_no_model_is_refused(
    spoil: Any, why: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    spoil(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=why):
        convert(Conversion(checkpoint=folder, out=tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert not (folder / "ran").exists()


def test_faults_of_metas_layout(tiny_model: Path, tmp_path: Path) -> None:
    weights, meta = meta_weights(), tmp_path / "meta"
    write_meta(meta, weights, 2, True)
    asked = Conversion(checkpoint=meta, out=tmp_path / "out", tokenizer=tiny_model)
    (meta / "params.json").rename(tmp_path / "params.json")
    with pytest.raises(UsageError, match=r"params\.json cannot be read"):
        convert(asked)
    (meta / "params.json").write_text('{"dim": "32"}')
    with pytest.raises(UsageError, match=r"params\.json cannot be read"):
        convert(asked)
    shutil.copyfile(tmp_path / "params.json", meta / "params.json")
    (meta / "consolidated.00.pth").unlink()
    with pytest.raises(UsageError, match=r"missing: consolidated\.00\.pth"):
        convert(asked)
    (meta / "consolidated.01.pth").rename(meta / "consolidated.00.pth")
    with pytest.raises(UsageError, match=r"why: 1 consolidated\.\*\.pth have 16 rows"):
        convert(asked)
    assert not (tmp_path / "out").exists()


def test_the_gguf_file_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model-Q8_0.gguf").touch()
    with pytest.raises(UsageError, match=r"convert \S+/model-Q8_0.gguf --out DIR"):
        convert(Conversion(checkpoint=tmp_path, out=tmp_path / "out"))
    blob = tmp_path / "sha256-0"
    blob.touch()
    with pytest.raises(UsageError, match=r"a GGUF file, whose name ends in \.gguf"):
        convert(Conversion(checkpoint=blob, out=tmp_path / "out"))


def test_a_number_that_the_dtype_does_not_hold_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 70000
    torch.save(tensors, folder / "pytorch_model.bin")
    for dtype in (torch.float16, torch.bfloat16):
        asked = Conversion(checkpoint=folder, out=tmp_path / str(dtype), dtype=dtype)
        if dtype == torch.bfloat16:
            convert(asked)
            continue
        with pytest.raises(UsageError, match="than float16 holds"):
            convert(asked)
        assert not asked.out.exists()
