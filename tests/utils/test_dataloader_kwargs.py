"""How ``main``'s loaders batch: streams, a user's own rows and collator, workers, padding."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from llama_recipes_local import configs
from llama_recipes_local.data.batch_sampler import LengthGroupedBatchSampler, ShardedBatchSampler
from llama_recipes_local.data.collation import BlankCollator, BlankRows
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.streaming import PackedStream, SampleStream
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.errors import UsageError
from llama_recipes_local.run import activate, resolution
from llama_recipes_local.utils import config_utils, dataset_utils

get_dataloader_kwargs = config_utils.get_dataloader_kwargs
SAMPLES = [{"input_ids": [5] * n, "labels": [5] * n} for n in (3, 9, 4, 7, 5)]
USERS_FILE = """
import torch
from torch.utils.data import IterableDataset

class Stream(IterableDataset):
    def __iter__(self):
        return iter([{"input_ids": [5] * n, "labels": [5] * n} for n in (3, 9, 4, 7, 5)])

def get_custom_dataset(dataset_config, tokenizer, split):
    return list(Stream())

def get_stream(dataset_config, tokenizer, split):
    return Stream()

def get_data_collator(tokenizer):
    return lambda rows: {"labels": torch.tensor([row["labels"][:2] for row in rows])}
"""


class Tokenizer:
    pad_token_id = 0


def config(**fields: Any) -> Any:
    return configs.train_config(**{"context_length": 16, "num_workers_dataloader": 0} | fields)


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(USERS_FILE)
    return file


def loader(train_config: Any, dataset: Any, mode: str = "train", **more: Any) -> DataLoader[Any]:
    kwargs = get_dataloader_kwargs(train_config, dataset, Tokenizer(), mode) | more
    return DataLoader(dataset, **kwargs)


def opened(number: int) -> Iterator[dict[str, list[int]]]:
    return iter(SAMPLES)


@pytest.mark.parametrize("strategy", ["packing", "padding"])
def test_a_stream_gives_as_many_batches_as_the_steps_take(strategy: str) -> None:
    train_config = config(
        batching_strategy=strategy,
        max_train_step=3,
        gradient_accumulation_steps=2,
        max_eval_step=4,
        batch_size_training=2,
    )
    dataset: Any = SampleStream(opened)
    if strategy == "packing":
        dataset = ConcatDataset(dataset, chunk_size=16)
    batches = loader(train_config, dataset)
    assert len(batches) == len(dataset) == 6
    taken = list(batches)
    assert len(taken) == 6
    expected = {"input_ids", "labels"} | (
        {"position_ids"} if strategy == "packing" else {"attention_mask"}
    )
    assert all(batch.keys() == expected for batch in taken)
    assert {len(batch["labels"]) for batch in taken} == {1 if strategy == "packing" else 2}


def test_validation_reads_a_stream_once_and_always_alike() -> None:
    train_config = config(max_train_step=1, max_eval_step=100, val_batch_size=2)
    batches = loader(train_config, ConcatDataset(SampleStream(opened), 16), "val")
    first = [batch["input_ids"].shape[1] for batch in batches]
    assert sum(first) == 28
    assert [batch["input_ids"].shape[1] for batch in batches] == first


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"max_eval_step": 1}, ["--max_train_step"]),
        ({"max_train_step": 1}, ["--max_eval_step"]),
        ({}, ["--max_train_step", "--max_eval_step"]),
        ({"run_validation": False}, ["--max_train_step"]),
    ],
)
def test_a_stream_without_an_end_is_a_usage_error(
    fields: dict[str, Any], missing: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        loader(config(**fields), SampleStream(opened))
    assert [problem.what.split()[-1] for problem in caught.value.problems] == missing


@pytest.mark.parametrize("strategy", ["packing", "padding"])
def test_workers_prefetch_and_persist(strategy: str) -> None:
    def kwargs(workers: int, dataset: Any) -> dict[str, Any]:
        train_config = config(
            batching_strategy=strategy,
            num_workers_dataloader=workers,
            max_train_step=1,
            max_eval_step=1,
        )
        given = get_dataloader_kwargs(train_config, dataset, Tokenizer(), "train")
        return {k: v for k, v in given.items() if k in ("prefetch_factor", "persistent_workers")}

    rows = TokenRows.from_samples(SAMPLES)
    with activate(resolution.Run({})):
        assert kwargs(0, rows) == {}
        assert kwargs(2, rows) == {"prefetch_factor": 4, "persistent_workers": True}
        # a persistent worker would not learn where a resumed stream begins
        stream = {"prefetch_factor": 4, "persistent_workers": False}
        assert kwargs(2, SampleStream(opened)) == stream
    assert kwargs(2, rows) == {}  # who calls it elsewhere may have no workers


@pytest.mark.parametrize(
    ("device", "fields", "multiple"),
    [
        ("cuda", {}, 8),
        ("cuda", {"dtype": "bfloat16", "mixed_precision": False}, 8),
        ("cuda", {"dtype": "float32"}, 8),
        ("cuda", {"dtype": "float32", "mixed_precision": False}, 1),
        ("cpu", {}, 1),
    ],
)
def test_padding_suits_the_hardware(
    monkeypatch: pytest.MonkeyPatch, device: str, fields: dict[str, Any], multiple: int
) -> None:
    monkeypatch.setattr(config_utils, "device_type", lambda: device)
    train_config = config(batching_strategy="padding", batch_size_training=5, **fields)
    (batch,) = loader(train_config, SAMPLES)
    assert batch["input_ids"].shape == (5, 16 if multiple == 8 else 9)


def test_lengths_are_the_rows_own() -> None:
    class Rows(list[Any]):
        lengths = (1, 2, 3, 4, 5)

    given = get_dataloader_kwargs(
        config(batching_strategy="padding"), Rows(SAMPLES), Tokenizer(), "train"
    )
    assert given["batch_sampler"].lengths.tolist() == [1, 2, 3, 4, 5]
    given = get_dataloader_kwargs(
        config(batching_strategy="padding"), SAMPLES, Tokenizer(), "train"
    )
    assert given["batch_sampler"].lengths.tolist() == [3, 9, 4, 7, 5]


def test_validation_has_its_own_batch_in_the_datas_order() -> None:
    train_config = config(
        batching_strategy="padding", batch_size_training=2, val_batch_size=3, length_group_size=4
    )
    samplers = [
        get_dataloader_kwargs(train_config, SAMPLES, Tokenizer(), mode)["batch_sampler"]
        for mode in ("train", "val")
    ]
    assert [(each.batch_size, each.shuffle) for each in samplers] == [(2, True), (3, False)]
    # rows that are sorted by length together
    assert [each.state_dict(0)["group"] for each in samplers] == [4, 3]
    assert list(samplers[1]) == [[0, 2, 1], [3, 4]]


def test_rows_without_tokens_are_shuffled_with_a_notice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pictures = [{"image": number} for number in range(5)]
    given = get_dataloader_kwargs(
        config(batching_strategy="padding"), pictures, Tokenizer(), "train"
    )
    assert type(given["batch_sampler"]) is ShardedBatchSampler
    assert not isinstance(given["batch_sampler"], LengthGroupedBatchSampler)
    assert "no input_ids" in capsys.readouterr().out


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(ValueError, match="Unknown batching strategy: sorting"):
        get_dataloader_kwargs(config(batching_strategy="sorting"), SAMPLES, Tokenizer(), "train")


def test_a_users_rows_and_collator_never_meet_an_empty_batch(
    users_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_utils, "world_size", lambda: 2)
    monkeypatch.setattr(config_utils, "rank", lambda: 1)
    dataset_config = configs.custom_dataset(file=str(users_file))
    rows = dataset_utils.get_preprocessed_dataset(Tokenizer(), dataset_config)
    collate = dataset_utils.get_custom_data_collator(Tokenizer(), dataset_config)
    assert isinstance(rows, BlankRows) and isinstance(collate, BlankCollator)
    train_config = config(batching_strategy="padding", batch_size_training=4, enable_fsdp=True)
    (batch,) = loader(train_config, rows, collate_fn=collate)
    assert batch["labels"].tolist() == [[5, 5]]
    train_config.batch_size_training = 5  # all for the first rank
    (batch,) = loader(train_config, rows, collate_fn=collate)
    assert batch["labels"].tolist() == [[-100, -100]]
    (batch,) = loader(train_config, rows)
    assert torch.equal(batch["labels"], torch.full((1, 3), -100))


def test_a_users_stream_has_the_runs_length(users_file: Path) -> None:
    dataset_config = configs.custom_dataset(file=f"{users_file}:get_stream")
    train = config(max_train_step=3, gradient_accumulation_steps=2, max_eval_step=7)
    with activate(resolution.Run({}, train=train)):
        stream = dataset_utils.get_preprocessed_dataset(Tokenizer(), dataset_config)
        assert len(stream) == 6
        validation = dataset_utils.get_preprocessed_dataset(Tokenizer(), dataset_config, "test")
        assert len(validation) == 7
        assert type(ConcatDataset(stream, 16)) is PackedStream
        train.max_train_step = 0
        with pytest.raises(UsageError, match="--max_train_step"):
            dataset_utils.get_preprocessed_dataset(Tokenizer(), dataset_config)
