"""The speeds that were measured, and what makes a step longer."""

from dataclasses import replace
from typing import Any

import predictions
import pytest

from llama_recipes_local.kernels import attention
from llama_recipes_local.planning.cards import CARDS, SOCKETS, Card, card, of_device
from llama_recipes_local.planning.search import SHARDING, ranked
from llama_recipes_local.planning.setting import (
    FULL,
    FULL_SHARD,
    FUSED,
    HYBRID_SHARD,
    MASKED,
    OFFLOAD,
    PLAIN,
    REPLICATED,
    SCORED,
    SHARD_GRAD_OP,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR
from llama_recipes_local.planning.speed import LONG, seconds, tokens_a_second

H100 = card(80, "H100")
WHOLE_1B = Weights(trained=KNOWN["llama-3.2-1b"].weights)
LORA = Setting(KNOWN["llama-2-7b"], adapter=Adapter(), batch=Batch(rows=2))


@pytest.mark.parametrize("run", predictions.recorded(), ids=lambda run: run.name)
def test_a_measured_speed_is_predicted(run: predictions.Recorded) -> None:
    assert run.predicted_speed == pytest.approx(run.speed, rel=predictions.OF_SPEED)


@pytest.mark.parametrize(
    ("changes", "milliseconds"),
    [
        ({}, 2.83),
        ({"policy": FULL}, 6.46),
        ({"weights": Weights(fp8=True)}, 3.86),
        ({"adapter": None, "weights": WHOLE_1B}, 1.77),
        ({"adapter": None, "weights": replace(WHOLE_1B, trained_in_fp8=True)}, 4.55),
    ],
    ids=["LoRA", "recomputation", "fp8", "full", "full in fp8"],
)
def test_few_tokens_wait_for_the_calls_of_a_layer(
    changes: dict[str, Any], milliseconds: float
) -> None:
    # as benchmarks/NOTES.md has them of an idle host
    adapter = Adapter(rank=16, targets=frozenset(LINEAR))
    asked = Setting(KNOWN["llama-3.2-1b"], adapter=adapter, batch=Batch(rows=1, length=128))
    found = seconds(replace(asked, **changes), card(141, "H200"))
    assert found.launches > 0
    assert found.step / 16 == pytest.approx(milliseconds / 1e3, rel=0.05)


def test_ligers_loss_adds_to_the_heads_gradient_for_each_part_of_the_tokens() -> None:
    whole = replace(LORA, adapter=None, weights=WHOLE_1B, kernels=FUSED)
    whole = replace(whole, shape=KNOWN["llama-3.2-1b"], batch=Batch(rows=2, accumulation=2))
    frozen = replace(whole, weights=replace(WHOLE_1B, trained=WHOLE_1B.trained - 1))
    # 8,192 tokens in parts of 256: a 63rd is 131, in powers of two
    adds = 2 * 32 * 4 * 128256 * 2048
    slower = seconds(whole, H100).passes - seconds(frozen, H100).passes
    assert slower == pytest.approx(adds / (3.35e12 * 0.75))


def test_products_are_those_worked_out_by_hand() -> None:
    # 4 FLOPs a weight of a frozen layer and token; of the head for the half that has labels
    flops = 4 * 6_476_005_376 + 4 * 32000 * 4096 / 2
    assert seconds(LORA, H100).products == pytest.approx(flops * 8192 / (772e12 * 0.88))


def test_scores_that_are_kept_are_read_and_written() -> None:
    scored = seconds(replace(LORA, attention=SCORED), H100)
    # 29 times 2 bytes of each of 32 layers' 32 x 4,096 scores a token
    times = 29 * 2 * 32 * 32 * 4096 * 8192 / (3.35e12 * 0.75)
    assert scored.passes - seconds(LORA, H100).passes == pytest.approx(times)


def test_recomputation_and_long_documents_take_longer() -> None:
    usual = seconds(LORA, H100)
    again = seconds(replace(LORA, policy=FULL), H100)
    assert again.products > 1.3 * usual.products
    # unless the link to the host is slower than the layers, offloading is free
    assert seconds(replace(LORA, policy=OFFLOAD), H100).step == pytest.approx(again.step)
    long = replace(LORA, batch=Batch(rows=1, length=8192, document=8192), flash=True)
    assert seconds(long, H100).attention == pytest.approx(16 * usual.attention)


def test_what_a_mask_hides_is_computed() -> None:
    one = replace(LORA, batch=Batch(rows=2, document=4096), flash=True)
    masked = seconds(replace(one, attention=MASKED), H100)
    assert masked.attention == pytest.approx(2 * seconds(one, H100).attention)


def test_rows_of_one_long_document_are_attended_by_cudnn_on_hopper() -> None:
    # measured of 2 x 4,096 tokens and 32 heads of 128: 470 + 1,450 us a layer, and 190 of rotary
    # positions, of which passes count 13 + 8 times 4,096 features of 2 bytes
    asked = replace(LORA, batch=Batch(rows=2, document=4096))
    h200 = card(141, "H200")
    passes = 21 * 4096 * 2 * 8192 / (3.6e12 * 0.75)
    found = seconds(asked, h200).attention / 32 + passes
    assert found == pytest.approx((470 + 1450 + 190) * 1e-6, rel=0.02)
    assert LONG == attention.LONG
    before = seconds(replace(asked, flash=True), h200).attention
    assert before == pytest.approx(0.76 / 0.45 * seconds(asked, h200).attention)
    for other in (
        replace(asked, batch=Batch(rows=2, length=1024, document=1024)),
        replace(asked, batch=Batch(rows=2, document=2048)),
        replace(asked, batch=Batch(rows=2, length=LONG + 512, document=LONG + 512)),
        replace(asked, element=4.0),
        replace(asked, adapter=Adapter("prefix", tokens=30)),
    ):
        assert seconds(other, h200) == seconds(replace(other, flash=True), h200)
    a100 = card(80, "A100")
    assert seconds(asked, a100) == seconds(replace(asked, flash=True), a100)


def test_a_slow_link_holds_sharded_weights_up_and_replicas_of_an_adapter_not() -> None:
    def of(sharding: str, link: float, hosts: int = 1) -> float:
        slow = replace(H100, link=link)
        setting = replace(LORA, ranks=Ranks(8, hosts, sharding), policy=FULL)
        return tokens_a_second(setting, slow) / 8

    assert of(FULL_SHARD, 10) < 0.5 * of(FULL_SHARD, 450)
    assert of(REPLICATED, 10) > 0.9 * of(REPLICATED, 450)
    # shards inside a host send little between hosts
    assert of(HYBRID_SHARD, 450, hosts=4) > 1.05 * of(FULL_SHARD, 450, hosts=4)


def test_what_stays_gathered_is_gathered_once_a_step() -> None:
    def of(sharding: str, times: int) -> float:
        batch = Batch(rows=2, accumulation=times)
        setting = replace(LORA, ranks=Ranks(4, 1, sharding), batch=batch, policy=FULL)
        return seconds(setting, H100).communication

    assert of(SHARD_GRAD_OP, 4) == pytest.approx(of(SHARD_GRAD_OP, 1))
    assert 3 < of(FULL_SHARD, 4) / of(FULL_SHARD, 1) < 4  # but for the root
    assert of(REPLICATED, 1) < 0.01 * of(FULL_SHARD, 1)


def test_gathers_on_cpu_ranks_take_their_time() -> None:
    # measured on two ranks of one thread, whose product reached 0.102 TFLOP/s and whose copy
    # 0.038 TB/s: the seconds of a rank's own, of 4 rows of 256 tokens of SmolLM2-135M
    measured = {REPLICATED: 7.42, FULL_SHARD: 8.06}
    cpu = Card("CPU", 10, 0.102, 0.038, SOCKETS, on_cpu=True)
    found = {}
    for sharding in measured:
        asked = Setting(
            KNOWN["smollm2-135m"],
            Weights(bytes=4),
            Adapter(),
            Batch(rows=4, length=256, document=256),
            Ranks(2, 1, sharding),
            kernels=PLAIN,
            on_cpu=True,
            element=4.0,
        )
        found[sharding] = seconds(asked, cpu).step
        assert found[sharding] == pytest.approx(measured[sharding], rel=0.15)
    assert found[FULL_SHARD] - found[REPLICATED] == pytest.approx(0.64, rel=0.25)
    assert ranked(asked, cpu, {SHARDING})[0].setting.ranks.sharding == REPLICATED


def test_weights_in_host_memory_are_copied_for_each_gather() -> None:
    batch = Batch(rows=1, length=512)
    here = replace(LORA, ranks=Ranks(2, 1, FULL_SHARD), batch=batch)
    there = replace(here, ranks=replace(here.ranks, cpu_offload=True))
    own = KNOWN["llama-2-7b"].linear * 2  # each half of bfloat16, forward and backward
    assert seconds(there, H100).step > own / 50e9 + own / 450e9
    full = replace(there, adapter=None, weights=Weights(trained=KNOWN["llama-2-7b"].weights))
    sharded = replace(full, ranks=here.ranks)
    slower = seconds(full, H100).optimizer - seconds(sharded, H100).optimizer
    assert slower == pytest.approx(full.trained * 7 * (1 / 50e9 - 1 / (3.35e12 * 0.75)))


def test_4_bit_weights_are_dequantised_each_time() -> None:
    four = replace(LORA, weights=Weights(bits=4))
    assert seconds(four, H100).dequantisation > 0 == seconds(LORA, H100).dequantisation


def test_cards_are_found_by_memory_name_and_device() -> None:
    assert card(80).name == "H100"
    assert card(80, "a100").name == "A100 80GB"
    assert card(0, "rtx4090").memory == 23.5
    assert card(24).memory == 22.5
    assert card(33).memory == pytest.approx(33 * 0.97)
    assert (card(33).name, card(33).like) == ("RTX 5090", "")
    # no known card has as much: its name is not taken for this one's
    assert (card(64).name, card(64).like) == ("GPU of 64 GB", "RTX 6000 Ada")
    assert (card(0.5).name, card(0.5).memory) == ("GPU of 0.5 GB", pytest.approx(0.485))
    assert of_device("NVIDIA A100-SXM4-40GB", 42_000_000_000).rate < 300
    found = of_device("NVIDIA H100 80GB HBM3", 84_929_282_048)
    assert found.rate == 772
    assert found.memory == pytest.approx(79.1, abs=0.01)
    with pytest.raises(KeyError):
        card(80, "abacus")
    assert len({each.name for each in CARDS}) == len(CARDS)
