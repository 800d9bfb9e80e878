"""Runs go on: with any saved adapter, and from a checkpoint of any method."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import ADAPTER, TRAINED_ALONE, WHOLE_WEIGHTS, Cell
from recording import IDS, LOGITS, TENSORS, fine_tune, replaced_train
from safetensors.torch import load_file

from llama_recipes_local.finetuning import main

IN_WHOLE_WEIGHTS = [cell for cell in TRAINED_ALONE if cell.quantization == WHOLE_WEIGHTS]
ADAPTERS = [cell for cell in IN_WHOLE_WEIGHTS if cell.method.saves == ADAPTER]


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


@pytest.mark.parametrize("cell", IN_WHOLE_WEIGHTS, ids=str)
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
