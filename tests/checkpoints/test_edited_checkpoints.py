"""A checkpoint that was edited, and hashed again, is skipped, refused, or gives the same bits."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_corrupt_checkpoints import chosen, signed

from llama_recipes_local import finetuning
from llama_recipes_local.checkpoints import layout, selection
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError
from llama_recipes_local.configs import train_config
from llama_recipes_local.training.loggers import JsonLines

pytestmark = pytest.mark.slow

IMPOSSIBLE = (-3, 10**30, 1e400, "x", {})
# what is only reported, and never trained with: another number is as good as any
REPORTED = ("loss", "tflops", "tokens", "epoch_steps", "seconds", "schedule", "batch_size", "group")
UNUSED = ("micro_batches", "num_rows", "total_steps", "groups", "growth", "seed", "validated")
FILES = ("trainer.json", "random/rank-0.json")


@pytest.fixture(scope="module")
def flags(tiny_run: dict[str, Any]) -> dict[str, Any]:
    return tiny_run | {
        "batching_strategy": "padding",
        "batch_size_training": 10,
        "context_length": 128,
        "use_peft": True,
        "lora_dropout": 0.1,
        "num_epochs": 2,
        "max_eval_step": 1,
        "save_steps": 4,
    }


@pytest.fixture(scope="module")
def finished(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps with checkpoints at 4, 8 and 10: the middle of two epochs, and the end."""
    output = tmp_path_factory.mktemp("edited")
    finetuning.main(**flags, output_dir=str(output), max_train_step=10)
    return output


@pytest.fixture
def edited(finished: Path, tmp_path: Path) -> Path:
    """The output of that run as it was after step 8."""
    output = Path(shutil.copytree(finished, tmp_path / "output"))
    shutil.rmtree(output / "checkpoint-10")
    return output


def numbers(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the numbers of a JSON file are; of a list, of which each is alike, its ends."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from numbers(value, (*path, name))
    elif isinstance(content, list):
        for place in {0, len(content) - 1} if content else ():
            yield from numbers(content[place], (*path, place))
    elif type(content) in (int, float):
        yield path


def replaced(content: Any, path: tuple[Any, ...], value: object) -> bytes:
    copy = json.loads(json.dumps(content))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(copy).encode()


def test_no_impossible_number_is_believed(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest, before = edited / "checkpoint-8", edited / "checkpoint-4"
    cases = believed = 0
    for name in FILES:
        content = json.loads((newest / name).read_text())
        for path in numbers(content):
            for value in IMPOSSIBLE:
                cases += 1
                signed(newest, name, replaced(content, path, value))
                found = chosen(edited)
                if found == newest:
                    believed += 1
                    where = "/".join(map(str, path))
                    assert any(each in where for each in (*REPORTED, *UNUSED)), (where, value)
                    assert type(value) is not dict, where
                else:
                    assert found == before
        signed(newest, name, json.dumps(content).encode())
    assert "cannot be true" in capsys.readouterr().out
    assert cases >= 150 and believed < cases / 3
    assert chosen(edited) == newest


@pytest.mark.parametrize("beta", [-0.1, 1.0, 2.0])
def test_a_beta_of_no_average_is_not_believed(edited: Path, beta: float) -> None:
    newest = edited / "checkpoint-8"
    content = json.loads((newest / layout.TRAINER).read_text())
    place = ("optimizer", "groups", 0, "betas", 0)
    signed(newest, layout.TRAINER, replaced(content, place, beta))
    assert chosen(edited) == edited / "checkpoint-4"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("feed", "taken"), 0),  # where the data is, would be ignored
        (("optimizer", "numbers", 0, "step"), True),
    ],
)
def test_numbers_that_contradict_others_are_not_believed(
    path: tuple[Any, ...], value: object, edited: Path
) -> None:
    newest = edited / "checkpoint-8"
    content = json.loads((newest / layout.TRAINER).read_text())
    if path[0] == "optimizer":
        path = (*path[:2], next(iter(content["optimizer"]["numbers"])), path[3])
    signed(newest, layout.TRAINER, replaced(content, path, value))
    assert chosen(edited) == edited / "checkpoint-4"


def damage(newest: Path, kind: str) -> None:
    """Damage a checkpoint in one of the ways that a hash alone does not find, or not in time."""
    trainer = json.loads((newest / layout.TRAINER).read_text())
    if kind == "seed":  # one bit, so that another reason would be given
        path = newest / layout.IDENTITY
        path.write_text(path.read_text().replace('"seed": 42', '"seed": 43'))
    elif kind == "pipe":
        (newest / layout.MANIFEST).unlink()
        os.mkfifo(newest / layout.MANIFEST)
    elif kind == "deep manifest":
        (newest / layout.MANIFEST).write_text("[" * 100_000)
    elif kind in ("[1]", '{"data": [1]}', "null", "[" * 100_000):
        signed(newest, layout.IDENTITY, kind.encode())
    elif kind == "deep progress":
        signed(newest, layout.TRAINER, b"[" * 100_000)
    else:
        assert kind == "no progress"
        signed(newest, layout.TRAINER, json.dumps(trainer | {"state": {}}).encode())


DAMAGES = ["seed", "pipe", "deep manifest", "[1]", '{"data": [1]}', "null", "[" * 100_000]
DAMAGES += ["deep progress", "no progress"]


@pytest.mark.parametrize(
    "kind",
    DAMAGES,
    ids=range(len(DAMAGES)),
)
def test_auto_skips_it_before_it_is_compared(edited: Path, kind: str) -> None:
    damage(edited / "checkpoint-8", kind)
    config = train_config(output_dir=str(edited), resume_from_checkpoint="auto")
    assert selection.expected(config) == edited / "checkpoint-4"
    assert chosen(edited) == edited / "checkpoint-4"


def test_a_copy_under_another_step_is_not_that_step(edited: Path) -> None:
    shutil.copytree(edited / "checkpoint-8", edited / "checkpoint-99")
    assert chosen(edited) == edited / "checkpoint-8"
    with pytest.raises(CorruptCheckpointError, match="is of step 8"):
        layout.read_manifest(edited / "checkpoint-99")


def resume(flags: dict[str, Any], output: Path) -> int:
    try:
        again = {"resume_from_checkpoint": "auto", "max_train_step": 10}
        finetuning.main(**flags, **again, output_dir=str(output))
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_what_is_only_reported_and_files_that_are_not_listed_change_no_bit(
    flags: dict[str, Any], edited: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = edited / "checkpoint-8"
    for folder in ("model", "optimizer"):
        (whole,) = (newest / folder).glob("*.safetensors")
        shutil.copy(whole, whole.with_name("x.safetensors"))
        whole.with_name("y.safetensors").write_bytes(b"garbage")
    content = json.loads((newest / layout.TRAINER).read_text())
    content["history"]["train_step_loss"][0] = 1e30
    for group in content["optimizer"]["groups"]:
        group |= {"lr": 3.0, "betas": [0.1, 0.1], "weight_decay": 9.0}
    content["schedule"] |= {"gamma": 3.0, "last_epoch": 7}
    signed(newest, layout.TRAINER, json.dumps(content).encode())
    metrics = edited / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    torn = [b"null\n", b"[]\n", b'{"step": "1"}\n', b"[" * 99_999 + b"\n", b"\xff\n", b'{"st\n']
    metrics.write_bytes(b"".join([*lines[:3], *torn, *lines[3:]]))
    assert resume(flags, edited) == 0
    assert f"{metrics}: 6 corrupt line(s) left out, the first is line 4" in capsys.readouterr().out
    kept = metrics.read_bytes().splitlines(keepends=True)
    assert kept[:8] == lines[:8] and len(kept) == 10
    weights = "checkpoint-10/adapter_model.safetensors"
    assert (edited / weights).read_bytes() == (finished / weights).read_bytes()


@pytest.mark.parametrize("kept", [0, 1])
def test_state_that_lacks_parameters_is_refused(
    flags: dict[str, Any], edited: Path, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = edited / "checkpoint-8"
    content = json.loads((newest / layout.TRAINER).read_text())
    numbers = content["optimizer"]["numbers"]
    content["optimizer"]["numbers"] = dict(list(numbers.items())[:kept])
    signed(newest, layout.TRAINER, json.dumps(content).encode())
    assert resume(flags, edited) == 2
    assert "state is not that of this run's parameters" in capsys.readouterr().err


def test_what_a_kill_left_too_many_is_removed_at_the_start(
    flags: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "output"))
    assert resume(flags | {"save_total_limit": 1}, output) == 0
    assert [path.name for path in layout.checkpoints_in(output)] == ["checkpoint-10"]


def test_the_first_corrupt_line_ends_no_curve(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnull\n{"step": 2}\n{"step": 3}')
    logger = JsonLines(tmp_path)
    logger.resume(3, 0)
    logger.log("train", 4, {})
    logger.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4]
