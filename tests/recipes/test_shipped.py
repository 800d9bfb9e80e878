"""Every recipe of the package: it resolves, a run of it is accepted, and it can be planned."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.cli import main
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.preflight import checks, recipe_values
from llama_recipes_local.preflight.all_problems import _resolved as resolved
from llama_recipes_local.recipes import shipped
from llama_recipes_local.screen import COLUMNS

METHODS = {"lora", "qlora", "llama_adapter", "prefix", "full", "head", "top_layers"}
MACHINES = {"guide", "full_2gpus", "full_nodes", "lora_nodes"}
GUIDES_DATA = {"grammar", "samsum", "alpaca", "guanaco"}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with the positions and the layers of a real one, in its configuration."""
    for file in tiny_model.iterdir():
        (tmp_path / file.name).symlink_to(file)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"max_position_embeddings": 4096}
    path.unlink()
    path.write_text(json.dumps(config))
    return tmp_path


def test_the_guides_methods_and_data_are_there() -> None:
    assert set(shipped.names()) > METHODS | MACHINES | GUIDES_DATA
    assert GUIDES_DATA | {"toxicchat"} < set(shipped.names())


@pytest.mark.parametrize("name", shipped.names())
def test_a_recipe_is_accepted(
    name: str, model: Path, grammar_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = shipped.path_of(name).read_text()
    if "enable_fsdp" in text:
        ranks = {"WORLD_SIZE": "2", "MASTER_PORT": "29500", "MASTER_ADDR": "localhost"}
        for variable, value in {"RANK": "0", "LOCAL_RANK": "0", **ranks}.items():
            monkeypatch.setenv(variable, value)
    flags = {
        "config": name,
        "model_name": str(model),
        "data_root": str(grammar_data),
        "output_dir": str(tmp_path / "out"),
        **({} if "\ndataset: " in text else {"dataset": "grammar_dataset"}),
        **({"adapter_layers": "2"} if name == "llama_adapter" else {}),  # of the tiny model
    }
    run, problems = resolved((), flags)
    assert problems == [] and run.train.dataset in DATASETS
    assert f"--> Recipe {name} sets (flags win):" in run.recipe
    missing = name in {"samsum", "alpaca", "guanaco", "toxicchat"}  # which the tests do not have
    found = [str(each) for each in checks.find_problems(run)]
    assert bool(found) is missing
    assert all(str(grammar_data / "datasets") in each for each in found)


@pytest.mark.parametrize("name", shipped.names())
def test_a_recipe_can_be_planned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = "8" if "enable_fsdp" in shipped.path_of(name).read_text() else "1"
    words = [
        "plan",
        "--config",
        name,
        "--model_name",
        "llama-3.1-8b",
        "--gpus",
        gpus,
        "--gpu_memory",
        "141",
    ]
    words.append("--json")
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["settings"]


def test_they_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped.names())
    assert all(len(line) <= COLUMNS and len(line.split()) > 3 for line in lines)
    assert main(["recipes", "lora"]) == 0
    assert capsys.readouterr().out == shipped.path_of("lora").read_text("utf-8")
    with pytest.raises(SystemExit):
        main(["recipes", "lroa"])
    assert "did you mean lora?" in capsys.readouterr().err


def test_a_recipe_says_how_it_is_run() -> None:
    for name in shipped.names():
        text = shipped.path_of(name).read_text("utf-8")
        assert f"--config {name} " in text.replace("\n", " \n") or "make finetune" in text
        assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("hidden", "rank", "rate"),
    # the rates are hyperparam_utils.get_lr of tinker-cookbook, for Llama-3.2-1B to 3.1-70B
    [(2048, 64, 4.9e-4), (3072, 32, 3.6e-4), (4096, 32, 2.9e-4), (8192, 16, 1.7e-4)],
)
def test_loras_rank_and_rate_follow_the_size(
    hidden: int, rank: int, rate: float, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": hidden}))
    run, problems = resolved((), {"config": "lora", "model_name": str(tmp_path)})
    peft: Any = run.peft
    assert problems == [] and (peft.r, run.train.lr) == (rank, rate)
    assert f"--lr {rate}  (hidden size {hidden:,})" in run.recipe
    assert peft.use_rslora and peft.target_modules == "all-linear"


def test_an_8b_has_what_the_file_says() -> None:
    run, _ = resolved((), {"config": "lora"})
    values = {"r": ("32", ""), "lr": ("2.9e-4", "")}
    assert {name: (str(run.flags[name]), "") for name in values} == values
    assert set(recipe_values.BY_RUN) <= set(shipped.names())
