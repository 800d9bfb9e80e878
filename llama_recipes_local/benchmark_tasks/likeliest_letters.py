"""Finds which of four answer letters a model considers most likely after a prompt."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import log_softmax
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.benchmark_tasks.tasks import LETTERS
from llama_recipes_local.datasets.token_ids import begun, text_ids


class _Continuation(NamedTuple):
    """A letter after a prompt: which question, which letter, its tokens and their places."""

    question: int
    letter: int
    ids: tuple[int, ...]
    start: int


Rows = dict[tuple[int, ...], list[_Continuation]]
"""What the model reads, and the letters whose probability it says; most often all four."""


class Choices:
    """The prompts of questions in tokens; equal rows of tokens are computed once.

    Attributes:
        truncated: how many questions were too long for the model and lost their beginning.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], positions: int | None
    ) -> None:
        """Tokenise the prompts.

        Args:
            tokenizer: the model's.
            prompts: the texts, without a begin token.
            positions: the most tokens that the model reads; None for no limit.
        """
        texts = [begun(prompt, tokenizer) for prompt in prompts]
        before = [len(each) for each in text_ids(tokenizer, texts)]
        self._questions = len(prompts)
        self._rows: Rows = defaultdict(list)
        cut: set[int] = set()
        for letter, name in enumerate(LETTERS):
            whole = text_ids(tokenizer, [f"{text} {name}" for text in texts])
            for question, (ids, start) in enumerate(zip(whole, before, strict=True)):
                if positions is not None and len(ids) > positions + 1:
                    cut.add(question)
                    start -= len(ids) - (positions + 1)
                    ids = ids[-(positions + 1) :]
                told = _Continuation(question, letter, tuple(ids[start:]), start)
                self._rows[tuple(ids[:-1])].append(told)
        self.truncated = len(cut)

    def tokens(self) -> set[int]:
        """Return all token ids."""
        found = {token for row in self._rows for token in row}
        return found | {each.ids[-1] for told in self._rows.values() for each in told}

    def answers(self, model: Any, batch_size: int, padding: int) -> list[str]:
        """Return the likeliest letter of each question; of two equally likely ones the first.

        Args:
            model: the model, with an adapter or without.
            batch_size: rows at a time.
            padding: a token that fills shorter rows; its outputs are not read.
        """
        scores = torch.zeros(self._questions, len(LETTERS), dtype=torch.float64)
        longest_first = sorted(self._rows, key=lambda row: (-len(row), row))
        with tqdm(total=len(longest_first), desc="questions", leave=False, disable=None) as bar:
            for first in range(0, len(longest_first), batch_size):
                batch = longest_first[first : first + batch_size]
                self._score(model, batch, padding, scores)
                bar.update(len(batch))
        return [LETTERS[place] for place in scores.argmax(1).tolist()]

    @torch.no_grad()
    def _score(
        self, model: Any, batch: list[tuple[int, ...]], padding: int, scores: torch.Tensor
    ) -> None:
        """Fill in the log-probabilities of the letters after a batch's rows."""
        told = [(row, each) for row, ids in enumerate(batch) for each in self._rows[ids]]
        places = sorted({place for _, each in told for place in _predicted(each)})
        width = len(batch[0])
        padded = [[*row, *[padding] * (width - len(row))] for row in batch]
        read = [[1] * len(row) + [0] * (width - len(row)) for row in batch]
        logits = model(  # (rows, places, vocabulary)
            input_ids=torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(read, device=model.device),
            logits_to_keep=torch.tensor(places, device=model.device),
            use_cache=False,
        ).logits
        found = log_softmax(logits, -1, dtype=torch.float32).cpu()
        at = {place: number for number, place in enumerate(places)}
        for row, each in told:
            columns = [at[place] for place in _predicted(each)]
            scores[each.question, each.letter] = found[row, columns, each.ids].double().sum()


def _predicted(each: _Continuation) -> range:
    """Return the positions whose outputs predict a letter's tokens."""
    return range(each.start - 1, each.start - 1 + len(each.ids))
