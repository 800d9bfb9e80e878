"""A pickle in the place of any file that a user can point to is never run."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local import cli

pytestmark = pytest.mark.slow


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What a bomb would make; that these bombs work is seen after each test."""
    place = tmp_path / "it-was-run"
    yield place
    assert not place.exists()
    for bomb in bombs(place, tmp_path):
        with pytest.raises(FileExistsError):
            place.mkdir(exist_ok=True)
            torch.load(bomb, weights_only=False) if zipfile.is_zipfile(bomb) else pickle.loads(
                bomb.read_bytes()
            )


def bombs(mark: Path, folder: Path) -> list[Path]:
    """A plain pickle, and one in a zip as ``torch.save`` makes them."""
    plain, zipped = folder / "bomb.pkl", folder / "bomb.pt"
    plain.write_bytes(pickle.dumps(Bomb(mark)))
    torch.save(Bomb(mark), zipped)
    return [plain, zipped]


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import peft
    import transformers

    folder = tmp_path_factory.mktemp("adapters") / "lora"
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM")).save_pretrained(str(folder))
    return folder


@pytest.fixture
def place(adapter: Path, tiny_model: Path, grammar_data: Path, tmp_path: Path) -> Path:
    """A folder with all that the commands read."""
    shutil.copytree(adapter, tmp_path / "adapter")
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(grammar_data, tmp_path / "data")
    return tmp_path


ADAPTER = ("adapter_model.safetensors", "adapter_config.json", "run_config.json")
ADAPTER += ("prompt_template.json", "tokenizer.json", "tokenizer.model")
MODEL = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json")
MODEL += ("tokenizer_config.json", "tokenizer.model", "model.safetensors.index.json")
# What older software leaves beside the files that are read.
BESIDE = ("adapter_model.bin", "pytorch_model.bin", "training_args.bin", "optimizer.pt")
BESIDE += ("tokenizer.pkl", "rng_state.pth", "scheduler.pt", "pytorch_model.bin.index.json")
DATA = ("datasets/grammar/gtrain_10k.csv", "datasets/grammar/grammar_validation.csv")
PLACES = [
    *(f"adapter/{name}" for name in ADAPTER),
    *(f"model/{name}" for name in MODEL),
    *(f"data/{name}" for name in DATA),
    "prompts.jsonl",
    "result.json",
    "rows.jsonl",
    "rows.parquet",
    "rows.pkl",
]


def commands(place: Path) -> list[tuple[object, ...]]:
    """Each command that reads, on the folder's files."""
    adapter, model = place / "adapter", place / "model"
    both = ("--adapter", adapter, "--model_name", model)
    data = ("--dataset", "grammar_dataset", "--data_root", place / "data")
    rows = ("--dataset", "local_dataset", "--local_dataset.data_path")
    return [
        ("merge", "--adapter", adapter, "--model", model, "--out", place / "merged"),
        ("generate", *both, "--prompt", "x", "--max_new_tokens", 1),
        ("generate", *both, "--prompts", place / "prompts.jsonl", "--max_new_tokens", 1),
        ("convert", model, "--out", place / "converted"),
        ("convert", adapter, "--model", model, "--out", place / "converted"),
        ("evaluate", *both, *data, "--metrics", "loss", "--out", place / "out.json"),
        ("evaluate", "--compare", place / "result.json", place / "result.json"),
        *(
            ("inspect", "--model_name", model, *rows, place / f"rows.{kind}", "--png", "")
            for kind in ("jsonl", "parquet", "pkl")
        ),
        ("inspect", "--model_name", model, *data, "--png", ""),
    ]


# which of the commands look at a file, so that the others need not be run
def reading(name: str, every: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    if name.startswith("rows."):
        return [words for words in every if str(words).count(name)]
    if name == "prompts.jsonl":
        return [every[2]]
    if name == "result.json":
        return [every[6]]
    if name.startswith("data/"):
        return [every[5], every[10]]
    if name.startswith("adapter/"):
        return [every[0], every[1], every[4], every[5]]
    return [every[0], every[1], every[3], every[5], every[10]]


@pytest.mark.parametrize("name", PLACES)
def test_a_bomb_is_never_run(name: str, place: Path, mark: Path) -> None:
    for bomb in bombs(mark, place):
        for beside in BESIDE:
            shutil.copy(bomb, place / "adapter" / beside)
            shutil.copy(bomb, place / "model" / beside)
        (place / name).unlink(missing_ok=True)
        shutil.copy(bomb, place / name)
        for words in reading(name, commands(place)):
            for made in ("merged", "converted"):
                shutil.rmtree(place / made, ignore_errors=True)
            # a command refuses the file or passes it over
            assert cli.main([*map(str, words)]) in (0, 2), words
            assert not mark.exists(), words
