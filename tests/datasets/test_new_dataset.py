"""A data set is a module and its line in the registry: nothing else knows its name."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import cli, configs, datasets
from llama_recipes_local.datasets.base import Dataset
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.finetuning import main
from llama_recipes_local.preflight.flags import known_flags
from llama_recipes_local.preflight.help import help_text

MODULE = '''
from dataclasses import dataclass
from functools import partial

from llama_recipes_local.datasets.base import Dataset, PromptFormatter, Split
from llama_recipes_local.records.any_format import records
from llama_recipes_local.storage import data_root

PROMPT = "Riddle: {}\\nAnswer: "


@dataclass
class riddles_dataset:
    """Riddles and their answers."""

    dataset: str = "riddles_dataset"
    train_split: str = "train"
    test_split: str = "held_out"
    data_path: str = "datasets/riddles"
    """Folder with ``train.jsonl`` and ``held_out.jsonl``."""

    data_root: str = ""


def split(config, name):
    path = data_root.resolve(config.data_path, config.data_root) / f"{name}.jsonl"
    read = partial(records, path, ("riddle", "answer"))
    return Split((path,), "every record", read, PromptFormatter(PROMPT, "riddle", "answer"))


DATASET = Dataset(
    config=riddles_dataset,
    split=split,
    flag="--riddles_dataset.data_path=DIR",
    prompt=PROMPT,
    example="What has keys and opens no door?",
    metrics=("rouge",),
)
'''
RIDDLES = [{"riddle": f"What comes before {n + 1}?", "answer": f"It is {n}."} for n in range(24)]


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Dataset[Any]:
    folder = tmp_path_factory.mktemp("module")
    (folder / "riddles_for_a_test.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        return import_module("riddles_for_a_test").DATASET


@pytest.fixture
def root(declared: Dataset[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the data set's files; the data set is registered for the test."""
    monkeypatch.setitem(DATASETS, declared.name, declared)
    folder = tmp_path / "datasets" / "riddles"
    folder.mkdir(parents=True)
    for name, rows in (("train", RIDDLES), ("held_out", RIDDLES[:4])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def flags(root: Path, model: Path) -> dict[str, Any]:
    return {"model_name": str(model), "dataset": "riddles_dataset", "data_root": str(root)}


def words(root: Path, model: Path) -> list[str]:
    return [f"--{name}={value}" for name, value in flags(root, model).items()]


def test_flags_help_and_tables_have_it(root: Path) -> None:
    assert "riddles_dataset.data_path" in known_flags()
    assert "--riddles_dataset.data_path (datasets/riddles)" in help_text()
    assert configs.riddles_dataset is configs.datasets.riddles_dataset
    assert configs.riddles_dataset is DATASETS["riddles_dataset"].config
    assert "riddles_dataset" in datasets.DATASET_PREPROC
    assert "riddles_dataset" not in datasets.DATALOADER_COLLATE_FUNC


def test_preflight_checks_its_files(
    root: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "datasets/riddles/held_out.jsonl").write_text('{"riddle": "Why?"}\n')
    with pytest.raises(SystemExit):
        main(**flags(root, tiny_model), use_peft=True, output_dir=str(root / "run"))
    said = capsys.readouterr().err
    assert f"line 1 of {root / 'datasets/riddles/held_out.jsonl'} has no 'answer'" in said
    assert "--riddles_dataset.data_path=DIR" in said


def test_it_is_inspected(root: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*words(root, tiny_model), "--context_length=128", "--rows=1", "--png="]
    assert cli.main(["inspect", *given]) == 0
    assert "What comes before 1?" in capsys.readouterr().out


def test_it_is_trained_on_evaluated_and_generated_with(
    root: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = root / "run"
    main(
        **flags(root, tiny_model),
        output_dir=str(output),
        use_peft=True,
        lr=0.01,
        batching_strategy="padding",
        num_epochs=1,
        num_workers_dataloader=0,
    )
    printed = capsys.readouterr().out
    assert "--prompt 'What has keys and opens no door?'" in printed
    template = json.loads((output / "prompt_template.json").read_text())
    assert template["template"] == "Riddle: {}\nAnswer: "

    few = ["--max_examples=2", "--max_new_tokens=4", f"--out={root / 'measured.json'}"]
    assert cli.main(["evaluate", f"--adapter={output}", *few]) == 0
    measured = json.loads((root / "measured.json").read_text())["metrics"]
    assert {"loss", "perplexity"} < set(measured) and any("rouge" in name for name in measured)

    asked = ["--model_name", str(tiny_model), "--prompt", "Why?", "--max_new_tokens", "2"]
    assert cli.main(["generate", *asked, "--dataset", "riddles_dataset"]) == 0
