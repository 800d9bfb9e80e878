"""A model's losses on the texts for forgetting; ``evaluate`` and a run's end ask for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.benchmark_tasks.forgetting_texts import KINDS, texts
from llama_recipes_local.datasets.token_ids import begun, text_ids


def rows_of_texts(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Return each text's ids, by its kind and number."""
    return {
        f"{kind} {number}": ids
        for kind in KINDS
        for number, ids in enumerate(
            text_ids(tokenizer, [begun(text, tokenizer) for text in texts(kind)])
        )
    }


@torch.no_grad()
def loss_of_row(model: Any, row: Sequence[int]) -> float:
    """Return the losses of all tokens but the first, summed."""
    ids = torch.tensor([row], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1]
    return float(F.cross_entropy(logits.float(), ids[0, 1:], reduction="sum"))


def perplexity_of(losses: Mapping[str, float], rows: Mapping[str, Sequence[int]]) -> float:
    """Return the perplexity of all texts."""
    return perplexity(sum(losses.values()) / sum(len(rows[key]) - 1 for key in losses))


def general_perplexity(model: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
    """Return the perplexity of all texts; None where one is longer than the model's positions.

    The model is left as it was. With FSDP all ranks call it together.
    """
    rows = rows_of_texts(tokenizer)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and max(map(len, rows.values())) > positions:
        return None
    training = model.training
    model.eval()
    try:
        losses = {key: loss_of_row(model, row) for key, row in rows.items()}
    finally:
        model.train(training)
    return perplexity_of(losses, rows)
