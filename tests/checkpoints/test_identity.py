"""What a run must share with the one it resumes, unless ``resume_despite`` names it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Ended, Runs
from safetensors.torch import load_file, save_file

from llama_recipes_local.checkpoints import identity
from llama_recipes_local.run import Run

FROM = {"save_steps": 11, "resume_from_checkpoint": "auto"}
REFUSED = 2
FIXES = {
    "batch": "--gradient_accumulation_steps 1",
    "method": "give --lora_dropout 0.1",
    "schedule": "give --lr 0.001",
}


@pytest.fixture
def before_the_last(output: Path) -> Path:
    shutil.rmtree(output / f"checkpoint-{STEPS}")
    return output


def resume(runs: Runs, output: Path, flags: dict[str, Any]) -> tuple[Ended, str]:
    """Resume with these flags; return the run, and what it printed."""
    log = output / "logs" / "0.log"
    before = len(log.read_text())
    ended = runs(output, flags)
    return ended, log.read_text()[before:]


def other_rows(grammar_data: Path, folder: Path) -> Path:
    """The training rows with one word changed."""
    text = (grammar_data / "datasets/grammar/gtrain_10k.csv").read_text("utf-8-sig")
    (folder / "other.csv").write_text(text.replace(" the ", " a ", 1), "utf-8-sig")
    return folder / "other.csv"


def other_model(model: Path, folder: Path) -> Path:
    """The model with one weight changed."""
    copied = Path(shutil.copytree(model, folder / "other"))
    weights = load_file(copied / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    return copied


def other_tokenizer(model: Path, folder: Path) -> Path:
    """The tokenizer with two tokens exchanged."""
    copied = Path(shutil.copytree(model, folder / "tokenizer"))
    rules = json.loads((copied / "tokenizer.json").read_text())
    vocabulary = rules["model"]["vocab"]
    one, other = (name for name, number in vocabulary.items() if number in (500, 501))
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (copied / "tokenizer.json").write_text(json.dumps(rules))
    return copied


def test_each_difference_is_refused_unless_resume_despite_names_it(
    runs: Runs,
    lora: dict[str, Any],
    before_the_last: Path,
    grammar_data: Path,
    tmp_path: Path,
) -> None:
    model = Path(lora["model_name"])
    others: dict[str, dict[str, Any]] = {
        "data": {"grammar_dataset.train_split": str(other_rows(grammar_data, tmp_path))},
        "tokenizer": {"tokenizer_name": str(other_tokenizer(model, tmp_path))},
        "batch": {"gradient_accumulation_steps": 2},
        "model": {"model_name": str(other_model(model, tmp_path)), "tokenizer_name": str(model)},
        "method": {"lora_dropout": 0.2},
        "schedule": {"lr": 2e-3},
    }
    for kind, change in others.items():
        ended, said = resume(runs, before_the_last, lora | FROM | change)
        assert ended.codes == [REFUSED], said
        assert "1 problem found" in said, said
        assert ("with other data" if kind == "data" else f"with another {kind}") in said
        assert f"--resume_despite {kind}" in said
        assert kind not in FIXES or f"fix: {FIXES[kind]}, or" in said
        assert ended.checkpoints == [11]

        asked = change | {"resume_despite": kind}
        ended, said = resume(runs, before_the_last, lora | FROM | asked)
        assert ended.codes == [0], said
        shutil.rmtree(before_the_last / f"checkpoint-{max(ended.checkpoints)}")
        if kind == "schedule":
            # the rate of the last step of twelve, three of them warm-up, at twice --lr
            assert ended.metrics[-1]["lr"] == pytest.approx(2 * 3.0153e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("was", "fix"),
    [
        ({"train_only": "", "top_layers": 2}, "give --top_layers 2, leave --train_only out, or"),
        ({"train_only": ""}, "leave --train_only out, or"),
        ({"train_only": "mlp, attention"}, "give --train_only 'mlp, attention', or"),
        ({"quantization": None}, "give the same settings, or"),
    ],
)
def test_the_fix_of_a_difference_is_a_command_line(was: dict[str, Any], fix: str) -> None:
    problem = identity._problem(Run({}), Path("checkpoint-3"), "method", was)
    assert problem.fix.startswith(fix)


def test_a_run_of_other_parameters_is_refused_whatever_resume_despite_names(
    runs: Runs, lora: dict[str, Any], before_the_last: Path
) -> None:
    change = {"r": 2, "resume_despite": "method"}
    ended, said = resume(runs, before_the_last, lora | FROM | change)
    assert ended.codes == [REFUSED] and "1 problem found" in said
    assert "fix: give --r 8, or a new run: another --output_dir" in said
    assert "--resume_despite" not in said


def test_a_change_of_clipping_is_refused(
    runs: Runs, lora: dict[str, Any], before_the_last: Path
) -> None:
    for change in ({"gradient_clipping": False}, {"gradient_clipping_threshold": 0.5}):
        ended, said = resume(runs, before_the_last, lora | FROM | change)
        assert ended.codes == [REFUSED], said
        assert "with another schedule" in said
        assert "gradient_clipping was 1.0" in said


def test_a_run_whose_folders_moved_resumes(
    runs: Runs, lora: dict[str, Any], before_the_last: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(lora["model_name"], tmp_path / "moved")
    ended, said = resume(runs, before_the_last, lora | FROM | {"model_name": str(moved)})
    assert ended.codes == [0], said


def test_more_ranks_may_share_the_same_batch(
    runs: Runs, lora: dict[str, Any], before_the_last: Path
) -> None:
    """The runs of this folder halve the rows of a rank by themselves."""
    ended = runs(before_the_last, lora | FROM, 2)
    assert ended.codes == [0, 0], ended.logs
    assert [line["step"] for line in ended.metrics] == list(range(1, STEPS + 1))


def test_a_longer_run_may_be_resumed(runs: Runs, lora: dict[str, Any], output: Path) -> None:
    ended, said = resume(runs, output, lora | FROM | {"num_epochs": 3})
    assert ended.codes == [0], said
    assert [line["step"] for line in ended.metrics] == list(range(1, 19))
    assert max(ended.checkpoints) == 18


def test_a_finished_run_has_nothing_left(runs: Runs, lora: dict[str, Any], output: Path) -> None:
    metrics = (output / "metrics.jsonl").read_bytes()
    ended, said = resume(runs, output, lora | FROM)
    assert ended.codes == [0], said
    assert (output / "metrics.jsonl").read_bytes() == metrics
    assert ended.checkpoints == [11, STEPS]
