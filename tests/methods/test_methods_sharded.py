"""Each method with each sharding at two ranks comes to what one process comes to, and is saved."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from methods import METHODS, SENTINELS, SPREAD, Method
from recording import LOGITS, reloaded_logits
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

# As in parallel/test_fsdp.py: ranks add gradients up in another order, and AdamW divides a gradient
# by its size, so an entry close to zero may be off by a part of a step of lr 1e-3 (of 16e-3 with
# LoRA+), while the mean difference is rounding.
LARGEST, MEAN = 1e-4, 3e-8


@pytest.mark.parametrize("sharding", SPREAD)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_two_ranks_train_what_one_process_trains(
    method: Method, sharding: str, alone: Any, two_ranks: Any
) -> None:
    ours, theirs = two_ranks(method, sharding), alone(method)
    assert ours.report == theirs.report
    tensors, expected = ours.tensors, theirs.tensors
    del tensors["logits"], expected["logits"]
    assert tensors.keys() == expected.keys()
    differences = {name: (tensor - expected[name]).abs() for name, tensor in tensors.items()}
    rate = method.flags.get("loraplus_lr_ratio", 1)
    assert max(float(difference.max()) for difference in differences.values()) < LARGEST * rate
    assert max(float(difference.mean()) for difference in differences.values()) < MEAN * rate


@pytest.mark.parametrize("sharding", SPREAD)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_two_ranks_save_says_the_same(
    method: Method, sharding: str, two_ranks: Any, tiny_model: Path
) -> None:
    run = two_ranks(method, sharding)
    again = reloaded_logits(method.saves, run.saved, tiny_model)
    torch.testing.assert_close(again, run.tensors["logits"], atol=LOGITS, rtol=0)


def rows_of_ranks(rows: int, ranks: int) -> list[float]:
    """Return the number of the rank that holds each row, as torch deals rows out."""
    share = -(-rows // ranks)
    return [float(row // share + 1) for row in range(rows)]


def assert_every_rank_was_saved(folder: Path, ranks: int, base: Path) -> None:
    saved = load_file(folder / "adapter_model.safetensors")
    assert saved
    for tensor in saved.values():
        held = [row.unique().tolist() for row in tensor]
        assert held == [[number] for number in rows_of_ranks(len(tensor), ranks)]
    loaded = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), folder)
    again = peft.get_peft_model_state_dict(loaded)
    assert again.keys() == saved.keys()
    assert all(again[name].equal(tensor) for name, tensor in saved.items())


@pytest.mark.parametrize("name", SENTINELS)
def test_every_one_of_two_ranks_is_saved(name: str, two_ranks: Any, tiny_model: Path) -> None:
    assert_every_rank_was_saved(two_ranks.folder / f"sentinels-{name}", 2, tiny_model)


@pytest.fixture(scope="module")
def four_ranks(sentinels: dict[str, Any], launch: Any) -> Path:
    return launch(
        4, {}, {name: flags | {"batch_size_training": 1} for name, flags in sentinels.items()}
    )


@pytest.mark.parametrize("name", SENTINELS)
def test_every_one_of_four_ranks_is_saved(name: str, four_ranks: Path, tiny_model: Path) -> None:
    assert_every_rank_was_saved(four_ranks / f"sentinels-{name}", 4, tiny_model)
