"""What a certificate compares: the model that an export was made of, and what its files say."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaConfig, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """A Llama, its weights read one at a time.

    Attributes:
        config: its configuration.
        settings: what it computes with, by name; numbers are compared to six digits.
        tokenizer: its tokenizer.
        ends: ids of the tokens that end an answer.
        weight: returns a weight by its name in a folder, dequantised, on the CPU; called often.
    """

    config: LlamaConfig
    settings: Mapping[str, object]
    tokenizer: PreTrainedTokenizerBase
    ends: Collection[int]
    weight: Callable[[str], torch.Tensor]


class Block(NamedTuple):
    """Weights in a row that have a scale of their own.

    Attributes:
        weights: their number.
        largest: the largest error of one over the largest weight of the block, at most.
        least: an error that none has to be below: what the smallest step of a scale comes to.
    """

    weights: int
    largest: float
    least: float = 0.0


ANY_ERROR = Block(1, math.inf)


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far an export may be from its model.

    Attributes:
        weights: root of the mean squared error of a tensor over that of its weights, at most, by
            how it is stored.
        blocks: the errors of single weights, by how a tensor is stored; any where there is none.
        divergence: Kullback-Leibler divergence of the next token, in nats a token, at most.
        perplexity: share by which the perplexity may rise.
        row: times the error of a whole matrix that one of its rows may have, which has fewer
            weights.
    """

    weights: Mapping[str, float]
    divergence: float
    perplexity: float
    blocks: Mapping[str, Block] = field(default_factory=dict)
    row: float = 2.0


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """An export, read back from its files.

    Attributes:
        original: the model that it was made of.
        exported: what the files say.
        names: the names of the weights.
        numbers: of all weights.
        kind: returns how a weight is stored, by its name: a key of ``tolerances.weights``.
        tolerances: of the format.
        files: those with the weights.
    """

    original: ComparedModel
    exported: ComparedModel
    names: Collection[str]
    numbers: int
    kind: Callable[[str], str]
    tolerances: Tolerances
    files: Sequence[Path]
