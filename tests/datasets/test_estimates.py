"""The tokens that some records let one expect, beside those of all, as a run prepares them."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.datasets import estimates
from llama_recipes_local.datasets.estimates import estimate, spread
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.run.resolution import resolve

SENTENCE = "The quick brown fox jumps over the lazy dog while it is raining. "


def texts(number: int, of: str = SENTENCE) -> str:
    """Return a text whose length differs from that of its neighbours."""
    return of * (1 + number * 7 % 11)


KINDS: dict[str, Any] = {
    "instructions": lambda n: {"instruction": "Count.", "input": "", "output": texts(n)},
    "turns": lambda n: {
        "messages": [
            {"role": "user", "content": texts(n)},
            {"role": "assistant", "content": texts(n + 1) if n % 2 else "yes"},
        ]
    },
    "long": lambda n: {"text": texts(n)},
    "some cut": lambda n: {
        "instruction": "Count.",
        "input": "",
        "output": SENTENCE * (800 if n % 50 == 0 else 1),
    },
    "chinese": lambda n: {"prompt": "请回答", "completion": texts(n, "今天下雨。")},
}


def flags(model: Path, tmp_path: Path, kind: str, rows: int = 1500) -> dict[str, Any]:
    path = tmp_path / f"{kind}.jsonl"
    lines = [json.dumps(KINDS[kind](number)) for number in range(rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return {
        "model_name": str(model),
        "dataset": str(path),
        "context_length": 128,
        "data_cache": str(tmp_path / "cache"),
        **({"local_dataset.template": "guanaco"} if kind == "turns" else {}),
    }


@pytest.mark.parametrize("most", [256, 2000])
@pytest.mark.parametrize("kind", KINDS)
def test_some_records_tell_the_tokens_of_all(
    kind: str, most: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "MOST_RECORDS", most)
    run = resolve(with_data_path(flags(tiny_model, tmp_path, kind))[0])
    found = estimate(run, "train", run_tokenizer(run))
    held_out = estimate(run, "test", run_tokenizer(run))
    assert found is not None and held_out is not None
    audits = prepare_data(run).audits
    assert (found.exact, held_out.exact) == (most > 1500, True)
    assert held_out.tokens == audits["validation"].tokens
    # lengths of half their mean's deviation: the mean of some 200 is known to 4%
    near = 0.0 if found.exact else 0.1
    for size in ("rows", "tokens", "label_tokens"):
        assert getattr(found, size) == pytest.approx(getattr(audits["train"], size), rel=near), size


def test_texts_that_are_cut_do_not_count_by_their_lengths(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "MOST_RECORDS", 256)
    padded = flags(tiny_model, tmp_path, "some cut") | {"batching_strategy": "padding"}
    run = resolve(with_data_path(padded)[0])
    found = estimate(run, "train", run_tokenizer(run))
    assert found is not None and not found.exact
    assert found.tokens == pytest.approx(prepare_data(run).audits["train"].tokens, rel=0.02)


def test_a_mixture_repeats_what_it_has_less_of(tiny_model: Path, tmp_path: Path) -> None:
    first, second = (flags(tiny_model, tmp_path, kind, 80) for kind in ("instructions", "chinese"))
    mixture = {**first, "dataset": f"{first['dataset']}:0.8,{second['dataset']}:0.2"}
    run = resolve(with_data_path(mixture)[0])
    found = estimate(run, "train", run_tokenizer(run))
    assert found is not None
    audit = prepare_data(run).audits["train"]
    assert found.tokens == pytest.approx(audit.tokens, rel=0.02)  # whole rows are repeated
    assert found.rows == pytest.approx(audit.rows, rel=0.02)


def test_records_are_from_everywhere_and_not_in_step_with_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimates, "MOST_RECORDS", 100)
    records: list[Record] = [(str(n), {"kind": n % 8}) for n in range(10_000)]
    kept, count, characters = spread(iter(records))
    assert count == 10_000 and characters == sum(len(str(values)) for _, values in records)
    assert 50 <= len(kept) <= 100
    tenths = [int(where) // 1000 for where, _ in kept]
    assert min(map(tenths.count, range(10))) >= 4
    kinds = [values["kind"] for _, values in kept]
    assert min(map(kinds.count, range(8))) >= 4


def test_what_is_too_long_to_be_tokenised_at_once_is_not_estimated(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resolve(with_data_path(flags(tiny_model, tmp_path, "long"))[0])
    monkeypatch.setattr(estimates, "MOST_CHARACTERS", 50)
    assert estimate(run, "train", run_tokenizer(run)) is None
    monkeypatch.undo()
    monkeypatch.setattr(estimates, "MOST_BYTES", 1000)
    assert estimate(run, "train", run_tokenizer(run)) is None
