"""The choice is the fastest that fits, and what is given is kept."""

from dataclasses import replace

import pytest

from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.host import checkpoint_gb, disk_gb, host_gib, saved_gb
from llama_recipes_local.planning.search import (
    POLICY,
    ROWS,
    SHARDING,
    nearest_fitting,
    outcome,
    ranked,
    variants,
)
from llama_recipes_local.planning.setting import (
    FULL,
    FULL_SHARD,
    FUSED,
    KEEP,
    OFFLOAD,
    REPLICATED,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR

S7, S13, S70 = (KNOWN[f"llama-2-{size}"] for size in ("7b", "13b", "70b"))
H100 = card(80, "H100")
LORA = Setting(S7, adapter=Adapter(), batch=Batch(rows=2, accumulation=2))
ON_4 = Ranks(4, 1, FULL_SHARD)


def test_a_newcomers_command_is_replicated_and_recomputes_nothing() -> None:
    asked = replace(LORA, ranks=ON_4, policy=FULL)
    best = ranked(asked, H100)[0]
    assert (best.setting.ranks.sharding, best.setting.policy) == (REPLICATED, KEEP)
    assert best.tokens > 1.4 * outcome(asked, H100).tokens


def test_less_memory_makes_it_recompute_and_shard() -> None:
    asked = replace(LORA, ranks=ON_4)
    chosen = [ranked(asked, card(memory, "H100"))[0].setting for memory in (80, 24, 17, 12)]
    assert [(each.ranks.sharding, each.policy) for each in chosen] == [
        (REPLICATED, KEEP),
        (FULL_SHARD, KEEP),
        (REPLICATED, OFFLOAD),
        (FULL_SHARD, OFFLOAD),
    ]


def test_the_global_batch_stays() -> None:
    asked = replace(LORA, ranks=ON_4, batch=Batch(rows=6, accumulation=2))
    every = list(variants(asked))
    assert {each.batch.rows for each in every} == {1, 2, 3, 4, 6, 12}
    assert {each.global_batch for each in every} == {48}


def test_rows_that_are_asked_for_stay_where_others_are_no_faster() -> None:
    assert ranked(replace(LORA, ranks=ON_4), H100)[0].setting.batch == LORA.batch
    # calls hold a small model up: more rows at a time are faster
    small = replace(LORA, shape=KNOWN["smollm2-135m"], batch=Batch(rows=1, accumulation=8))
    assert ranked(small, H100)[0].setting.batch.rows > 1


def test_what_is_named_is_not_varied() -> None:
    asked = replace(LORA, ranks=ON_4, policy=FULL)
    assert list(variants(asked, free=())) == [asked]
    assert {each.policy for each in variants(asked, free=(SHARDING, ROWS))} == {FULL}
    assert {each.ranks.sharding for each in variants(asked, free=(POLICY,))} == {FULL_SHARD}


def test_8_bits_are_replicated_and_one_process_shards_nothing() -> None:
    eight = replace(LORA, ranks=ON_4, weights=Weights(bits=8))
    assert {each.ranks.sharding for each in variants(eight)} == {REPLICATED}
    assert len({each.ranks.sharding for each in variants(LORA)}) == 1


def test_what_fits_is_found_with_the_fewest_changes() -> None:
    small = card(24, "4090")
    found = nearest_fitting(replace(LORA, batch=Batch(rows=2)), small)
    assert found is not None
    assert (found.setting.policy, found.setting.batch.rows) in ((FULL, 2), (OFFLOAD, 2))
    assert nearest_fitting(Setting(S70, Weights(trained=S70.weights)), small) is None


def test_only_what_is_far_too_large_cannot_fit() -> None:
    found = outcome(LORA, H100)
    assert found.fits
    assert replace(found, has=found.needs / 0.93).fits
    assert not replace(found, has=found.needs / 0.95).fits  # predictions are within 5%
    tight = replace(found, has=found.memory.gib * 0.97)
    assert not tight.fits
    assert not tight.cannot_fit
    assert replace(found, has=found.memory.gib * 0.85).cannot_fit


def test_quantised_weights_are_whole_on_each_card_before_they_are_sharded() -> None:
    four = Setting(S70, Weights(bits=4), Adapter(), ranks=Ranks(16, 2, FULL_SHARD), policy=FULL)
    assert outcome(four, card(24)).cannot_fit
    assert outcome(four, card(48)).fits


@pytest.mark.parametrize(
    ("shape", "method", "memory", "gpus", "fits"),
    [
        ("llama-2-7b", "qlora", 24, 1, True),
        ("llama-2-7b", "lora", 24, 1, True),
        ("llama-2-7b", "full", 24, 1, False),
        ("llama-2-7b", "full", 80, 1, True),
        ("llama-2-7b", "full", 24, 4, True),
        ("llama-2-13b", "lora", 24, 1, False),
        ("llama-2-13b", "lora", 48, 1, True),
        ("llama-2-13b", "qlora", 24, 1, True),
        ("llama-2-13b", "full", 80, 1, False),
        ("llama-2-13b", "full", 80, 2, True),
        ("llama-3.1-8b", "qlora", 12, 1, True),
        ("llama-3.1-8b", "lora", 24, 1, True),
        ("llama-3.1-8b", "full", 48, 2, True),
        ("llama-3.2-1b", "full", 24, 1, True),
        ("llama-3.2-3b", "lora", 12, 1, True),
        ("llama-3.1-70b", "qlora", 80, 1, True),
        ("llama-3.1-70b", "qlora", 24, 8, False),
        ("llama-3.1-70b", "lora", 80, 1, False),
        ("llama-3.1-70b", "lora", 80, 4, True),
        ("llama-3.1-70b", "full", 80, 8, False),
        ("llama-3.1-70b", "full", 80, 16, True),
        ("smollm2-135m", "full", 8, 1, True),
    ],
)
def test_pairs_of_models_and_cards(
    shape: str, method: str, memory: int, gpus: int, fits: bool
) -> None:
    model = KNOWN[shape]
    weights = {
        "full": Weights(trained=model.weights),
        "lora": Weights(),
        "qlora": Weights(bits=4, double=True),
    }[method]
    adapter = None if method == "full" else Adapter(rank=16, targets=frozenset(LINEAR))
    asked = Setting(
        model,
        weights,
        adapter,
        Batch(rows=1),
        Ranks(gpus, 1, FULL_SHARD) if gpus > 1 else Ranks(),
    )
    assert ranked(asked, card(memory))[0].fits is fits


def test_disk_and_host_memory() -> None:
    full = Setting(S7, Weights(trained=S7.weights))
    # as it was measured at the 7B shape
    assert checkpoint_gb(full) == pytest.approx(40.43, abs=0.01)
    assert checkpoint_gb(LORA) == pytest.approx(0.067, abs=0.001)
    assert saved_gb(full) == pytest.approx(13.48, abs=0.01)
    assert disk_gb(full, 100, 2) == pytest.approx(2 * 13.48 + 3 * 40.43, abs=0.05)
    assert disk_gb(full) < disk_gb(full, save_steps=1)
    sharded = replace(full, ranks=ON_4)
    assert host_gib(sharded) == pytest.approx(4 * (3 + 12.55), abs=0.1)
    assert host_gib(sharded, low_cpu=True) == pytest.approx(4 * 3 + 12.55, abs=0.1)
    long = replace(LORA, policy=OFFLOAD, batch=Batch(rows=1, length=350000))
    assert host_gib(long) == pytest.approx(3 + 32 * 350000 * 8192 / 2**30)


def test_replicas_of_all_weights_do_not_fit_as_was_seen() -> None:
    # out of memory in its second step on four H100
    ranks, batch = Ranks(4, 1, REPLICATED), Batch(rows=1, accumulation=2)
    whole = Setting(S7, Weights(trained=S7.weights), None, batch, ranks, FULL, FUSED)
    assert not outcome(replace(whole, copies=True), H100).fits
    assert outcome(whole, H100).fits
