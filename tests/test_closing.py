"""What a run ends with: its box says what happened, and its commands work as they are printed."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import cli, finetuning
from llama_recipes_local.closing import closing_text
from llama_recipes_local.datasets.prepared_data import RunData
from llama_recipes_local.program import program
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.screen import columns_of

RESULTS = {
    "eval_loss_before": 1.2073,
    "eval_loss_after": 0.719,
    "other_batches": False,
    "trained": True,
    "tokens": 24_576,
    "steps": 12,
    "seconds": 92.4,
}


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes a run that has saved an adapter, or with ``use_peft=False`` a model, in ``out``."""
    monkeypatch.chdir(tmp_path)

    def make(**flags: Any) -> Run:
        given = {"model_name": "models/some-llama", "output_dir": "out", "use_peft": True} | flags
        run = resolve(given | {"dataset": "grammar_dataset"})
        run.results = dict(RESULTS)
        run.data = RunData(example="She go to school yesterday.")
        weights = "adapter_model.safetensors" if run.train.use_peft else "config.json"
        for name in (weights, "run_config.json"):
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / name).write_text("{}")
        return run

    return make


def facts(text: str) -> dict[str, str]:
    """Return the box's two columns."""
    return dict(re.findall(r"^│ (\S.*?)  +(\S.*?) *│$", text, re.MULTILINE))


def commands(text: str) -> list[list[str]]:
    """Return the words of the commands below the box."""
    lines = text.partition("\nnext:\n")[2].replace(" \\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if not line.startswith("#")]


def test_one_step_is_one(finished: Callable[..., Run]) -> None:
    run = finished()
    run.results["steps"] = 1
    assert facts(closing_text(run))["work"] == "1 step, 24,576 tokens, 1:32 with validation"


def test_the_box_says_what_was_trained_on_what_and_how_it_went(
    finished: Callable[..., Run],
) -> None:
    text = closing_text(finished())
    assert facts(text) == {
        "trained": "some-llama, LoRA",
        "data": "grammar_dataset",
        "validation loss": "1.2073 before, 0.7190 after training",
        "perplexity": "3.344 before, 2.052 after",
        "work": "12 steps, 24,576 tokens, 1:32 with validation",
        "saved in": "out",
    }
    assert max(map(columns_of, text.splitlines())) <= 80


def test_sections_of_others_stand_in_the_box(finished: Callable[..., Run]) -> None:
    run = finished()
    run.closing += ["before  She go.\nafter   She goes."]
    text = closing_text(run)
    assert facts(text)["before"] == "She go." and facts(text)["after"] == "She goes."
    assert text.index("saved in") < text.index("She go.") < text.index("╰")


def test_losses_that_are_not_of_the_same_rows_are_not_put_side_by_side(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    run.results |= {"eval_loss_before": None, "other_batches": True}
    assert facts(closing_text(run))["validation loss"].startswith("0.7190 after training (before:")
    run.results |= {"eval_loss_after": None}
    assert "loss" not in closing_text(run)


def test_nothing_is_proposed_for_a_result_that_was_not_saved(finished: Callable[..., Run]) -> None:
    text = closing_text(finished(save_model=False))
    assert "saved in" not in text and "next:" not in text


def test_data_without_a_prompt_to_try_is_talked_about(finished: Callable[..., Run]) -> None:
    run = finished()
    assert commands(closing_text(run))[0][-2:] == ["--prompt", "She go to school yesterday."]
    run.data = RunData()
    assert commands(closing_text(run))[0][-1] == "--chat"


def test_a_run_without_a_record_is_not_to_be_measured(finished: Callable[..., Run]) -> None:
    run = finished()
    assert "evaluate" in commands(closing_text(run))[1]
    Path("out/run_config.json").unlink()
    assert "evaluate" not in closing_text(run)


def test_what_cannot_be_merged_is_not_to_be_merged(finished: Callable[..., Run]) -> None:
    words = [words[-5:] for words in commands(closing_text(finished(peft_method="prefix")))]
    assert len(words) == 3 and not any("merge" in each for each in words)


def test_a_sharded_model_is_made_a_models_folder(
    finished: Callable[..., Run], tmp_path: Path
) -> None:
    run = finished(use_peft=False, enable_fsdp=True)
    sharded = tmp_path / "checkpoints/fine-tuned-some-llama"
    (tmp_path / "out/config.json").unlink()
    assert "saved in" not in closing_text(run)
    sharded.mkdir(parents=True)
    (sharded / "rank-00000-00000.safetensors").touch()
    text, place = closing_text(run), str(sharded.relative_to(tmp_path))
    assert facts(text)["saved in"] == place
    assert [words[-4:] for words in commands(text)] == [
        ["convert", place, "--out", f"{place}-model"]
    ]


def test_a_merged_model_is_not_written_over_another(finished: Callable[..., Run]) -> None:
    run = finished()
    Path("out-merged").mkdir()
    assert commands(closing_text(run))[2][-2:] == ["--out", "out-merged-2"]


@pytest.mark.slow
def test_the_commands_below_the_box_work(
    tiny_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"max_train_step": 2, "max_eval_step": 1, "context_length": 128}
    finetuning.main(**tiny_run, **short, use_peft=True, output_dir="out")
    printed = capsys.readouterr().out
    assert facts(printed)["work"].startswith("2 steps, ")
    found = commands(printed)
    assert [words[len(program())] for words in found] == ["generate", "evaluate", "merge"]
    for words in found:
        assert cli.main(words[len(program()) :]) == 0
    assert (tmp_path / "out-merged/model.safetensors").is_file()
