"""What a certificate compares: the exported model, and what is read back from its files."""

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
    """Consecutive weights that share a scale.

    Attributes:
        weights: number of weights; 0 stands for a row.
        largest: upper limit of the largest error, as a fraction of the block's largest weight.
        least: an absolute error that is always allowed: that of a scale's smallest step.
    """

    weights: int
    largest: float
    least: float = 0.0


ANY_ERROR = Block(0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far an export may be from its model.

    Attributes:
        weights: upper limit of a tensor's relative root mean square error, by how it is stored.
        blocks: limits for single weights, by how a tensor is stored; none where there is no entry.
        divergence: upper limit of the Kullback-Leibler divergence of the next token, in nats a
            token.
        perplexity: upper limit of the rise of the perplexity, as a fraction.
        row: how many times the limit of a whole matrix one of its rows may have, as it has fewer
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
        original: the model that was exported.
        exported: the model that the files hold.
        names: the names of the weights.
        numbers: of all weights.
        kind: returns how a weight is stored, by its name: a key of ``tolerances.weights``.
        tolerances: of the format.
        files: those with the weights.
        other_prompt: how the program that runs the files tokenises a prompt otherwise, which the
            files cannot change; "" if it does not.
    """

    original: ComparedModel
    exported: ComparedModel
    names: Collection[str]
    numbers: int
    kind: Callable[[str], str]
    tolerances: Tolerances
    files: Sequence[Path]
    other_prompt: str = ""
