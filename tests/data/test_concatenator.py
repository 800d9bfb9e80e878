"""Packing keeps every token once and every document to itself."""

import pickle
import random
from collections.abc import Sequence
from itertools import chain, pairwise, permutations
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llama_recipes_local import configs
from llama_recipes_local._upstream import VENDORED_DIR
from llama_recipes_local.data.concatenator import IGNORE_INDEX, ConcatDataset
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets import get_grammar_dataset
from llama_recipes_local.run import activate, resolution

CHUNK = 64


def documents(lengths: Sequence[int]) -> list[dict[str, list[int]]]:
    """Make documents of the given lengths in which no two tokens are equal."""
    tokens = iter(range(sum(lengths)))
    made = []
    for length in lengths:
        ids = [next(tokens) for _ in range(length)]
        prompt = length // 2
        made.append({"input_ids": ids, "labels": [IGNORE_INDEX] * prompt + ids[prompt:]})
    return made


def random_lengths(count: int, longest: int) -> list[int]:
    return random.Random(0).choices(range(1, longest + 1), k=count)


def starts(row: dict[str, list[int]]) -> list[int]:
    return [i for i, position in enumerate(row["position_ids"]) if position == 0]


def test_every_token_is_kept_exactly_once() -> None:
    lengths = random_lengths(200, CHUNK)
    packed = ConcatDataset(documents(lengths), CHUNK)
    kept = chain.from_iterable(row["input_ids"] for row in packed)
    assert sorted(kept) == list(range(sum(lengths)))


def test_documents_stay_whole_and_in_order() -> None:
    made = documents(random_lengths(200, CHUNK))
    packed = ConcatDataset(made, CHUNK)
    pieces = []
    for row in packed:
        bounds = [*starts(row), len(row["input_ids"])]
        pieces += [row["input_ids"][start:end] for start, end in pairwise(bounds)]
    assert sorted(pieces) == [document["input_ids"] for document in made]


def test_positions_restart_with_each_document() -> None:
    packed = ConcatDataset(documents([3, 2, 4]), chunk_size=9)
    assert [row["position_ids"] for row in packed] == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]


def test_labels_are_the_documents_own_but_for_the_first_token() -> None:
    ids = [5, 6, 7]
    packed = ConcatDataset([{"input_ids": ids, "labels": ids}] * 2, chunk_size=6)
    assert packed[0]["labels"] == [IGNORE_INDEX, 6, 7, IGNORE_INDEX, 6, 7]


def test_no_row_is_longer_than_a_chunk() -> None:
    packed = ConcatDataset(documents(random_lengths(200, 3 * CHUNK)), CHUNK)
    assert len(packed) > 50
    assert max(len(row["input_ids"]) for row in packed) <= CHUNK


def test_fields_of_a_row_have_one_length() -> None:
    packed = ConcatDataset(documents(random_lengths(50, 3 * CHUNK)), CHUNK)
    for row in packed:
        assert len({len(values) for values in row.values()}) == 1


def test_long_texts_are_split_into_rows_and_every_label_stays_one() -> None:
    ids = list(range(2 * CHUNK + 5))
    packed = ConcatDataset([{"input_ids": ids, "labels": ids}], CHUNK)
    # a row begins with the last token of the one before, to predict its second from
    assert sorted(len(row["input_ids"]) for row in packed) == [7, CHUNK, CHUNK]
    labels = chain.from_iterable(row["labels"] for row in packed)
    assert sorted(label for label in labels if label != IGNORE_INDEX) == ids[1:]
    assert all(starts(row) == [0] for row in packed)


def test_long_documents_with_a_prompt_keep_their_response(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (document,) = documents([CHUNK + 10])
    packed = ConcatDataset([document, *documents([3])], CHUNK + 3)
    assert "truncating 1 documents longer than 67 tokens" in capsys.readouterr().out
    labels = set(chain.from_iterable(row["labels"] for row in packed))
    assert labels > {label for label in document["labels"] if label != IGNORE_INDEX}


def test_token_rows_are_not_copied() -> None:
    rows = TokenRows.from_samples(documents(random_lengths(50, CHUNK)))
    assert ConcatDataset(rows, CHUNK).documents is rows
    assert ConcatDataset(rows, CHUNK // 2).documents is not rows
    assert rows.arrays(0)[0].base is not None


def test_rows_of_a_batch_are_the_items_as_arrays() -> None:
    packed = ConcatDataset(documents(random_lengths(50, CHUNK)), CHUNK)
    assert [
        {key: values.tolist() for key, values in row.items()} for row in packed.__getitems__([3, 0])
    ] == [packed[3], packed[0]]


def test_a_rank_without_rows_gets_one_that_predicts_nothing() -> None:
    (row,) = ConcatDataset(documents([5, 4]), CHUNK).__getitems__([])
    assert [values.tolist() for values in row.values()] == [[0], [IGNORE_INDEX], [0]]


def test_rows_are_counted_from_the_end_too() -> None:
    packed = ConcatDataset(documents([5, 4]), 5)
    assert packed[-1] == packed[1] != packed[0]


@pytest.mark.parametrize("idx", [2, -3])
def test_a_missing_row_is_an_error(idx: int) -> None:
    with pytest.raises(IndexError, match="of 2"):
        ConcatDataset(documents([5, 4]), 5)[idx]


def test_seed_is_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = documents(random_lengths(200, CHUNK))

    def rows(**kwargs: int) -> list[dict[str, list[int]]]:
        return list(ConcatDataset(made, CHUNK, **kwargs))

    assert rows() == rows(seed=42) != rows(seed=7)
    assert rows(seed=0) != rows()
    with activate(resolution.Run({}, train=configs.train_config(seed=7))):
        assert rows() == rows(seed=7)


def test_workers_get_the_same_rows() -> None:
    packed = ConcatDataset(documents([5, 4]), CHUNK)
    assert list(pickle.loads(pickle.dumps(packed))) == list(packed)


def test_packing_follows_from_the_data_and_the_seed_alone() -> None:
    made = documents(random_lengths(200, CHUNK))
    random.seed(1)
    first = ConcatDataset(made, CHUNK)
    random.seed(2)
    second = ConcatDataset(made, CHUNK)
    assert [first[i] for i in range(len(first))] == [second[i] for i in range(len(second))]


@pytest.mark.parametrize("lengths", permutations([6, 5, 4]))
def test_each_document_goes_longest_first_into_the_fullest_row_that_holds_it(
    lengths: Sequence[int],
) -> None:
    # 6 and 5 open rows with 4 and 5 positions left; 4 fits both, and the first exactly
    packed = ConcatDataset(documents(lengths), chunk_size=10)
    assert sorted(len(row["input_ids"]) for row in packed) == [5, 10]


def test_reading_a_row_changes_nothing() -> None:
    packed = ConcatDataset(documents([3, 2]), chunk_size=5)
    first = {key: list(values) for key, values in packed[0].items()}
    packed[0]["labels"].clear()
    assert packed[0] == first


@pytest.mark.parametrize("samples", [[], [{"input_ids": [], "labels": []}]])
def test_nothing_to_pack_is_an_error(samples: list[dict[str, list[int]]]) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        ConcatDataset(samples, CHUNK)


def test_used_is_the_share_of_positions_with_a_token() -> None:
    assert ConcatDataset(documents([4, 4, 2]), chunk_size=8).used == 10 / 16


@pytest.mark.slow
def test_real_grammar_data_fills_its_rows(tiny_model: Path) -> None:
    train = VENDORED_DIR / "datasets/grammar_dataset/gtrain_10k.csv"
    config = configs.grammar_dataset(train_split=str(train))
    samples = get_grammar_dataset(config, AutoTokenizer.from_pretrained(tiny_model))
    assert len(samples) > 13_000
    packed = ConcatDataset(samples, chunk_size=4096)
    assert packed.used >= 0.995
    tokens = sum(len(packed[i]["input_ids"]) for i in range(len(packed)))
    assert tokens == sum(len(sample["input_ids"]) for sample in samples)
