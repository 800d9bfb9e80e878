"""One by one, padded, packed: a real small Llama has the same loss on the same documents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from llama_recipes_local import models
from llama_recipes_local.data.collation import PackedCollator, PaddedCollator
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.training import batches

# Sums of the same 298 float32 terms in other orders: a spacing at 7 is 4.8e-7, which is seen.
TOLERANCE = 1e-5
RECORDED = 6.92241
"""The loss of these random weights on these documents; torch releases differ in the last digits."""
KERNELS = ("documents", "sdpa", "eager")
PAD = 2

Samples = list[dict[str, list[int]]]


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Twelve documents of unlike lengths; the labels begin after a prompt, and in three at once."""
    random = np.random.RandomState(0)
    made = []
    for index, length in enumerate((3, 90, 17, 41, 8, 64, 29, 5, 55, 33, 12, 70)):
        ids = random.randint(3, 1000, length).tolist()
        prompt = 0 if index % 4 == 0 else length // 3 + 1
        labels = [IGNORE_INDEX] * prompt + ids[prompt:]
        made.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * length})
    return made


@pytest.fixture(scope="module")
def make_model(tiny_model: Path) -> Callable[[str], nn.Module]:
    def make(kernel: str) -> nn.Module:
        return models.LlamaForCausalLM.from_pretrained(
            tiny_model, attn_implementation=kernel, dtype=torch.float32
        ).eval()

    return make


def loss_sum(model: nn.Module, batch: dict[str, Any]) -> tuple[float, int]:
    """Return the summed loss over a batch's label tokens, and their number."""
    with torch.no_grad():
        inputs = batches.prepare(batch, torch.device("cpu"))
        loss = model(**inputs, num_items_in_batch=1).loss
    return float(loss), batches.label_tokens(batch)


def one_by_one(model: nn.Module, samples: Samples) -> tuple[float, int]:
    """Return the mean loss of documents that are computed alone, and the label tokens."""
    losses = [
        loss_sum(model, {k: torch.tensor([sample[k]]) for k in ("input_ids", "labels")})
        for sample in samples
    ]
    count = sum(number for _, number in losses)
    return sum(loss for loss, _ in losses) / count, count


def padded(model: nn.Module, samples: Samples) -> tuple[float, int]:
    tokenizer = type("Tokenizer", (), {"pad_token_id": PAD})
    loss, count = loss_sum(model, PaddedCollator(tokenizer, 8)(samples))  # type: ignore[arg-type]
    return loss / count, count


def packed_row(samples: Samples) -> dict[str, torch.Tensor]:
    rows = ConcatDataset(samples, chunk_size=512)
    assert len(rows) == 1
    return PackedCollator(PAD)([rows[0]])


def packed(model: nn.Module, samples: Samples) -> tuple[float, int]:
    loss, count = loss_sum(model, packed_row(samples))
    return loss / count, count


def naively_packed(model: nn.Module, samples: Samples) -> tuple[float, int]:
    """Lay documents side by side and no more: they see one another, first tokens are labels."""
    ids = [token for sample in samples for token in sample["input_ids"]]
    labels = [token for sample in samples for token in sample["labels"]]
    batch = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
    loss, count = loss_sum(model, batch)
    return loss / count, count


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", [padded, packed])
def test_loss_is_that_of_documents_alone(
    make_model: Callable[[str], nn.Module],
    samples: Samples,
    kernel: str,
    layout: Callable[..., tuple[float, int]],
    record_property: Callable[[str, object], None],
) -> None:
    alone, count = one_by_one(make_model("eager"), samples)
    loss, counted = layout(make_model(kernel), samples)
    print(f"one by one {alone:.7f}, {layout.__name__} with {kernel} {loss:.7f}")
    record_property("one_by_one", alone)
    record_property(layout.__name__, loss)
    assert counted == count == 298
    assert alone == pytest.approx(RECORDED, abs=1e-4)
    assert abs(loss - alone) < TOLERANCE


@pytest.mark.parametrize("kernel", KERNELS)
def test_naive_packing_is_detected(
    make_model: Callable[[str], nn.Module], samples: Samples, kernel: str
) -> None:
    alone, count = one_by_one(make_model("eager"), samples)
    loss, counted = naively_packed(make_model(kernel), samples)
    print(f"one by one {alone:.7f}, naive with {kernel} {loss:.7f}")
    assert counted > count
    assert abs(loss - alone) > 10 * TOLERANCE


def test_each_half_of_naive_packing_is_detected(
    make_model: Callable[[str], nn.Module], samples: Samples
) -> None:
    model = make_model("documents")
    alone, count = one_by_one(make_model("eager"), samples)
    mingled = packed_row(samples)
    del mingled["position_ids"]
    loss, counted = loss_sum(model, mingled)
    assert counted == count and abs(loss / count - alone) > 10 * TOLERANCE
    firsts = packed_row(samples)
    firsts["labels"] = torch.where(
        firsts["position_ids"] == 0, firsts["input_ids"], firsts["labels"]
    )
    loss, counted = loss_sum(model, firsts)
    assert counted == count + 11 and abs(loss / counted - alone) > 10 * TOLERANCE
