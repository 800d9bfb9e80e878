"""Computes two models side by side, one layer of each at a time, to compare weights and logits.

Both are computed in float32. Each pair of weights is compared when it is read.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from llama_recipes_local.certificates.held_out import Row
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.errors import UsageError
from llama_recipes_local.model_folders.read_back import ANY_ERROR, Block, ReadBack
from llama_recipes_local.parallel import device_type

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
TOGETHER = 8  # rows that are computed as one batch
POSITIONS = 256  # whose logits are in memory at a time
NUMBERS = 2**18
"""Of two weights that are compared at a time, so few that what is computed stays in the caches."""
_HARDLY = 0.01
"""Rows and blocks with smaller weights than this share of a matrix's count as if they had it."""
_ROW_SCALE = 0.5
"""Share by which the weights of a row may be larger or smaller, however they are rounded."""
_OF_THE_SCALE, _MOST_OF_THE_SCALE = 0.25, 0.02
"""Share of that error, and the most, by which all weights together may be larger or smaller.

Rounding errs to both sides, and least squares to the smaller one by the square of the error.
"""


class RowDifference(NamedTuple):
    """How two models differ on the label tokens of a row.

    Attributes:
        tokens: number of label tokens.
        divergence: sum of the Kullback-Leibler divergences at these tokens, in nats.
        losses: sums of the losses, the original's and the export's.
        largest: the largest difference of two logits.
        same: number of tokens at which the likeliest next token is the same.
        stops: whether the original, and the export, would end the answer where it ends; None for a
            row that does not end.
    """

    tokens: int
    divergence: float
    losses: tuple[float, float]
    largest: float
    same: int
    stops: tuple[bool, bool] | None


@dataclass
class Weights:
    """The weights of both models, compared as they are read.

    Attributes:
        errors: the largest relative error of a tensor, by how it is stored.
        wrong: tensors whose error exceeds the limit, with the error.
    """

    read: ReadBack
    errors: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _compared: set[str] = field(default_factory=set)

    def __call__(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a weight of the original and of the export."""
        expected = self.read.original.weight(name).detach()
        try:
            found = self.read.exported.weight(name).detach()
        except (UsageError, KeyError) as error:  # it is corrupt, or missing
            why = error.problems[0].what if isinstance(error, UsageError) else "is missing"
            self.wrong.append(f"{name}: {why}")
            return expected, expected
        if name not in self._compared:
            self._compared.add(name)
            self._compare(name, expected, found)
        return expected, found if found.shape == expected.shape else expected

    def _compare(self, name: str, expected: torch.Tensor, found: torch.Tensor) -> None:
        kind, known = self.read.kind(name), self.read.tolerances
        limit = known.weights[kind]
        block = known.blocks.get(kind, ANY_ERROR)
        errors = relative_errors(found, expected, block)
        self.errors[kind] = max(self.errors.get(kind, 0.0), errors.whole)
        if not errors.whole <= limit:
            self.wrong.append(f"{name} {errors.whole:.1%}")
        elif not errors.row <= known.row * limit:
            self.wrong.append(f"{name} {errors.row:.1%} in one row")
        elif not errors.weight <= block.largest:
            self.wrong.append(f"{name} {errors.weight:.1%} of its block in one weight")
        elif not errors.row_scale <= _ROW_SCALE:
            self.wrong.append(f"{name} {errors.row_scale:.1%} in the scale of one row")
        elif not abs(errors.scale) <= min(_OF_THE_SCALE * limit, _MOST_OF_THE_SCALE):
            self.wrong.append(f"{name} {errors.scale:+.1%} in its scale")


class Errors(NamedTuple):
    """Relative errors of a matrix.

    Attributes:
        whole: root mean square error over that of the weights, for the matrix.
        row: the same for the worst row.
        weight: largest error of a weight, relative to the largest weight of its block.
        scale: relative change of all weights, on average.
        row_scale: the largest relative change of a row.
    """

    whole: float
    row: float
    weight: float
    scale: float
    row_scale: float


def relative_errors(found: torch.Tensor, expected: torch.Tensor, block: Block) -> Errors:
    """Return the errors of a matrix, or of a vector as one row.

    Args:
        found: the exported matrix.
        expected: the original matrix.
        block: the blocks of weights that share a scale.
    """
    if found.shape != expected.shape:
        return Errors(*[float("inf")] * 5)
    first, second = (each if each.ndim == 2 else each[None] for each in (found, expected))
    together = math.gcd(block.weights, first.shape[1])
    parts = [
        _sums(a.float(), b.float(), together)
        for a, b in zip(
            *(each.split(max(1, NUMBERS // each.shape[1])) for each in (first, second)), strict=True
        )
    ]
    errors, sizes, along, largest, bounds = (
        torch.cat(each).double() for each in zip(*parts, strict=True)
    )
    size = float(sizes.mean())
    if not size:
        return Errors(float(errors.mean()), float(errors.max()), float(largest.max()), 0.0, 0.0)
    rows = (errors / sizes.clamp_min(size * _HARDLY**2)).sqrt()
    weights = (largest - block.least) / bounds.clamp_min(size**0.5 * _HARDLY)
    scales = (along / sizes.clamp_min(size * _HARDLY**2)).abs()
    row, weight, row_scale = (
        float(each.nan_to_num(torch.inf).max()) for each in (rows, weights, scales)
    )
    whole = float(errors.mean() / size) ** 0.5
    return Errors(whole, row, weight, float(along.mean() / size), row_scale)


def _sums(found: torch.Tensor, expected: torch.Tensor, block: int) -> tuple[torch.Tensor, ...]:
    """Return means by row of squares, and of errors times weights, and the largest by block."""
    error = found - expected
    squares = (each.square().mean(1) for each in (error, expected))
    blocks = (each.abs().reshape(-1, block).amax(1) for each in (error, expected))
    return (*squares, (error * expected).mean(1), *blocks)


@torch.no_grad()
def differences(weights: Weights, rows: Sequence[Row]) -> list[RowDifference]:
    """Return how the models differ on each row; afterwards all of their weights are compared."""
    read, device = weights.read, device_type()
    rows = sorted(rows, key=lambda row: len(row.ids))  # so that little is padded
    batches = [_padded(rows[i : i + TOGETHER]).to(device) for i in range(0, len(rows), TOGETHER)]
    sides = [
        _Side(model.config, batches, each)
        for model, each in zip((read.original, read.exported), weights(EMBEDDING), strict=True)
    ]
    layers = range(read.original.config.num_hidden_layers)
    for number in tqdm(layers, "comparing", unit=" layers", leave=False, disable=None):
        prefix = f"model.layers.{number}."
        names = [name for name in read.names if name.startswith(prefix)]
        pairs = {name.removeprefix(prefix): weights(name) for name in names}
        for place, side in enumerate(sides):
            side.layer(number, {name: pair[place] for name, pair in pairs.items()})
    for side, norm in zip(sides, weights(NORM), strict=True):
        side.norm(norm)
    heads = [each.to(device).float() for each in weights(HEAD if HEAD in read.names else EMBEDDING)]
    ends = set(read.original.ends)
    return [
        _difference(row, [side.of_row(place) for side in sides], heads, ends)
        for place, row in enumerate(rows)
    ]


class _Side:
    """One of the two models, with its rows as far as they are computed."""

    def __init__(
        self, config: LlamaConfig, batches: list[torch.Tensor], embedding: torch.Tensor
    ) -> None:
        self._config: Any = deepcopy(config)
        self._config._attn_implementation = "sdpa"
        rotary = LlamaRotaryEmbedding(self._config).to(batches[0].device)
        weight = embedding.to(batches[0].device)
        self._hidden = [F.embedding(batch, weight).float() for batch in batches]
        places = [torch.arange(batch.shape[1], device=batch.device)[None] for batch in batches]
        self._turns = [
            rotary(hidden, each) for hidden, each in zip(self._hidden, places, strict=True)
        ]

    def layer(self, number: int, weights: dict[str, torch.Tensor]) -> None:
        """Compute a decoder layer."""
        with torch.device("meta"):
            module = LlamaDecoderLayer(self._config, number).eval()
        device = self._hidden[0].device
        module.load_state_dict(
            {name: each.to(device).float() for name, each in weights.items()}, assign=True
        )
        self._hidden = [
            module(hidden, position_embeddings=turns)
            for hidden, turns in zip(self._hidden, self._turns, strict=True)
        ]

    def norm(self, weight: torch.Tensor) -> None:
        """Compute the last norm."""
        module = LlamaRMSNorm(len(weight), self._config.rms_norm_eps)
        module.load_state_dict({"weight": weight.float()})
        module.to(self._hidden[0].device)
        self._hidden = [module(hidden) for hidden in self._hidden]

    def of_row(self, place: int) -> torch.Tensor:
        """Return the head's input for a row, (padded length, hidden)."""
        return self._hidden[place // TOGETHER][place % TOGETHER]


def _padded(rows: Sequence[Row]) -> torch.Tensor:
    """Return rows as one batch, padded on the right, where causal attention does not look."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(list(row.ids)) for row in rows], batch_first=True
    )


def _difference(
    row: Row, hidden: list[torch.Tensor], heads: list[torch.Tensor], ends: set[int]
) -> RowDifference:
    labels = torch.tensor(list(row.labels))[1:]
    places = (labels != IGNORE_INDEX).nonzero()[:, 0]
    last = max((int(place) for place in places if int(labels[place]) in ends), default=None)
    divergence, largest, same, losses = 0.0, 0.0, 0, [0.0, 0.0]
    stops: tuple[bool, bool] | None = None
    for part in places.split(POSITIONS):
        logits = [
            each[part.to(each.device)] @ head.T for each, head in zip(hidden, heads, strict=True)
        ]
        logs = [each.log_softmax(-1) for each in logits]
        divergence += float((logs[0].exp() * (logs[0] - logs[1])).sum().double())
        largest = max(largest, float((logits[0] - logits[1]).abs().max()))
        first, second = (each.argmax(-1).cpu() for each in logits)
        same += int((first == second).sum())
        targets = labels[part].to(logs[0].device)
        for side, each in enumerate(logs):
            losses[side] += float(F.nll_loss(each, targets, reduction="sum"))
        if last is not None and last in part:
            (place,) = (part == last).nonzero()[0]
            stops = (int(first[place]) in ends, int(second[place]) in ends)
    return RowDifference(len(places), divergence, (losses[0], losses[1]), largest, same, stops)
