"""Quantised weights stay what they are when they are sharded, and train what one process does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fsdp import assert_same_steps, assert_same_weights

from llama_recipes_local import adapters, models
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve

NF4 = {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": True}


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("4bit", "4bit"),
        ("4bit-grad-op", "4bit"),
        ("4bit-hybrid", "4bit"),
        ("4bit-offloaded", "4bit"),
        ("4bit-kept-activations", "4bit"),
        ("4bit-replicated", "4bit"),
        ("8bit-replicated", "8bit"),
        ("paged", "paged"),
    ],
)
def test_two_ranks_train_the_adapter_of_one_process(
    two_ranks: Any, one_process: Callable[[str], Any], name: str, alone: str
) -> None:
    expected = one_process(alone)
    assert_same_steps(two_ranks[name], expected)
    assert_same_weights(two_ranks[name].adapter, expected.adapter)


def test_quantised_weights_give_losses_of_their_own(one_process: Callable[[str], Any]) -> None:
    first = {name: one_process(name).steps[0]["loss"] for name in ("lora", "4bit", "8bit")}
    # what 4 bits round away is seen in the third digit, 8 bits in the fourth or fifth
    assert abs(first["4bit"] - first["lora"]) > 1e-4
    assert abs(first["8bit"] - first["lora"]) > 1e-6


@pytest.mark.parametrize(("rank", "shares"), [(0, [3 / 5, 2 / 3]), (1, [1 / 3, 2 / 5])])
def test_packed_weights_are_gathered_to_the_bit(
    two_ranks: Any, rank: int, shares: list[float]
) -> None:
    report = json.loads((two_ranks["packed"].output / f"report-{rank}.json").read_text())
    expected = {"gathered_as": ["torch.float32"], "cast_to": ["None"]}
    uneven = expected | {"layers": 2, "shares": shares, "equal": [[True, True]] * 4}
    assert report.pop("uneven") == uneven
    expected["cast_to"] *= 3
    assert list(report) == ["float32", "bfloat16", "float16", "uint8"]
    for storage in report.values():
        assert storage == expected | {"layers": 14, "shares": [1 / 2], "equal": [[True, True]] * 28}


def test_an_adapter_trained_on_shards_is_reloaded(
    two_ranks: Any, one_process: Callable[[str], Any], tiny_model: Path
) -> None:
    ids = torch.arange(3, 40).unsqueeze(0)

    def logits(output: Path) -> torch.Tensor:
        with activate(resolve({"model_name": str(tiny_model), "use_peft": True, **NF4})):
            base = models.LlamaForCausalLM.from_pretrained(tiny_model)
        untrained = base(ids).logits
        model = adapters.PeftModel.from_pretrained(base, output).eval()
        trained = model(ids).logits
        assert not trained.equal(untrained)
        return trained.detach()

    ours, alone = logits(two_ranks["4bit"].output), logits(one_process("4bit").output)
    # adapters differ by test_fsdp's LARGEST at most, in some entries of those that 4 layers have
    assert torch.allclose(ours, alone, atol=1e-4)
