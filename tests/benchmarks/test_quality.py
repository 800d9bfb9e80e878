"""How far the paths of ``benchmarks/quality.py`` are said to be apart."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import quality

SOURCE, REFERENCE = "he go to school", "he goes to school"


def run(training: float, validation: float, gleu: float) -> dict[str, Any]:
    """Return what is read of a run whose curves are flat."""
    return {
        "training": [training] * 40,
        "validation": [2.0, validation],
        "seconds": 1.0,
        "loss": {"value": validation},
        "gleu": {"value": gleu},
    }


def write_answers(file: Path, *predictions: str) -> None:
    """Write what ``evaluate`` writes, with one prompt for each prediction."""
    answers = [
        {"key": str(number), "source": SOURCE, "prediction": text, "references": [REFERENCE]}
        for number, text in enumerate(predictions)
    ]
    file.write_text(json.dumps({"about": {}, "asked": ["gleu"], "answers": answers}))


@pytest.fixture
def found(tmp_path: Path) -> quality.Found:
    write_answers(tmp_path / "plain-1.json", SOURCE, SOURCE, SOURCE)
    write_answers(tmp_path / "plain-2.json", REFERENCE, SOURCE, SOURCE)
    for seed in (1, 2):
        write_answers(tmp_path / f"fast-{seed}.json", REFERENCE, REFERENCE, REFERENCE)
    return {
        ("fast", 2): run(1.3, 0.9, 1.0),
        ("plain", 1): run(1.0, 1.0, 0.1),
        ("plain", 2): run(1.25, 1.1, 0.4),
        ("fast", 1): run(1.0, 0.9, 1.0),
        ("fp8", 1): {"error": "no device"},
    }


@pytest.fixture
def apart(found: quality.Found, tmp_path: Path) -> list[dict[str, Any]]:
    options = Namespace(work=tmp_path, seeds=[1, 2], paths=list(quality.PATHS))
    return quality.differences(found, options)


def test_paths_are_compared_seed_by_seed(apart: list[dict[str, Any]]) -> None:
    seeds, fast = apart  # and nothing of fp8, which failed
    assert seeds["between"] == "between seeds"
    assert fast["between"] == "fast - plain"
    assert seeds["training"] == pytest.approx(0.25)
    assert fast["training"] == pytest.approx(0.05)  # the larger of 0 and 0.05
    assert fast["mean_final_validation"] == pytest.approx(-0.15)
    assert fast["share_final_validation"] == pytest.approx(-0.15 / 1.05)
    assert seeds["largest_gleu"] == pytest.approx(0.3)


def test_gleu_is_of_the_answers_of_all_seeds(apart: list[dict[str, Any]], tmp_path: Path) -> None:
    gleu = apart[1]["gleu"]
    first, second = (
        quality.gleu_difference(tmp_path, [(("plain", seed), ("fast", seed))])["value"]
        for seed in (1, 2)
    )
    assert second < gleu["value"] < first  # plain's second seed corrects one of three
    assert 0 < gleu["low"] <= gleu["value"] <= gleu["high"] <= 1
    assert gleu["p"] < 0.05


def test_a_run_with_a_result_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(quality, "train", train)
    options = Namespace(work=tmp_path)
    assert quality.train_and_judge(options, "fast", 1) == {"error": "out of memory"}
    (tmp_path / "fast-1").mkdir()
    for name, value in (
        ("metrics", '"seconds": 2.5, "loss": 0.5'),
        ("evaluations", '"loss": 0.25'),
    ):
        (tmp_path / "fast-1" / f"{name}.jsonl").write_text("{" + value + "}\n")
    (tmp_path / "fast-1.json").write_text('{"answers": [{"ended": true}], "metrics": {"gleu": 1}}')
    read = quality.train_and_judge(options, "fast", 1)
    assert (read["training"], read["validation"], read["seconds"]) == ([0.5], [0.25], 2.5)
    assert (read["stopped"], read["gleu"]) == (1.0, 1)


def test_the_table_names_a_run_that_failed(
    found: quality.Found, apart: list[dict[str, Any]]
) -> None:
    shown = quality.table(found, apart)
    assert "| fp8 | 1 | no device |" in shown
    assert "| fast - plain | 0.0500 | 0.2000 | -0.1500 (-14.29%) | " in shown
