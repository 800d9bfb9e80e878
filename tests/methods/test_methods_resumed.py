"""Runs go on: with any saved adapter, and from a checkpoint of any method."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import ADAPTER, TRAINED_ALONE, UNQUANTIZED, Cell
from recorded_runs import IDS, LOGITS, TENSORS, fine_tune, replaced_train
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from llama_recipes_local.finetuning import main

pytestmark = pytest.mark.slow

UNQUANTIZED_CELLS = [cell for cell in TRAINED_ALONE if cell.quantization == UNQUANTIZED]
ADAPTERS = [cell for cell in UNQUANTIZED_CELLS if cell.method.saves == ADAPTER]


@pytest.mark.parametrize("cell", ADAPTERS, ids=str)
def test_a_run_goes_on_with_a_saved_adapter(
    cell: Cell, alone: Any, common: dict[str, Any], tmp_path: Path
) -> None:
    before = alone(cell)
    started = []

    def train(original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            started.append(model.eval()(input_ids=IDS, use_cache=False).logits)
        return original(model, *args, **kwargs)

    method = cell.method.flags.get("peft_method", "lora")
    with replaced_train(train):
        main(
            **common | {"use_peft": True, "peft_method": method},
            from_peft_checkpoint=str(before.saved),
            output_dir=str(tmp_path),
        )
    torch.testing.assert_close(started[0], before.tensors["logits"], atol=LOGITS, rtol=0)
    configs = [
        json.loads((f / "adapter_config.json").read_text()) for f in (before.saved, tmp_path)
    ]
    for config in configs:
        config["target_modules"] = sorted(config.get("target_modules") or [])
    assert configs[0] == configs[1]
    names = [load_file(f / "adapter_model.safetensors") for f in (before.saved, tmp_path)]
    assert names[0].keys() == names[1].keys()
    assert not any(names[1][name].equal(tensor) for name, tensor in names[0].items())


@pytest.mark.parametrize("wrong", ["missing", "unexpected"])
@pytest.mark.parametrize("cell", ADAPTERS, ids=str)
def test_an_adapter_that_is_not_whole_is_refused(
    cell: Cell,
    wrong: str,
    alone: Any,
    common: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """PEFT would draw what is lacking at random, and leave out what it does not know."""
    folder = shutil.copytree(alone(cell).saved, tmp_path / "saved")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    if wrong == "missing":
        tensors["another"] = tensors.pop(name)
        why = f"missing tensors: {name}; unexpected tensors: another"
    else:
        tensors[f"{name}.again"] = torch.zeros(1)
        why = f"unexpected tensors: {name}.again"
    save_file(tensors, path)
    flags = common | {"use_peft": True, "from_peft_checkpoint": str(folder)}
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(
            **flags,
            peft_method=cell.method.flags.get("peft_method", "lora"),
            output_dir=str(tmp_path / "run"),
        )
    said = capsys.readouterr()
    assert "1 problem found, nothing was started" in said.err and "Loading" not in said.err
    assert f"--from_peft_checkpoint {folder} does not match the base model" in said.err
    assert f"{why}\n" in said.err and "copy the adapter again" in said.err


def test_a_run_goes_on_with_rows_for_new_tokens(
    common: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    """They alone are saved, next to the adapter's own tensors."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<{number}>" for number in range(1003 - len(tokenizer))])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    flags = common | {"use_peft": True, "tokenizer_name": str(tmp_path / "tokenizer")}
    flags["train_new_tokens"] = True
    main(**flags, output_dir=str(tmp_path / "first"))
    main(**flags, from_peft_checkpoint=str(tmp_path / "first"), output_dir=str(tmp_path / "next"))
    names = [load_file(tmp_path / run / "adapter_model.safetensors") for run in ("first", "next")]
    assert names[0].keys() == names[1].keys()
    assert any(tensor.shape == (3, 64) for tensor in names[1].values())


def test_an_adapter_of_another_model_or_cut_off_is_refused(
    common: dict[str, Any], alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(alone(ADAPTERS[0]).saved, tmp_path / "saved")
    flags = common | {"use_peft": True, "output_dir": str(tmp_path / "run")}
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"target_modules": ["query_key_value"]}))
    with pytest.raises(SystemExit, match="2"):
        main(**flags, from_peft_checkpoint=str(folder))
    error = capsys.readouterr().err
    assert "does not match the base model" in error and "query_key_value" in error
    path.write_text(json.dumps(config))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SystemExit, match="2"):
        main(**flags, from_peft_checkpoint=str(folder))
    assert f"{weights} is not a complete safetensors file" in capsys.readouterr().err


@pytest.mark.parametrize("cell", UNQUANTIZED_CELLS, ids=str)
def test_a_run_is_resumed_exactly(
    cell: Cell, alone: Any, common: dict[str, Any], tmp_path: Path
) -> None:
    flags = common | cell.flags | {"save_steps": 2}
    fine_tune(flags, tmp_path / "straight")
    checkpoint = tmp_path / "straight/checkpoint-2"
    fine_tune(flags | {"resume_from_checkpoint": str(checkpoint)}, tmp_path / "resumed")
    straight, resumed = (load_file(tmp_path / run / TENSORS) for run in ("straight", "resumed"))
    assert resumed.keys() == straight.keys()
    assert all(resumed[name].equal(tensor) for name, tensor in straight.items())
    # checkpoints themselves change nothing
    assert all(straight[name].equal(tensor) for name, tensor in alone(cell).tensors.items())
