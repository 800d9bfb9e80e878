"""Checkpoints of what is on CUDA: every bit is written, and a resumed run equals a straight one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from llama_recipes_local.checkpoints import files, layout, verifying
from llama_recipes_local.checkpoints.reading import read_tensors
from llama_recipes_local.checkpoints.shards import TensorShard
from llama_recipes_local.checkpoints.writing import Content, Writer
from llama_recipes_local.finetuning import main

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"use_peft": True, "lora_dropout": 0.1},
    "4-bit LoRA": {"use_peft": True, "lora_dropout": 0.1, "quantization": "4bit"},
    "full": {},
}
STEPS, SAVED = 8, 4


def test_tensors_larger_than_a_block_are_written_completely(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "large": torch.randn(files.BLOCK // 2 + 5, device="cuda"),
        "turned": torch.randn(700, 300, device="cuda", dtype=torch.bfloat16).T,
        "flags": torch.tensor([True, False, True], device="cuda"),
        "on the host": torch.arange(9),
    }
    shards = [TensorShard(name, tensor, (0,) * tensor.dim()) for name, tensor in tensors.items()]
    path = tmp_path / "file.safetensors"
    entry = files.write_tensors(path, shards)
    assert entry == files.sync_and_hash(path)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    assert all(read[name].equal(tensor.cpu()) for name, tensor in tensors.items())


def test_a_step_does_not_change_what_was_copied(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.zeros(1 << 28, device="cuda"))  # a gibibyte: 20 ms to copy
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.SGD([weight], lr=1)
    writer = Writer(tmp_path, asynchronous=True)
    for step in (1, 2):  # the first one makes the memory that it copies to
        writer.save(Content(step, None, {"model": {"weight": weight}}, {}))
        optimizer.step()
        torch.cuda.synchronize()
    writer.finish()
    writer.close()
    for step in (1, 2):
        saved = torch.empty(weight.shape)
        read_tensors(layout.folder_of(tmp_path, step) / "model", {"weight": saved})
        assert saved.eq(1 - step).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("aside", [False, True], ids=["waiting", "async"])
def test_a_resumed_run_is_the_straight_one(
    method: str, aside: bool, tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    flags = METHODS[method] | {
        "model_name": str(tiny_model),
        "data_root": str(grammar_data),
        "dataset": "grammar_dataset",
        "batching_strategy": "padding",
        "context_length": 128,
        "batch_size_training": 10,
        "num_epochs": 2,
        "max_train_step": STEPS,
        "run_validation": False,
        "lr": 1e-3,
        "save_steps": SAVED,
        "async_save": aside,
    }
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    main(**flags, output_dir=str(straight), dist_checkpoint_root_folder=str(straight / "whole"))
    checkpoint = straight / f"checkpoint-{SAVED}"
    verifying.verify(checkpoint)
    flags |= {"resume_from_checkpoint": str(checkpoint), "output_dir": str(resumed)}
    main(**flags, dist_checkpoint_root_folder=str(resumed / "whole"))
    ours, theirs = losses(resumed), losses(straight)
    assert len(theirs) == STEPS
    # dropout that drew other numbers would differ by a thousandth and more
    assert ours[-SAVED:] == pytest.approx(theirs[-SAVED:], rel=1e-5)
    last = f"checkpoint-{STEPS}/model"
    for path in (straight / last).glob("*.safetensors"):
        again = load_file(resumed / last / path.name)
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(again[name], tensor, atol=1e-5, rtol=1e-2)


def losses(output: Path) -> list[float]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]
