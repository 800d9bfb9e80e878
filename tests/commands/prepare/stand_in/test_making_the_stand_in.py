"""The stand-in is made once, whole, and again only for a reason."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llama_recipes_local import cli
from llama_recipes_local.commands.prepare.stand_in import command
from llama_recipes_local.commands.prepare.stand_in.command import RECORD, make_stand_in
from llama_recipes_local.commands.prepare.stand_in.settings import StandInSettings
from llama_recipes_local.errors import UsageError


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert files
    return files


def test_it_is_a_llama_that_loads(stand_in: Path, settings: StandInSettings) -> None:
    model = AutoModelForCausalLM.from_pretrained(stand_in, local_files_only=True)
    assert isinstance(model, LlamaForCausalLM)
    assert all(weight.isfinite().all() for weight in model.state_dict().values())
    config = model.config
    sizes = (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings)
    assert sizes == (settings.hidden_size, settings.layers, settings.positions)
    special = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
    generation = model.generation_config
    assert special == (
        generation.bos_token_id,
        generation.eos_token_id,
        generation.pad_token_id,
    )
    assert len(set(special)) == 3
    assert not list(stand_in.glob("*.bin"))


def test_it_has_learned_from_the_data(stand_in: Path, settings: StandInSettings) -> None:
    lines = (stand_in / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == settings.steps
    assert losses[0] == pytest.approx(math.log(settings.vocabulary), rel=0.1)
    assert losses[-1] < losses[0] - 0.2


def test_the_record_says_what_it_is(stand_in: Path) -> None:
    record = json.loads((stand_in / RECORD).read_text())
    assert "stand-in" in record["what"].lower()
    assert "no language model to use" in record["what"]


def test_making_it_again_gives_the_same_weights(
    stand_in: Path, sentences: Path, settings: StandInSettings, tmp_path: Path
) -> None:
    torch.rand(3)
    make_stand_in(tmp_path / "again", sentences, settings)
    first = load_file(stand_in / "model.safetensors")
    second = load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    tokenizers = [folder / "tokenizer.json" for folder in (stand_in, tmp_path / "again")]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()


def test_a_second_call_does_nothing(
    stand_in: Path,
    sentences: Path,
    settings: StandInSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = snapshot(stand_in)
    assert not make_stand_in(stand_in, sentences, settings)
    assert snapshot(stand_in) == before
    assert str(stand_in) in capsys.readouterr().out


@pytest.mark.parametrize("changed", ["settings", "data", "version", "model.safetensors"])
def test_an_outdated_stand_in_is_made_again_with_the_reason(
    changed: str,
    sentences: Path,
    settings: StandInSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = replace(settings, steps=1)
    folder, data = tmp_path / "stand-in", tmp_path / "data.csv"
    data.write_bytes(sentences.read_bytes())
    make_stand_in(folder, data, settings)
    capsys.readouterr()
    if changed == "settings":
        settings = replace(settings, steps=2)
    elif changed == "data":
        data.write_bytes(data.read_bytes() + b"one more,One more.\n")
    elif changed == "model.safetensors":
        (folder / changed).unlink()
    else:
        monkeypatch.setattr(command, "VERSION", command.VERSION + 1)
    assert make_stand_in(folder, data, settings)
    assert changed in capsys.readouterr().out.splitlines()[0]
    assert not make_stand_in(folder, data, settings)
    assert {path.name for path in tmp_path.iterdir()} == {"stand-in", "data.csv"}


def test_an_interrupted_run_leaves_no_folder(
    sentences: Path, settings: StandInSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder, settings = tmp_path / "stand-in", replace(settings, steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "save_pretrained", fail)
        with pytest.raises(KeyboardInterrupt):
            make_stand_in(folder, sentences, settings)
    assert not folder.exists()
    assert make_stand_in(folder, sentences, settings)
    assert {path.name for path in tmp_path.iterdir()} == {"stand-in"}


@pytest.mark.parametrize("record", [None, "no JSON", "[1]"])
def test_another_model_is_never_replaced(
    record: str | None, sentences: Path, settings: StandInSettings, tmp_path: Path
) -> None:
    if record is not None:
        (tmp_path / RECORD).write_text(record)
    (tmp_path / "model.safetensors").write_bytes(b"a model of the user's")
    with pytest.raises(UsageError, match="--out"):
        make_stand_in(tmp_path, sentences, settings)
    assert (tmp_path / "model.safetensors").read_bytes() == b"a model of the user's"


@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2\n", b"input,target\ncaf\xe9,x\n"])
def test_data_that_cannot_be_read_is_refused(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.csv"
    if content is not None:
        data.write_bytes(content)
    words = ["prepare", "stand-in", "--out", str(tmp_path / "out"), "--data", str(data)]
    assert cli.main(words) == 2
    assert str(data) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_says_how_to_name_a_model(
    sentences: Path,
    settings: StandInSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "StandInSettings", lambda: replace(settings, steps=1))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["prepare", "stand-in", "--data", str(sentences)]) == 0
    assert (tmp_path / "models/stand-in/model.safetensors").is_file()
    output = capsys.readouterr().out
    assert "make finetune MODEL=" in output
    assert "--model_name" in output
