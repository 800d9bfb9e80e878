"""Twenty models on cards: parts of the memory that are worked out by hand, and what is chosen.

The weights are those that the models' publishers count, and of LoRA those that PEFT prints: with
r=16 on all linear layers 16 rows and columns of each.
"""

from typing import NamedTuple

import pytest

from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.memory import memory
from llama_recipes_local.planning.search import ranked
from llama_recipes_local.planning.setting import (
    FULL,
    FULL_SHARD,
    KEEP,
    SELECTIVE,
    SHARD_GRAD_OP,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR

PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "tinyllama-1.1b": 1_100_048_384,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}
LORA_16 = {
    "llama-2-7b": 39_976_960,
    "llama-2-13b": 62_586_880,
    "llama-2-70b": 207_093_760,
    "llama-3.1-8b": 41_943_040,
    "llama-3.1-70b": 207_093_760,
    "llama-3.2-1b": 11_272_192,
    "llama-3.2-3b": 24_313_856,
    "tinyllama-1.1b": 12_615_680,
    "smollm2-1.7b": 18_087_936,
}
EMBEDDING_AND_HEAD = {  # rows of the vocabulary, twice where they are not tied
    "llama-2-7b": 2 * 32000 * 4096,
    "llama-2-13b": 2 * 32000 * 5120,
    "llama-2-70b": 2 * 32000 * 8192,
    "llama-3.1-8b": 2 * 128256 * 4096,
    "llama-3.1-70b": 2 * 128256 * 8192,
}
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits with double quantisation."""


class Pair(NamedTuple):
    """A model on some cards of some memory, with what is chosen; "" where nothing fits."""

    model: str
    method: str
    name: str
    memory: int
    gpus: int
    sharding: str
    policy: str


ONE = "one process"
PAIRS = (
    Pair("smollm2-135m", "full", "RTX 3060", 12, 1, ONE, KEEP),
    Pair("smollm2-360m", "full", "RTX 4060 Ti", 16, 1, ONE, KEEP),
    Pair("smollm2-1.7b", "lora", "RTX 3060", 12, 1, ONE, SELECTIVE),
    Pair("smollm2-1.7b", "full", "RTX 3090", 24, 1, ONE, KEEP),
    Pair("tinyllama-1.1b", "lora", "RTX 3060", 12, 1, ONE, KEEP),
    Pair("llama-3.2-1b", "full", "RTX 4090", 24, 1, ONE, KEEP),
    Pair("llama-3.2-3b", "lora", "A10", 24, 1, ONE, KEEP),
    Pair("llama-3.2-3b", "full", "A40", 48, 1, ONE, KEEP),
    Pair("llama-2-7b", "lora", "RTX 4090", 24, 1, ONE, FULL),
    Pair("llama-2-7b", "full", "A100 80GB", 80, 1, ONE, SELECTIVE),
    Pair("llama-2-7b", "full", "RTX 4090", 24, 1, "", ""),
    Pair("llama-2-7b", "qlora", "L4", 24, 1, ONE, KEEP),
    Pair("llama-3.1-8b", "lora", "L40S", 48, 1, ONE, KEEP),
    Pair("llama-3.1-8b", "full", "H100", 80, 4, SHARD_GRAD_OP, KEEP),
    Pair("llama-2-13b", "lora", "A100 40GB", 40, 2, FULL_SHARD, SELECTIVE),
    Pair("llama-2-13b", "full", "H200", 141, 1, ONE, KEEP),
    Pair("llama-2-70b", "qlora", "H100", 80, 1, ONE, FULL),
    Pair("llama-3.1-70b", "lora", "H100", 80, 4, FULL_SHARD, FULL),
    Pair("llama-3.1-70b", "full", "H200", 141, 8, FULL_SHARD, SELECTIVE),
    Pair("llama-3.1-405b", "full", "H100", 80, 8, "", ""),
)


def asked(pair: Pair) -> Setting:
    shape = KNOWN[pair.model]
    lora = Adapter(rank=16, targets=frozenset(LINEAR))
    weights = {
        "full": Weights(trained=shape.weights),
        "lora": Weights(),
        "qlora": Weights(bits=4, double=True),
    }[pair.method]
    return Setting(
        shape,
        weights,
        None if pair.method == "full" else lora,
        Batch(rows=1, length=min(4096, shape.positions)),
        Ranks(pair.gpus, 1, FULL_SHARD) if pair.gpus > 1 else Ranks(),
        FULL,
    )


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join(map(str, pair[:5])))
def test_what_stays_on_a_card_is_worked_out_by_hand(pair: Pair) -> None:
    found, weights = memory(asked(pair)), PARAMETERS[pair.model]
    assert KNOWN[pair.model].weights == weights
    if pair.method == "full":  # bfloat16: 2 bytes of each, and as many of each of two moments
        assert found.weights == pytest.approx(2 * weights / pair.gpus)
        if not found.loss:  # before a step's only backward pass there are none
            assert found.gradients == pytest.approx(2 * weights / pair.gpus)
        assert found.moments == pytest.approx(4 * weights / pair.gpus)
        return
    of_lora = LORA_16[pair.model]  # float32
    assert found.adapter == pytest.approx(4 * of_lora / pair.gpus)
    assert found.gradients in (0, found.adapter)  # none where the peak is before they are made
    assert found.moments == pytest.approx(8 * of_lora / pair.gpus)
    if pair.method == "lora":
        assert found.weights == pytest.approx(2 * weights / pair.gpus)
    else:  # 0.0002: of the norms, which stay in 2 bytes
        whole = EMBEDDING_AND_HEAD[pair.model]
        expected = FOUR_BITS * (weights - whole) + 2 * whole
        assert found.weights == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join(map(str, pair[:5])))
def test_the_fastest_that_fits_is_chosen(pair: Pair) -> None:
    best = ranked(asked(pair), card(pair.memory, pair.name))[0]
    assert best.fits is bool(pair.policy)
    if best.fits:
        assert (best.setting.ranks.sharding, best.setting.policy) == (pair.sharding, pair.policy)
        assert best.needs <= card(pair.memory, pair.name).memory
