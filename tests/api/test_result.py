"""What ``finetune`` returns: the rows of the run's files, its model, a figure, a table."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from llama_recipes_local import Result, UsageError, cli, finetune
from llama_recipes_local.run.record import SavedRun

pytestmark = pytest.mark.slow
SENTENCE = "She go to school yesterday."


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_rows_are_those_of_the_files(result: Result) -> None:
    assert result.metrics == rows_of(result.output_dir / "metrics.jsonl")
    assert [row["step"] for row in result.metrics] == [1, 2, 3]
    assert result.evaluations == rows_of(result.output_dir / "evaluations.jsonl")
    assert [row["step"] for row in result.evaluations] == [0, 3]
    frame = result.metrics_frame()
    assert list(frame["loss"]) == [row["loss"] for row in result.metrics]


def test_a_corrupt_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo\n')
    found = Result(tmp_path, None, None, tmp_path)
    assert found.metrics == [{"step": 1, "loss": 2.0}]
    assert found.evaluations == []


def test_numbers_and_places_are_the_runs(result: Result, tiny_model: Path) -> None:
    first, last = result.evaluations
    assert (result.loss_before, result.loss_after) == (first["loss"], last["loss"])
    assert result.loss_before != result.loss_after
    assert result.steps == 3
    assert result.tokens == sum(row["tokens"] for row in result.metrics)
    assert result.adapter_dir == result.output_dir
    assert result.model_dir is None
    assert result.base_model == tiny_model.resolve()
    assert SavedRun(result.output_dir).finished


def test_it_answers_as_the_command_does(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--adapter", str(result.adapter_dir), "--prompt", SENTENCE, "--max_new_tokens", "8"]
    assert cli.main(["generate", *words]) == 0
    answer = capsys.readouterr().out.removesuffix("\n")
    assert answer
    assert result.generate(SENTENCE, max_new_tokens=8) == answer
    asked = result._asked
    assert result.generate(SENTENCE, 8, do_sample=True, temperature=5.0, seed=1) != answer
    assert result._asked is asked  # the model stays loaded


def test_a_temperature_without_sampling_is_refused(result: Result) -> None:
    with pytest.raises(UsageError, match=r"temperature=0.5 without do_sample"):
        result.generate(SENTENCE, temperature=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 2.5},
        {"max_new_tokens": "8"},
        {"temperature": 0, "do_sample": True},
        {"top_p": 1.5, "do_sample": True},
        {"top_k": -1, "do_sample": True},
        {"top_k": True, "do_sample": True},
        {"repetition_penalty": float("nan")},
        {"seed": 2**63},
        {"seed": None},
        {"prompt": 3},
        {"prompt": " "},
    ],
)
def test_a_value_that_cannot_be_is_a_problem(result: Result, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}="):
        result.generate(**{"prompt": SENTENCE} | wrong)


def test_what_is_no_result_is_in_no_page(result: Result) -> None:
    with pytest.raises(UsageError, match="not what finetune has returned"):
        result.report(str(result.output_dir))  # type: ignore[arg-type]


def test_the_figure_has_both_losses(result: Result) -> None:
    figure = result.plot()
    assert isinstance(figure, Figure)
    training, validation = figure.axes[0].get_lines()
    assert list(training.get_ydata()) == [row["loss"] for row in result.metrics]
    assert list(validation.get_xdata()) == [0, 3]
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_its_page_can_have_others_beside_it(result: Result, tmp_path: Path) -> None:
    page = result.report()
    assert page == result.output_dir / "report.html"
    other = shutil.copytree(result.output_dir, tmp_path / "another-run")
    result.report(Result(other, None, None, result.base_model))
    assert "another-run" in page.read_text("utf-8")
    result.report()
    assert "another-run" not in page.read_text("utf-8")


def test_a_notebook_shows_text_as_text() -> None:
    shown = Result(Path("o"), None, None, Path("m"), facts={"data": "<b>x</b>.jsonl"})
    assert "&lt;b&gt;x&lt;/b&gt;.jsonl" in shown._repr_html_()
    assert repr(shown) == "data  <b>x</b>.jsonl"


def test_another_process_can_be_given_it(result: Result) -> None:
    assert Result.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_a_model_that_was_trained_whole_answers(short_run: dict[str, Any], tmp_path: Path) -> None:
    flags = short_run | {"use_peft": False, "max_train_step": 1, "run_validation": False}
    found = finetune(**flags, output_dir=tmp_path / "whole")
    assert found.adapter_dir is None
    assert found.model_dir == tmp_path / "whole"
    assert found.loss_after is None
    assert found.generate(SENTENCE, 4, do_sample=True, temperature=9.0)


def test_a_dry_run_has_no_model_of_an_earlier_run(
    short_run: dict[str, Any], result: Result
) -> None:
    flags = short_run | {"output_dir": result.output_dir, "overwrite_output_dir": True}
    found = finetune(**flags, dry_run=True)
    assert (found.adapter_dir, found.steps, found.loss_after) == (None, 0, None)
    assert repr(found) == "trained  nothing"
    assert (result.output_dir / "adapter_model.safetensors").is_file()


def test_nothing_was_saved(short_run: dict[str, Any], tmp_path: Path) -> None:
    flags = short_run | {"max_train_step": 1, "run_validation": False, "save_model": False}
    found = finetune(**flags, output_dir=tmp_path / "none")
    with pytest.raises(UsageError, match="train with save_model=True"):
        found.generate(SENTENCE)
