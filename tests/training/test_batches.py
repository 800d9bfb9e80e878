"""What a batch holds: documents without their padding, and rows that can be looked up later."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from llama_recipes_local.data.batch_sampler import ShardedBatchSampler
from llama_recipes_local.training import batches, step_sync
from llama_recipes_local.training.batches import document_lengths, in_steps, rows_of
from llama_recipes_local.training.step_sync import StepSync, sync_step

PACKED = {
    "input_ids": torch.arange(6).unsqueeze(0),
    "labels": torch.tensor([[-100, 1, -100, -100, 4, 5]]),
    "position_ids": torch.tensor([[0, 1, 0, 1, 2, 3]]),
}
PADDED = {
    "input_ids": torch.zeros(2, 5, dtype=torch.long),
    "labels": torch.tensor([[7, 7, -100, -100, -100], [7] * 5]),
    "attention_mask": torch.tensor([[1, 1, 0, 0, 0], [1] * 5]),
}


def test_documents_are_found_from_positions_or_padding() -> None:
    assert document_lengths(PACKED).tolist() == [2, 4]
    assert document_lengths(PADDED).tolist() == [2, 5]
    assert document_lengths({"input_ids": torch.zeros(3, 4)}).tolist() == [4, 4, 4]


def test_a_step_adds_up_its_micro_batches() -> None:
    assert sync_step([PACKED, PADDED], report=False) == StepSync(
        label_tokens=3 + 1 + 4,
        tokens=16,
        real_tokens=13,
        squared_lengths=4 + 16 + 4 + 25,
        report=False,
    )
    assert sync_step([PACKED], report=True).report


@pytest.mark.parametrize("other", [{"report": True}, {"stop": True}, {"written": True}, {}])
def test_one_rank_is_enough_to_stop_or_report_and_all_must_have_written(
    other: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("report", "stop", "written")
    counts = torch.tensor([8, 10, 9, 30, *(other.get(name, False) for name in names)])
    monkeypatch.setattr(step_sync, "all_reduce_sum", lambda own: own + counts)
    monkeypatch.setattr(step_sync, "world_size", lambda: 2)
    for written in (False, True):
        found = sync_step([PACKED], report=False, written=written)
        assert (found.label_tokens, found.tokens) == (3 + 8, 6 + 10)
        assert (found.report, found.stop) == ("report" in other, "stop" in other)
        assert found.written == (written and "written" in other)


def test_rows_are_known_although_workers_prefetch() -> None:
    sampler = ShardedBatchSampler(20, batch_size=3, seed=1)
    sampler.set_epoch(2)
    loader = DataLoader(list(range(20)), batch_sampler=sampler)
    seen = [batch.tolist() for batch in loader]
    assert [rows_of(loader, number) for number in range(len(seen))] == seen
    assert rows_of(loader, len(seen)) is None


def test_rows_of_an_order_that_cannot_be_repeated_are_unknown() -> None:
    assert rows_of(DataLoader(list(range(20)), batch_size=3, shuffle=True), 0) is None
    assert rows_of([{"input_ids": torch.zeros(1, 1)}], 0) is None


def test_the_wait_for_a_steps_data_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(batches.time, "perf_counter", lambda: now[0])

    def slow() -> Iterator[dict[str, Any]]:
        for seconds in (1.0, 2.0, 4.0):
            now[0] += seconds
            yield {}

    waits = []
    for _, waited in in_steps(slow(), 2):
        now[0] += 100.0  # the step itself
        waits.append(waited)
    assert waits == [3.0, 4.0]
