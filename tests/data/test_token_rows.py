import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from llama_recipes_local.data import token_rows
from llama_recipes_local.data.token_rows import IGNORE_INDEX, SCHEMA, Chunk, TokenRows

SAMPLES = [
    {"input_ids": [1, 5, 6, 2], "labels": [IGNORE_INDEX, IGNORE_INDEX, 6, 2]},
    {"input_ids": [7], "labels": [7]},
    {"input_ids": [1, 5, 6, 2], "labels": [1, 5, 6, 2]},
    {"input_ids": [1, 6, 5, 2], "labels": [IGNORE_INDEX] * 4},
]


@pytest.fixture
def rows() -> TokenRows:
    return TokenRows.from_samples(SAMPLES)


@pytest.fixture
def mapped(tmp_path: Path) -> TokenRows:
    with pa.ipc.new_file(tmp_path / "rows.arrow", SCHEMA) as writer:
        for part in (SAMPLES[:2], SAMPLES[2:]):
            ids, labels = ([sample[key] for sample in part] for key in ("input_ids", "labels"))
            writer.write_batch(Chunk.of(ids, labels).batch())
    return TokenRows.open(tmp_path / "rows.arrow")


def test_a_view_of_a_column_is_what_arrow_makes_of_it() -> None:
    for column in (pa.array([3, 1, 2], pa.int32()), pa.array([2**63, 5], pa.uint64())):
        for part in (column, column[1:], column[:0]):
            view = token_rows._view(part)
            assert view.dtype == part.to_numpy().dtype
            assert view.tolist() == part.to_pylist()
    with pytest.raises(ValueError, match="nulls"):
        token_rows._view(pa.array([1, None], pa.int32()))


@pytest.mark.parametrize("kind", ["rows", "mapped"])
def test_items_are_the_samples_with_a_mask(kind: str, request: pytest.FixtureRequest):
    rows: TokenRows = request.getfixturevalue(kind)
    assert [rows[index] for index in range(len(rows))] == [
        {**sample, "attention_mask": [1] * len(sample["input_ids"])} for sample in SAMPLES
    ]
    assert rows[-1]["input_ids"] == SAMPLES[-1]["input_ids"]
    with pytest.raises(IndexError):
        rows[4]


def test_lengths_and_labels_are_counted(mapped: TokenRows):
    assert mapped.lengths.tolist() == [4, 1, 4, 4]
    # the first token of a row is predicted from nothing, so it is no label
    assert mapped.label_counts.tolist() == [2, 0, 3, 0]


def test_equal_ids_have_equal_digests_and_the_order_counts(rows: TokenRows):
    digests = rows.digests
    assert digests[0] == digests[2]
    assert len(np.unique(digests)) == 3


def test_mapped_rows_are_not_copied(mapped: TokenRows):
    ids, _ = mapped.arrays(2)
    assert not ids.flags.owndata
    assert pa.total_allocated_bytes() == 0 or ids.base is not None


@pytest.mark.parametrize("kind", ["rows", "mapped"])
def test_rows_survive_pickling(kind: str, request: pytest.FixtureRequest):
    rows: TokenRows = request.getfixturevalue(kind)
    copied = pickle.loads(pickle.dumps(rows))
    assert [copied[index] for index in range(4)] == [rows[index] for index in range(4)]


def test_a_mapped_file_is_pickled_by_its_path(mapped: TokenRows):
    assert len(pickle.dumps(mapped)) < 500


def test_no_rows_at_all():
    rows = TokenRows.from_samples([])
    assert len(rows) == 0
    assert rows.label_counts.tolist() == rows.digests.tolist() == rows.lengths.tolist() == []


def test_a_row_without_tokens_has_no_label():
    rows = TokenRows.from_samples([SAMPLES[0], {"input_ids": [], "labels": []}, SAMPLES[2]])
    assert rows.lengths.tolist() == [4, 0, 4]
    assert rows.label_counts.tolist() == [2, 0, 3]


def test_many_rows_are_held_in_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_rows, "ROWS_PER_BATCH", 2)
    made = []
    monkeypatch.setattr(TokenRows, "__init__", lambda self, batches: made.extend(batches))
    TokenRows.from_samples([*SAMPLES, SAMPLES[0]])
    assert [batch.num_rows for batch in made] == [2, 2, 1]
    ids = [row for batch in made for row in batch.column("input_ids").to_pylist()]
    assert ids == [sample["input_ids"] for sample in [*SAMPLES, SAMPLES[0]]]
