"""Which settings fit a device, and which of them is the fastest.

A user's setting is varied in what no flag names: the sharding, what is kept of activations, and the
rows of a micro-batch, at the same global batch.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial

from llama_recipes_local.planning.cards import NODES, Card
from llama_recipes_local.planning.memory import GIB, Memory, beside, loading, memory
from llama_recipes_local.planning.setting import (
    FROZEN,
    FULL,
    FULL_SHARD,
    HYBRID_SHARD,
    KEEP,
    OFFLOAD,
    REPLICATED,
    SELECTIVE,
    SHARD_GRAD_OP,
    Setting,
)
from llama_recipes_local.planning.speed import Seconds, seconds

SHARDING, POLICY, ROWS = "sharding", "activations", "rows"
FREE = frozenset((SHARDING, POLICY, ROWS))
"""What may be varied."""


CERTAIN, LIKELY = 0.98, 0.85
"""Parts of what is predicted that are taken for certain: of weights, gradients and moments, and of
what comes and goes. No run of ``benchmarks/predictions.py`` took less than 0.95 of the whole."""

MARGIN = 0.94
"""Share of a card's memory that a setting may need to fit: predictions are within 5%."""

UNSHARDED = ("adamw_8bit", "paged_adamw", "paged_adamw_8bit")

ALIKE = 0.005
"""Speeds that differ by less are not told apart: less memory wins."""


@dataclass(frozen=True)
class Outcome:
    """What a setting needs on a card, and how fast it is.

    Attributes:
        setting: the setting.
        memory: of each device.
        needs: GiB of each device, including those outside torch's peak.
        has: GiB that each device has.
        seconds: of a step.
        tokens: a second, of all ranks.
    """

    setting: Setting
    memory: Memory
    needs: float
    has: float
    seconds: Seconds
    tokens: float

    @property
    def fits(self) -> bool:
        """Whether the setting fits, with a margin."""
        return self.needs <= MARGIN * self.has

    @property
    def least(self) -> float:
        """GiB that a device certainly needs."""
        found = self.memory
        stays = found.weights + found.adapter + found.gradients + found.moments
        return max(CERTAIN * stays + LIKELY * found.passing, loading(self.setting) * CERTAIN) / GIB

    @property
    def cannot_fit(self) -> bool:
        """Whether the setting certainly does not fit."""
        return self.least > self.has


def outcome(setting: Setting, card: Card, node_link: float = NODES) -> Outcome:
    """Return what a setting needs on a card."""
    found, time = memory(setting), seconds(setting, card, node_link)
    tokens = setting.batch.tokens * setting.batch.accumulation * setting.ranks.world
    needs = (max(found.peak, loading(setting)) + beside(setting)) / GIB
    return Outcome(setting, found, needs, card.memory, time, tokens / time.step)


def variants(setting: Setting, free: Collection[str] = FREE) -> Iterator[Setting]:
    """Yield the settings that do the same work, the given one among them.

    Args:
        setting: what the user asked for.
        free: what may be varied.
    """
    for sharding in _shardings(setting) if SHARDING in free else [setting.ranks.sharding]:
        ranks = replace(setting.ranks, sharding=sharding)
        for policy in _policies(setting) if POLICY in free else [setting.policy]:
            for rows in _rows(setting) if ROWS in free else [setting.batch.rows]:
                steps = setting.batch.rows * setting.batch.accumulation // rows
                batch = replace(setting.batch, rows=rows, accumulation=steps)
                yield replace(setting, ranks=ranks, policy=policy, batch=batch)


def ranked(
    setting: Setting,
    card: Card,
    free: Collection[str] = FREE,
    node_link: float = NODES,
) -> list[Outcome]:
    """Return the variants of a setting: first those that fit, in each part the fastest first.

    Of variants that differ only in the rows of a micro-batch, the fastest that fits is returned.
    """
    found = [outcome(each, card, node_link) for each in variants(setting, free)]
    best: dict[tuple[str, str], Outcome] = {}
    order = partial(_order, setting)
    for each in sorted(found, key=order):
        best.setdefault((each.setting.ranks.sharding, each.setting.policy), each)
    return sorted(best.values(), key=order)


def nearest_fitting(
    setting: Setting,
    card: Card,
    free: Collection[str] = FREE,
) -> Outcome | None:
    """Return the fastest of the settings that fit with the fewest changes; None if none fits."""
    found = [outcome(each, card) for each in variants(setting, free)]
    return min(
        (each for each in found if each.fits),
        key=lambda each: (_changes(setting, each.setting), -each.tokens),
        default=None,
    )


def _order(asked: Setting, found: Outcome) -> tuple[bool, float, int, float]:
    """Sort by whether it fits, then by speed; equally fast ones by changes, then by memory."""
    if not found.fits:
        return True, found.needs, 0, 0.0
    speed = -round(math.log(found.tokens) / ALIKE)
    return False, speed, _changes(asked, found.setting), found.needs


def _changes(asked: Setting, other: Setting) -> int:
    """Return in how many respects a setting differs from the one asked for."""
    return sum(
        (
            other.policy != asked.policy,
            other.ranks.sharding != asked.ranks.sharding,
            other.batch.rows != asked.batch.rows,
        )
    )


def _shardings(setting: Setting) -> list[str]:
    """Return the ways to divide weights over ranks; a single process has one.

    Weights in 8 bits or fp8, and weights trained by bitsandbytes' optimisers, are not sharded.
    """
    ranks = setting.ranks
    if not ranks.uses_fsdp:
        return [ranks.sharding]
    own = setting.weights
    if own.bits == 8 or own.fp8 or setting.optimizer in UNSHARDED:
        return [REPLICATED]
    if ranks.world == 1:
        return [ranks.sharding]
    several = 1 < ranks.hosts < ranks.world
    hybrid = [HYBRID_SHARD] if several or ranks.sharding == HYBRID_SHARD else []
    return [REPLICATED, SHARD_GRAD_OP, FULL_SHARD, *hybrid]


def _policies(setting: Setting) -> list[str]:
    """Return what activations may become.

    Norms are computed again by our kernels only, for LoRA and for trained weights.
    """
    if setting.on_cpu:
        return [KEEP, FULL]
    prompts = setting.adapter is not None and setting.adapter.method != "lora"
    selective = [SELECTIVE] if setting.kernels == FROZEN and not prompts else []
    return [KEEP, *selective, FULL, OFFLOAD]


def _rows(setting: Setting) -> list[int]:
    """Return the rows of a micro-batch that make the same global batch."""
    whole = setting.batch.rows * setting.batch.accumulation
    return [rows for rows in range(1, whole + 1) if whole % rows == 0]
