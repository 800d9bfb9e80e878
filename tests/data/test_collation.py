"""Batches as the model takes them, also where a rank has no rows left."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from llama_recipes_local.data.collation import PackedCollator, PaddedCollator
from llama_recipes_local.data.concatenator import IGNORE_INDEX

PAD = 2
PACKED_ROWS = [
    {"input_ids": [5, 6, 7], "labels": [IGNORE_INDEX, 6, 7], "position_ids": [0, 1, 2]},
    {"input_ids": [8, 9], "labels": [IGNORE_INDEX, 9], "position_ids": [0, 1]},
]
PADDED_ROWS = [
    {"input_ids": [5, 6, 7], "labels": [IGNORE_INDEX, 6, 7], "attention_mask": [1, 1, 1]},
    {"input_ids": [8, 9], "labels": [IGNORE_INDEX, 9], "attention_mask": [1, 1]},
]


@pytest.fixture(scope="module")
def padded_collator(tiny_model: Path) -> PaddedCollator:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert tokenizer.pad_token_id == PAD
    return PaddedCollator(tokenizer)


def as_lists(batch: dict[str, torch.Tensor]) -> dict[str, list[list[int]]]:
    return {key: value.tolist() for key, value in batch.items()}


def test_packed_rows_lie_one_after_another() -> None:
    assert as_lists(PackedCollator(PAD)(PACKED_ROWS)) == {
        "input_ids": [[5, 6, 7, 8, 9]],
        "labels": [[IGNORE_INDEX, 6, 7, IGNORE_INDEX, 9]],
        "position_ids": [[0, 1, 2, 0, 1]],
    }


def test_padded_rows_reach_the_longest(padded_collator: PaddedCollator) -> None:
    assert as_lists(padded_collator(PADDED_ROWS)) == {
        "input_ids": [[5, 6, 7], [8, 9, PAD]],
        "labels": [[IGNORE_INDEX, 6, 7], [IGNORE_INDEX, 9, IGNORE_INDEX]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
    }


def test_packed_batch_without_rows_is_one_token_without_a_label() -> None:
    batch = PackedCollator(PAD)([])
    assert as_lists(batch) == {
        "input_ids": [[PAD]],
        "labels": [[IGNORE_INDEX]],
        "position_ids": [[0]],
    }


def test_padded_batch_without_rows_is_one_token_without_a_label(
    padded_collator: PaddedCollator,
) -> None:
    batch = padded_collator([])
    assert as_lists(batch) == {
        "input_ids": [[PAD]],
        "labels": [[IGNORE_INDEX]],
        "attention_mask": [[1]],
    }


def test_all_tensors_are_long(padded_collator: PaddedCollator) -> None:
    for batch in (PackedCollator(PAD)(PACKED_ROWS), padded_collator(PADDED_ROWS)):
        assert {value.dtype for value in batch.values()} == {torch.int64}
