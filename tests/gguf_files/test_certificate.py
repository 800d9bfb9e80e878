"""Faults of a conversion, put in on purpose: the file is read back, and none is published."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_families import build

from llama_recipes_local.cli import main
from llama_recipes_local.gguf_files import gguf_export
from llama_recipes_local.gguf_files.gguf_choices import TYPES
from llama_recipes_local.gguf_files.shape import Shape
from llama_recipes_local.gguf_files.tensor_types import FILE_TYPES
from llama_recipes_local.gguf_files.tolerances import ERRORS
from llama_recipes_local.gguf_files.vocabulary import CONTROL, USER_DEFINED, Vocabulary

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")
Patch = pytest.MonkeyPatch


def unswapped_rows(patch: Patch) -> None:
    patch.setattr(gguf_export, "swapped", lambda weight, heads: weight)


def changed_tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    """Return what changes the 30th tensor that is stored."""

    def put_in(patch: Patch) -> None:
        kept = gguf_export.stored
        seen: list[str] = []

        def stored(weight: torch.Tensor, kind: str) -> Any:
            seen.append(kind)
            return kept(change(weight.clone()) if len(seen) == 30 else weight, kind)

        patch.setattr(gguf_export, "stored", stored)

    return put_in


def one_larger_row(weight: torch.Tensor) -> torch.Tensor:
    weight[-1] *= 2
    return weight


def one_nan(weight: torch.Tensor) -> torch.Tensor:
    weight.view(-1)[5] = torch.nan
    return weight


def changed_plan(change: Callable[[list[Any]], list[Any]]) -> Callable[[Patch], None]:
    """Return what writes other tensors than are planned."""
    kept = gguf_export.GgufExport._write_file

    def write(self: Any, path: Path) -> None:
        self.__dict__["_plan"] = change(self._plan)
        kept(self, path)

    return lambda patch: patch.setattr(gguf_export.GgufExport, "_write_file", write)


def exchanged_layers(plan: list[Any]) -> list[Any]:
    others = {"0": "1", "1": "0"}
    return [
        each._replace(source=re.sub(r"(?<=layers\.)\d", lambda m: others[m[0]], each.source))
        for each in plan
    ]


def without_the_head(plan: list[Any]) -> list[Any]:
    return [each for each in plan if each.name != "output.weight"]


def changed_vocabulary(change: Callable[[Vocabulary], Vocabulary]) -> Callable[[Patch], None]:
    kept = gguf_export.vocabulary_of
    return lambda patch: patch.setattr(
        gguf_export, "vocabulary_of", lambda *words: change(kept(*words))
    )


def half_of_the_merges(known: Vocabulary) -> Vocabulary:
    return replace(known, merges=known.merges[: len(known.merges) // 2])


def one_merge_later(known: Vocabulary) -> Vocabulary:
    *merges, first, second = known.merges
    return replace(known, merges=[*merges, second, first])


def one_token(known: Vocabulary) -> Vocabulary:
    tokens = list(known.tokens)
    tokens[40], tokens[41] = tokens[41], tokens[40]
    return replace(known, tokens=tokens)


def exchanged_scores(known: Vocabulary) -> Vocabulary:
    scores = list(known.scores)
    scores[300], scores[310] = scores[310], scores[300]
    return replace(known, scores=scores)


def lost_ends(known: Vocabulary) -> Vocabulary:
    return replace(known, other_ends=())


def one_end_more(known: Vocabulary) -> Vocabulary:
    assert len(known.other_ends) == 2
    return replace(known, other_ends=[known.other_ends[0], known.begin or 0])


def plainly_defined(known: Vocabulary) -> Vocabulary:
    return replace(known, kinds=[USER_DEFINED if each == CONTROL else each for each in known.kinds])


def unscaled_frequencies(patch: Patch) -> None:
    patch.setattr(Shape, "frequency_factors", lambda self: None)


FAULTS = {
    "rows of queries and keys": (unswapped_rows, "weights"),
    "one layer's scale": (changed_tensor(lambda weight: weight * 1.5), "weights"),
    "a little of one layer's scale": (changed_tensor(lambda weight: weight * 1.05), "weights"),
    "one row's scale": (changed_tensor(one_larger_row), "weights"),
    "NaN": (changed_tensor(one_nan), "weights"),
    "two layers": (changed_plan(exchanged_layers), "weights"),
    "the head": (changed_plan(without_the_head), "settings"),
    "special tokens": (changed_vocabulary(plainly_defined), "tokens"),
    "an added end token": (changed_vocabulary(one_end_more), "ends"),
    "merges": (changed_vocabulary(half_of_the_merges), "tokens"),
    "the order of two merges": (changed_vocabulary(one_merge_later), "tokens"),
    "two scores": (changed_vocabulary(exchanged_scores), "tokens"),
    "two tokens": (changed_vocabulary(one_token), "tokens"),
    "a lost end token": (changed_vocabulary(lost_ends), "ends"),
    "no begin token": (changed_vocabulary(lambda known: replace(known, add_begin=False)), "tokens"),
    "padding": (changed_vocabulary(lambda known: replace(known, padding=known.begin)), "settings"),
    "rotary scaling": (unscaled_frequencies, "settings"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["q4_0", "f16"])
def test_a_fault_is_refused(
    fault: str, kind: str, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    family = "Llama 2 Chat" if fault == "two scores" else "Llama 3.1"
    folder = build(family, tmp_path / "model")
    put_in, check = FAULTS[fault]
    put_in(monkeypatch)
    words = ["--model_name", str(folder), "--type", kind, "--out", str(tmp_path / "out")]
    assert main(["export", *words, "--accept", "outputs"]) == 2
    error = capsys.readouterr().err
    assert f"accept it: --accept {check}" in error
    assert not (tmp_path / "out").exists()
    kept = tmp_path / "out-refused"
    assert (f"problem found, what was written is kept in {kept}:" in error) == kept.exists()
    assert kept.exists() == (check not in ("tokens", "ends"))  # which are compared before


def test_other_tokens_are_refused_before_a_weight_is_written(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("Llama 3.1", tmp_path / "model")
    FAULTS["merges"][0](monkeypatch)
    monkeypatch.delattr(gguf_export.GgufExport, "write")
    assert main(["export", "--model_name", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "the export has other tokens than its model" in error and "--accept tokens" in error


@pytest.mark.parametrize(
    ("fault", "check"),
    [("one row's scale", "weights"), ("merges", "tokens"), ("padding", "settings")],
)
def test_a_fault_that_is_accepted_is_recorded(
    fault: str, check: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    folder = build("Llama 3.1", tmp_path / "model")
    FAULTS[fault][0](monkeypatch)
    words = ["--model_name", str(folder), "--accept", check, "--accept", "outputs"]
    assert main(["export", *words, "--out", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert written["accepted"] == ["outputs", check]


@pytest.mark.parametrize("kind", TYPES)
def test_a_file_that_is_right_is_certified(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("Llama 3.2", tmp_path / "model")
    words = ["--model_name", str(folder), "--type", kind, "--out", str(tmp_path / "out")]
    assert main(["export", *words]) == 0
    written = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert written["other_tokens"] == written["lost_ends"] == written["other_settings"] == []
    assert written["texts"] > 500 and len(written["ends"]) == 3
    assert all(0 <= error <= ERRORS[name] for name, error in written["errors"].items())
    assert "texts and tokens the same, 3 of 3 end tokens" in capsys.readouterr().out


def test_the_words_of_the_command_are_the_types() -> None:
    assert set(TYPES) == FILE_TYPES.keys()
