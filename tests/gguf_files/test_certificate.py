"""Faults of a conversion, put in on purpose: the file is read back, and none is published."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_families import build

from llama_recipes_local.cli import main
from llama_recipes_local.gguf_files import gguf_export
from llama_recipes_local.gguf_files.certificate import LARGEST_ERRORS
from llama_recipes_local.gguf_files.gguf_choices import TYPES
from llama_recipes_local.gguf_files.shape import Shape
from llama_recipes_local.gguf_files.tensor_types import FILE_TYPES
from llama_recipes_local.gguf_files.vocabulary import Vocabulary

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")
Patch = pytest.MonkeyPatch


def unswapped_rows(patch: Patch) -> None:
    patch.setattr(gguf_export, "swapped", lambda weight, heads: weight)


def a_scaled_layer(patch: Patch) -> None:
    kept = gguf_export.stored
    seen: list[str] = []

    def stored(weight: torch.Tensor, kind: str) -> Any:
        seen.append(kind)
        return kept(weight * (1.5 if len(seen) == 30 else 1), kind)

    patch.setattr(gguf_export, "stored", stored)


def changed_vocabulary(change: Callable[[Vocabulary], Vocabulary]) -> Callable[[Patch], None]:
    kept = gguf_export.vocabulary_of
    return lambda patch: patch.setattr(
        gguf_export, "vocabulary_of", lambda *words: change(kept(*words))
    )


def half_of_the_merges(known: Vocabulary) -> Vocabulary:
    return replace(known, merges=known.merges[: len(known.merges) // 2])


def lost_ends(known: Vocabulary) -> Vocabulary:
    return replace(known, other_ends=())


def no_begin(known: Vocabulary) -> Vocabulary:
    return replace(known, add_begin=False)


def unscaled_frequencies(patch: Patch) -> None:
    patch.setattr(Shape, "frequency_factors", lambda self: None)


def another_base(patch: Patch) -> None:
    kept = gguf.GGUFWriter.add_float32

    def add_float32(self: Any, key: str, value: float, *rest: Any) -> None:
        kept(self, key, 20000.0 if key == "llama.rope.freq_base" else value, *rest)

    patch.setattr(gguf.GGUFWriter, "add_float32", add_float32)


FAULTS = {
    "rows of queries and keys": (unswapped_rows, "weights"),
    "one layer's scale": (a_scaled_layer, "weights"),
    "merges": (changed_vocabulary(half_of_the_merges), "tokens"),
    "a lost end token": (changed_vocabulary(lost_ends), "ends"),
    "no begin token": (changed_vocabulary(no_begin), "tokens"),
    "rotary scaling": (unscaled_frequencies, "settings"),
    "rotary base": (another_base, "settings"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["q4_0", "f16"])
def test_a_fault_is_refused_unless_it_is_accepted(
    fault: str, kind: str, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    # a base that no scaling of Llama 3 fits is refused where the file is read
    family = "Llama 2 Chat" if fault == "rotary base" else "Llama 3.1"
    folder = build(family, tmp_path / "model")
    put_in, check = FAULTS[fault]
    put_in(monkeypatch)
    words = ["export", "--model_name", str(folder), "--type", kind, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert f"accept it: --accept {check}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--accept", check]) == 0
    written = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert written["accepted"] == [check]


@pytest.mark.parametrize("kind", TYPES)
def test_a_file_that_is_right_is_certified(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("Llama 3.2", tmp_path / "model")
    words = ["--model_name", str(folder), "--type", kind, "--out", str(tmp_path / "out")]
    assert main(["export", *words]) == 0
    written = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert written["other_tokens"] == written["lost_ends"] == written["other_settings"] == []
    assert written["texts"] > 15 and len(written["ends"]) == 3
    assert all(0 <= error <= LARGEST_ERRORS[name] for name, error in written["errors"].items())
    assert "with the same tokens, 3 of 3 end tokens" in capsys.readouterr().out


def test_the_words_of_the_command_are_the_types() -> None:
    assert set(TYPES) == FILE_TYPES.keys()
