"""Finds tokens that a model was not trained on, before the model is loaded.

A tokenizer may have more tokens than its model has rows, tokens whose rows the model's own
tokenizer leaves unused, and tokens whose rows were never trained, such as Llama 3's reserved ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.errors import UsageError
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.adapter_files import trained_tokens, vocabulary_of_adapter
from llama_recipes_local.model_folders.auxiliary_files import has_tokenizer
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.model_folders.tensors import model_tensors
from llama_recipes_local.models.embedding_rows import is_untrained
from llama_recipes_local.models.loading import AutoTokenizer

FLAG = "--train_new_tokens"


@dataclass(frozen=True, kw_only=True)
class NewTokens:
    """The tokens of a run's tokenizer that its model was not trained on.

    Attributes:
        rows: rows of the model's embedding.
        tokens: tokens of the tokenizer.
        own: number of rows, from the first, that belong to the model's own tokens.
        missing: the tokens without a row, by id.
        untrained: tokens of the data whose row was never trained, by id.
        grows: whether the model gets rows for the missing tokens.
        trained: the tokens whose rows an adapter trains.
    """

    rows: int
    tokens: int
    own: int
    missing: Mapping[int, str] = field(default_factory=dict)
    untrained: Mapping[int, str] = field(default_factory=dict)
    grows: bool = False
    trained: tuple[int, ...] = ()

    def has_row(self, token: int) -> bool:
        """Return whether the model in training has a row for a token."""
        return token < (self.tokens if self.grows else self.rows)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Tokens that may be new, judged by the tokenizers alone: lists of ids.

    Attributes:
        missing: tokens beyond the model's rows.
        foreign: tokens with a row, but not in the tokenizer of the model's own folder.
        added: other special and added tokens; their rows show whether they were trained.
    """

    rows: int
    own: int
    missing: list[int]
    foreign: list[int]
    added: list[int]


def candidates(
    train: configs.train_config, tokenizer: PreTrainedTokenizerBase
) -> Candidates | None:
    """Return which tokens may be new to a run's model; None if its rows are unknown."""
    folder = Path(train.model_name).expanduser().resolve()
    rows = read_config(folder).get("vocab_size")
    if not isinstance(rows, int):
        return None
    added = [each for each in sorted(tokenizer.added_tokens_decoder) if each < rows]
    own, foreign = min(rows, len(tokenizer)), []
    other = Path(train.tokenizer_name or folder).expanduser().resolve()
    if other != folder and has_tokenizer(folder):
        theirs = AutoTokenizer.from_pretrained(folder)
        own = min(own, len(theirs))
        names = theirs.get_vocab()
        foreign = [
            each
            for each in sorted({*added, *range(own, min(rows, len(tokenizer)))})
            if names.get(_name(tokenizer, each)) != each
        ]
    return Candidates(
        rows=rows,
        own=own,
        missing=list(range(rows, len(tokenizer))),
        foreign=foreign,
        added=[each for each in added if each not in foreign],
    )


def find_new_tokens(
    train: configs.train_config, tokenizer: PreTrainedTokenizerBase, splits: Iterable[Any]
) -> NewTokens | None:
    """Return the tokens that a run's model was not trained on; None without any.

    Args:
        train: names the folders.
        tokenizer: the run's.
        splits: the run's data; data that is not tokenised yet is assumed to have every token.
    """
    found = candidates(train, tokenizer)
    if found is None:
        return None
    used = _used(splits, len(tokenizer))
    folder = Path(train.model_name).expanduser().resolve()
    untrained = [each for each in found.foreign if used is None or each in used]
    untrained += [
        each for each in never_trained(folder, found.added) if used is None or each in used
    ]
    if not found.missing and not untrained:
        return None
    adapter = Path(train.from_peft_checkpoint).expanduser() if _continues(train) else None
    grows = bool(found.missing) and (
        train.train_new_tokens
        or used is None
        or not used.isdisjoint(found.missing)
        or (adapter is not None and (vocabulary_of_adapter(adapter) or 0) > found.rows)
    )
    trained: list[int] = []
    if adapter is not None:
        trained = trained_tokens(adapter)
    elif train.use_peft and train.train_new_tokens:
        trained = sorted([*found.missing, *untrained])
    return NewTokens(
        rows=found.rows,
        tokens=len(tokenizer),
        own=found.own,
        missing={each: _name(tokenizer, each) for each in found.missing},
        untrained={each: _name(tokenizer, each) for each in sorted(untrained)},
        grows=grows,
        trained=tuple(trained),
    )


def never_trained(folder: Path, ids: list[int]) -> list[int]:
    """Return the tokens whose rows of a folder's embedding training never reached."""
    if not ids:
        return []
    try:
        stored = model_tensors(folder, "--model_name")
        (name,) = (each for each in stored if each.endswith("embed_tokens.weight"))
        rows = stored.rows(name, ids)
    except (UsageError, ValueError):  # which the check of the model reports; or several embeddings
        return []
    alone = rows.unique(dim=0, return_inverse=True, return_counts=True)
    shared = alone[2][alone[1]] > 1
    return [
        each
        for each, zero, same in zip(ids, is_untrained(rows), shared, strict=True)
        if zero or same
    ]


def new_tokens_note(new: NewTokens, train: configs.train_config) -> str:
    """Return the note before training about tokens that are new to the model."""
    lines = []
    if new.missing:
        names = join_names(new.missing.values())
        added = _rows_added(new, train)
        lines.append(f"--> tokens that the model has no rows for: {names}; {added}")
    if new.untrained:
        names = join_names(new.untrained.values())
        fate = _fate(set(new.untrained), new, train)
        lines.append(f"--> tokens whose rows the model has not trained: {names}; they are {fate}")
    return "\n".join(lines)


def _rows_added(new: NewTokens, train: configs.train_config) -> str:
    if not new.grows:
        return "no row of the data has them, and the model is not resized"
    fate = _fate(set(new.missing), new, train)
    return f"their rows begin as the mean of the others and are {fate}"


def _fate(ids: set[int], new: NewTokens, train: configs.train_config) -> str:
    """Return whether the rows of new tokens are trained, and how they could be."""
    if train.use_peft and not ids <= set(new.trained):
        saved = "" if ids.isdisjoint(new.missing) else "saved with the adapter, "
        return f"{saved}not trained: add {FLAG} to train them"
    if not train.use_peft and (train.train_only or train.top_layers):
        return "not trained"
    return "trained"


def _continues(train: configs.train_config) -> bool:
    return bool(train.use_peft and train.from_peft_checkpoint)


def _used(splits: Iterable[Any], tokens: int) -> set[int] | None:
    """Return the tokens that data has; None if that is not known before training."""
    used: set[int] = set()
    for split in splits:
        if not isinstance(split, TokenRows):
            return None
        used |= split.tokens(tokens)
    return used


def _name(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token))
