"""Batches as the model takes them, also where a rank has no rows left."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from llama_recipes_local.data.collation import (
    Blank,
    BlankCollator,
    BlankRows,
    PackedCollator,
    PaddedCollator,
)
from llama_recipes_local.data.concatenator import IGNORE_INDEX, ConcatDataset

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


def test_padding_reaches_a_multiple_and_carries_no_label(tiny_model: Path) -> None:
    collate = PaddedCollator(AutoTokenizer.from_pretrained(tiny_model), multiple=8)
    batch = collate(PADDED_ROWS)
    assert {value.shape for value in batch.values()} == {(2, 8)}
    assert batch["input_ids"][0].tolist() == [5, 6, 7] + [PAD] * 5
    assert batch["labels"][0].tolist() == [IGNORE_INDEX, 6, 7] + [IGNORE_INDEX] * 5
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 2]


def test_a_row_may_have_a_mask(padded_collator: PaddedCollator) -> None:
    row = {"input_ids": [5, 6], "labels": [5, 6], "attention_mask": [0, 1]}
    assert padded_collator([row])["attention_mask"].tolist() == [[0, 1]]


def test_rows_without_a_mask_are_all_attended(padded_collator: PaddedCollator) -> None:
    rows = [{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7], "labels": [7]}]
    assert padded_collator(rows)["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_arrays_and_lists_give_the_same_batch() -> None:
    arrays = [{k: np.array(v, dtype=np.int32) for k, v in row.items()} for row in PACKED_ROWS]
    assert as_lists(PackedCollator(PAD)(arrays)) == as_lists(PackedCollator(PAD)(PACKED_ROWS))


def quickest(act: Callable[[], object]) -> float:
    """Return the least seconds of this thread's own that it takes."""
    times = []
    for _ in range(20):
        begin = time.thread_time()
        act()
        times.append(time.thread_time() - begin)
    return min(times)


def test_a_packed_batch_is_made_without_a_python_number_for_each_token() -> None:
    """That would take eight times as long."""
    ids = list(range(64))
    packed = ConcatDataset([{"input_ids": ids, "labels": ids}] * 256, chunk_size=4096)
    collate, rows = PackedCollator(PAD), packed.__getitems__([0, 1, 2, 3])
    assert collate(rows)["input_ids"].shape == (1, 4 * 4096)

    def of_numbers() -> None:
        for name in rows[0]:
            torch.tensor([number for row in rows for number in row[name].tolist()])

    batch = quickest(lambda: collate(packed.__getitems__([0, 1, 2, 3])))
    assert 2 * batch < quickest(of_numbers)


class Pictures:
    """A user's rows: not tokens, and not to be asked for at once."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, idx: int) -> tuple[str, int]:
        if type(idx) is not int:
            raise TypeError("one at a time")
        return f"picture {idx}", idx


def see(rows: list[tuple[str, int]]) -> dict[str, Any]:
    """A user's collator, which makes the labels itself and wants a row to make them of."""
    return {"names": [rows[0][0]], "labels": torch.tensor([[0, number] for _, number in rows])}


def test_a_custom_collator_is_never_called_without_rows() -> None:
    loader = DataLoader(
        BlankRows(Pictures()), batch_sampler=[[2, 1], []], collate_fn=BlankCollator(see)
    )
    whole, blank = loader
    assert whole["labels"].tolist() == [[0, 2], [0, 1]]
    assert blank["names"] == ["picture 0"]
    assert blank["labels"].tolist() == [[IGNORE_INDEX, IGNORE_INDEX]]


def test_rows_are_the_users_own() -> None:
    rows = BlankRows(Pictures())
    assert len(rows) == 3
    assert rows[1] == ("picture 1", 1)
    assert list(BlankRows([4, 5])) == [4, 5]
    assert rows.__getitems__([]) == [Blank(("picture 0", 0))]
    packed = ConcatDataset([{"input_ids": [5, 6], "labels": [5, 6]}], chunk_size=4)
    (row,) = BlankRows(packed).__getitems__([0])  # asked for at once, they come as arrays
    assert isinstance(row["input_ids"], np.ndarray)


def test_a_custom_collator_is_given_lists() -> None:
    packed = ConcatDataset([{"input_ids": [5, 6], "labels": [5, 6]}], chunk_size=4)
    given: list[Any] = []
    loader = DataLoader(
        packed, batch_sampler=[[0], []], collate_fn=BlankCollator(lambda rows: given.extend(rows))
    )
    assert list(loader) == [None, None]
    assert given == [
        {"input_ids": [5, 6], "labels": [IGNORE_INDEX, 6], "position_ids": [0, 1]},
        {"input_ids": [5], "labels": [IGNORE_INDEX], "position_ids": [0]},
    ]
