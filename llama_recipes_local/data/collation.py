"""From rows to a batch of tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from llama_recipes_local.data.concatenator import IGNORE_INDEX


class PackedCollator:
    """Lays packed rows one after another in a single row: nothing is padded.

    A batch holds ``input_ids``, ``labels`` and ``position_ids``, each (1, tokens). A batch without
    rows, which a rank gets when the last rows do not go round, is one token without a label.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        rows = rows or [_blank(self.pad_token_id, "position_ids", 0)]
        return {
            key: torch.tensor([token for row in rows for token in row[key]]).unsqueeze(0)
            for key in ("input_ids", "labels", "position_ids")
        }


class PaddedCollator:
    """Pads rows to the longest one, with an attention mask, as transformers' collator does.

    A batch holds ``input_ids``, ``labels`` and ``attention_mask``, each (batch, longest).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.pad_token_id: int = tokenizer.pad_token_id  # type: ignore[assignment]
        self._collate = DataCollatorForSeq2Seq(tokenizer)

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        return self._collate(list(rows) or [_blank(self.pad_token_id, "attention_mask", 1)])


def _blank(pad_token_id: int, extra: str, value: int) -> dict[str, list[int]]:
    return {"input_ids": [pad_token_id], "labels": [IGNORE_INDEX], extra: [value]}
