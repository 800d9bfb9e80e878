"""A model's files, written a tensor at a time, beside those that safetensors writes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_recipes_local.model_folders import save

_GENERATOR = torch.Generator().manual_seed(0)
_DRAWN = torch.randn(6, 5, generator=_GENERATOR)
TENSORS = {
    "model.layers.10.b.weight": _DRAWN.bfloat16(),
    "model.layers.9.b.weight": _DRAWN.T,  # not contiguous
    "model.layers.9.b.weight_scale": _DRAWN[:, :1].half(),
    "a": _DRAWN.to(torch.float8_e4m3fn),
    "g_idx": torch.arange(7, dtype=torch.int32),
    "long": torch.arange(3),
    "double": _DRAWN.double(),
    "short": torch.arange(3, dtype=torch.int16),
    "fp8": _DRAWN.to(torch.float8_e5m2),
    "signed": torch.arange(3, dtype=torch.int8),
    "packed": torch.arange(5, dtype=torch.uint8),
    "mask": _DRAWN > 0,
    "scale": _DRAWN.abs().to(torch.float8_e8m0fnu),
    "words": torch.zeros(3, dtype=torch.uint16),
    "seeds": torch.zeros(3, dtype=torch.uint32),
    "sums": torch.zeros(3, dtype=torch.uint64),
    "complex": _DRAWN[0] * 1j,
    "名": _DRAWN[0],
    "number": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}


def test_the_bytes_are_those_of_safetensors(tmp_path: Path) -> None:
    meta = {name: each.to("meta") for name, each in TENSORS.items()}
    save.write_weights(tmp_path, meta, TENSORS.__getitem__)
    whole = {name: each.contiguous() for name, each in TENSORS.items()}
    save_file(whole, tmp_path / "reference", metadata={"format": "pt"})
    written = (tmp_path / "model.safetensors").read_bytes()
    assert written == (tmp_path / "reference").read_bytes()


def test_each_tensor_is_asked_for_once_in_the_planned_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "SHARD_BYTES", 300)
    asked: list[str] = []

    def tensor(name: str) -> torch.Tensor:
        asked.append(name)
        return TENSORS[name]

    save.write_weights(tmp_path, {name: each.to("meta") for name, each in TENSORS.items()}, tensor)
    assert asked == list(TENSORS)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    read = {name: each for file in files for name, each in load_file(file).items()}
    assert read.keys() == TENSORS.keys()
