"""Every label token of a file is trained exactly once an epoch: counted, on 1, 2 and 3 ranks."""

from collections import Counter
from typing import Any

import pytest
from rank_batches import PAD, documents, labels_of, predicted
from torch.utils.data import DataLoader

from llama_recipes_local import configs
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.streaming import SampleStream
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.utils import config_utils

SAMPLES = documents(203)
EXPECTED = labels_of(SAMPLES)


def loader(
    monkeypatch: pytest.MonkeyPatch, rank: int, ranks: int, strategy: str, streamed: bool
) -> DataLoader[Any]:
    """Make a rank's batches as ``main`` does."""
    monkeypatch.setattr(config_utils, "rank", lambda: rank)
    monkeypatch.setattr(config_utils, "world_size", lambda: ranks)
    config = configs.train_config(
        batching_strategy=strategy,
        batch_size_training=2,
        context_length=100,
        enable_fsdp=True,
        max_train_step=1000,
        max_eval_step=1000,
        num_workers_dataloader=0,
    )
    passes: Any = lambda number: iter(SAMPLES)  # noqa: E731
    dataset: Any = SampleStream(passes) if streamed else TokenRows.from_samples(SAMPLES)
    if strategy == "packing":
        dataset = ConcatDataset(dataset, chunk_size=100)
    # a training stream repeats for as long as it is asked; validation is one pass of the file
    mode = "val" if streamed else "train"
    config.val_batch_size = config.batch_size_training
    tokenizer = type("Tokenizer", (), {"pad_token_id": PAD})
    return DataLoader(
        dataset, **config_utils.get_dataloader_kwargs(config, dataset, tokenizer, mode)
    )


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("strategy", ["packing", "padding"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_label_token_once_an_epoch(
    monkeypatch: pytest.MonkeyPatch, ranks: int, strategy: str, streamed: bool, epoch: int
) -> None:
    seen: Counter[int] = Counter()
    steps = []
    for rank in range(ranks):
        batches = loader(monkeypatch, rank, ranks, strategy, streamed)
        if not streamed:
            batches.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        taken = [predicted(batch) for batch in batches]
        steps.append(len(taken))
        for labels in taken:
            seen.update(labels)
    assert sum(EXPECTED.values()) > 3000
    assert seen == EXPECTED
    assert len(set(steps)) == 1
