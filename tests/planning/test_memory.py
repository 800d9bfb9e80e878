"""Parts of the memory, worked out by hand, and the peaks that were measured."""

import weakref
from dataclasses import replace

import predictions
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.planning.memory import GIB, memory
from llama_recipes_local.planning.setting import (
    DOCUMENTS,
    FROZEN,
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
    Validation,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR, Shape, config_of

S7 = KNOWN["llama-2-7b"]
ALL = frozenset(LINEAR)
LORA = Setting(S7, adapter=Adapter(), batch=Batch(rows=2))
WHOLE = Setting(S7, Weights(trained=S7.weights), kernels=FUSED)


def test_a_validation_keeps_no_layer_but_may_have_a_larger_batch() -> None:
    recomputed = Setting(S7, adapter=Adapter(), batch=Batch(rows=1), policy=FULL)
    weights = memory(recomputed).weights
    small = replace(recomputed, validation=Validation(4096))
    assert memory(small) == memory(recomputed)
    large = memory(replace(recomputed, validation=Validation(64 * 4096)))
    assert large.gradients == large.activations == large.layer == 0 < large.adapter
    # three features of the MLP and of the stream a token, in bfloat16
    assert large.validation == 64 * 4096 * 3 * (11008 + 4096) * 2
    assert large.weights == weights
    # keys and values of 32 layers of 8 answers, of 612 tokens
    answers = memory(replace(recomputed, validation=Validation(1, 8 * 612)))
    assert answers.validation == 8 * 612 * 2 * 4096 * 32 * 2
    plain = replace(recomputed, kernels=PLAIN, validation=Validation(64 * 4096))
    assert memory(plain).validation > 64 * 4096 * 32000 * 10  # logits, in two dtypes


@pytest.mark.parametrize("run", predictions.recorded(), ids=lambda run: run.name)
def test_a_measured_peak_is_predicted(run: predictions.Recorded) -> None:
    assert run.predicted_gib == pytest.approx(run.gib, rel=predictions.OF_MEMORY)


def test_parts_of_lora_are_those_worked_out_by_hand() -> None:
    parts = memory(replace(LORA, batch=Batch(rows=2, accumulation=2)))
    # 6,738,415,616 weights of 2 bytes; q and v of 32 layers have 8 x (4096 + 4096) weights each,
    # which are held in float32 with as large a gradient and two moments
    assert parts.weights == 2 * 6_738_415_616
    adapter = 32 * 2 * 8 * 8192
    assert parts.adapter == parts.gradients == 4 * adapter
    assert parts.moments == 8 * adapter
    # 8192 tokens keep the stream twice, an input, q, k, v and the output of attention, of 4096
    # features; gate and up of 11008; a number a head, and 16 of the adapters
    features = 7 * 4096 + 2 * 11008 + 2 * 32 + 16
    assert parts.activations == 32 * 2 * 8192 * features


def test_full_fine_tuning_keeps_four_times_its_weights() -> None:
    parts = memory(replace(WHOLE, batch=Batch(accumulation=2)))
    assert parts.weights == parts.gradients == parts.moments / 2 == 2 * S7.weights


@pytest.mark.parametrize(
    ("optimizer", "bytes_a_weight"), [("adamw", 4), ("adamw_8bit", 2), ("paged_adamw", 0)]
)
def test_an_optimizers_moments(optimizer: str, bytes_a_weight: int) -> None:
    found = memory(replace(WHOLE, optimizer=optimizer)).moments
    assert found == bytes_a_weight * S7.weights


def test_float32_weights_that_are_trained_have_a_copy_in_half_precision() -> None:
    wide = replace(WHOLE, weights=Weights(trained=S7.weights, bytes=4))
    assert memory(wide).weights == (4 + 2) * S7.weights
    assert memory(replace(wide, element=4.0)).weights == 4 * S7.weights  # computed in float32
    sharded = replace(wide, ranks=Ranks(4, 1, FULL_SHARD))
    assert memory(sharded).weights == S7.weights
    replicas = replace(wide, ranks=Ranks(4, 1, REPLICATED))
    assert memory(replicas).weights == (4 + 2) * S7.weights


def test_float32_activations_are_twice_as_large() -> None:
    plain = replace(LORA, kernels=PLAIN)
    # but for both norms' inputs, which are kept in float32 anyway
    norms = 32 * 2 * 8192 * 4 * 4096
    twice = 2 * memory(plain).activations - norms
    assert memory(replace(plain, element=4.0)).activations == twice


def test_quantised_weights_have_scales() -> None:
    linear, others = S7.linear, S7.others
    for weights, bytes_a_weight in (
        (Weights(bits=4), 0.5 + 4 / 64),
        (Weights(bits=4, double=True), 0.5 + 1 / 64 + 4 / 16384),
        (Weights(bits=8), 1),
        (Weights(fp8=True), 1),
    ):
        found = memory(replace(LORA, weights=weights)).weights
        assert found == pytest.approx(bytes_a_weight * linear + 2 * others)


def test_recomputation_keeps_a_layers_input_and_offload_keeps_two() -> None:
    stream = 2 * 8192 * 4096
    assert memory(replace(LORA, policy=FULL)).activations == 32 * stream
    assert memory(replace(LORA, policy=OFFLOAD)).activations == 2 * stream
    again = replace(LORA, policy=FULL, tiles=False)
    kept = memory(LORA).activations / 32
    assert memory(again).layer - memory(LORA).layer == kept
    # in tiles of 4,096 tokens the MLP's three wide tensors are half as large, and not two are kept
    saved = 2 * 11008 * (2 * 8192 + 3 * (8192 - 4096))
    assert memory(again).layer - memory(replace(LORA, policy=FULL)).layer == saved


def test_shards_divide_and_replicas_do_not() -> None:
    def of(sharding: str, hosts: int = 1) -> float:
        return memory(replace(WHOLE, ranks=Ranks(8, hosts, sharding))).moments

    whole = 4 * S7.weights
    assert of(FULL_SHARD) == of(SHARD_GRAD_OP) == whole / 8
    assert of(HYBRID_SHARD, hosts=2) == whole / 4
    assert of(REPLICATED) == whole


def test_fsdp_gathers_two_layers_or_all() -> None:
    sharded = memory(replace(LORA, ranks=Ranks(4, 1, FULL_SHARD))).gathered
    assert sharded == 2 * S7.others + 2 * 2 * S7.layer
    grads = replace(LORA, ranks=Ranks(4, 1, SHARD_GRAD_OP))
    assert memory(grads).gathered == 2 * S7.weights
    replicas = replace(LORA, ranks=Ranks(4, 1, REPLICATED))
    assert memory(replicas).gathered == 0
    assert memory(replace(replicas, copies=True)).gathered == 2 * S7.weights


def test_replicas_average_some_gradients_of_half_precision_in_float32() -> None:
    replicas = replace(WHOLE, ranks=Ranks(4, 1, REPLICATED))
    assert memory(replicas).gathered == 4 * S7.layer
    wide = replace(replicas, weights=Weights(trained=S7.weights, bytes=4))
    assert memory(wide).gathered == 0
    few = replace(LORA, adapter=Adapter(bytes=2), ranks=Ranks(4, 1, REPLICATED))
    assert memory(few).gathered == 4 * 32 * 2 * 8 * 8192


def test_fsdp_accumulates_whole_gradients_in_float32() -> None:
    ranks = Ranks(4, 1, FULL_SHARD)
    twice = replace(WHOLE, ranks=ranks, batch=Batch(accumulation=2))
    assert memory(twice).gradients == 4 * S7.weights
    recomputed = replace(WHOLE, ranks=ranks, policy=FULL)
    assert memory(recomputed).gradients == 2 * S7.weights / 4


def test_the_only_micro_batch_makes_gradients_while_its_activations_go() -> None:
    once = replace(WHOLE, batch=Batch(rows=4))
    at_first, kept = memory(once), memory(replace(once, batch=Batch(rows=4, accumulation=2)))
    assert at_first.gradients == 2 * S7.head  # which the loss has made
    assert at_first.activations == kept.activations
    assert kept.gradients == 2 * S7.weights
    # a row of 256 tokens keeps less than the gradients take: the peak is in the first layer
    at_last = memory(replace(once, batch=Batch(length=256)))
    assert at_last.gradients == 2 * S7.weights
    assert at_last.activations == at_first.activations / 32 / 64
    # DDP's buckets stay, and what SHARD_GRAD_OP has gathered does not
    four = Ranks(4, 1, REPLICATED)
    assert memory(replace(once, ranks=four)).gradients == 2 * S7.weights
    short = replace(once, batch=Batch(length=256))
    sharded = replace(short, ranks=Ranks(4, 1, SHARD_GRAD_OP))
    assert memory(sharded).gradients == 2 * S7.head
    sharded = replace(short, ranks=Ranks(4, 1, FULL_SHARD))
    assert memory(sharded).gradients == 2 * S7.weights / 4


def test_only_transformers_makes_all_logits() -> None:
    long = replace(LORA, batch=Batch(rows=8), policy=FULL)
    assert memory(replace(long, kernels=PLAIN)).loss > 12 * 8 * 4096 * 32000
    assert memory(long).loss == 0  # the peak is in a layer


def test_nothing_is_kept_below_what_is_trained() -> None:
    whole = replace(WHOLE, batch=Batch(accumulation=2))
    head = replace(whole, weights=Weights(trained=S7.head, layers=0))
    assert memory(head).activations == 0
    last = replace(whole, weights=Weights(trained=2 * S7.layer, layers=2))
    assert memory(last).activations == memory(whole).activations / 16


def test_all_parts_are_in_the_peak() -> None:
    for run in predictions.recorded():
        found = memory(run.setting)
        assert sum(found.parts().values()) == pytest.approx(found.peak / GIB, abs=0.05)
        assert not (found.loss and found.layer)


@pytest.mark.parametrize("name", ["llama-3.2-1b", "smollm2-135m", "llama-2-70b", "llama-3.1-8b"])
def test_a_shape_has_the_weights_that_transformers_makes(name: str) -> None:
    shape = KNOWN[name]
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=2,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        head_dim=shape.head_dim or None,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sum(each.numel() for each in model.parameters()) == replace(shape, layers=2).weights


@pytest.mark.parametrize(
    ("weights", "kernels", "measured"),
    [
        (Weights(trained=S7.weights), FUSED, 82.9),
        (Weights(trained=S7.weights), FROZEN, 77.6),
        (Weights(trained=S7.weights, trained_in_fp8=True), FROZEN, 77.1),
    ],
)
def test_a_whole_model_takes_what_was_measured(
    weights: Weights, kernels: str, measured: float
) -> None:
    """7B, two rows of 4,096 tokens, twice, on one H200, of which 40% had labels."""
    batch = Batch(rows=2, accumulation=2, document=60, labelled=0.4)
    found = memory(Setting(S7, weights, batch=batch, kernels=kernels)).peak / GIB
    assert found == pytest.approx(measured, rel=0.01)


def test_dora_keeps_what_peft_keeps_of_it() -> None:
    shape = Shape(64, 176, 1, 4, 2, 32)
    batch = Batch(rows=1, length=512)
    targets = frozenset(("q_proj", "v_proj", "up_proj"))
    lora = Adapter(targets=targets, drops=False)
    asked = Setting(shape, adapter=lora, batch=batch, kernels=FUSED)
    dora = replace(asked, adapter=replace(lora, dora=True))
    predicted = memory(dora).activations - memory(asked).activations
    assert predicted == 2 * 512 * 2 * (64 + 32 + 176)
    assert kept_by_peft(dora) - kept_by_peft(asked) == pytest.approx(predicted, rel=0.05)


@pytest.mark.parametrize("attention", [MASKED, SCORED])
def test_a_mask_and_scores_are_kept_as_transformers_keeps_them(attention: str) -> None:
    asked = Setting(
        Shape(64, 176, 2, 4, 2, 32),
        adapter=Adapter(drops=False),
        batch=Batch(rows=1, length=512),
        kernels=FUSED,
    )
    other = replace(asked, attention=attention)
    predicted = memory(other).activations - memory(asked).activations
    assert kept_by_peft(other) - kept_by_peft(asked) == pytest.approx(predicted, rel=0.05)


def test_scores_of_a_7b_do_not_fit() -> None:
    # 32 layers x 32 heads x 2 rows x 4,096 x 4,096 scores, 4 bytes and 2
    scores = memory(replace(LORA, attention=SCORED)).activations - memory(LORA).activations
    assert scores == pytest.approx(32 * 32 * 2 * 4096**2 * 6, rel=0.01)


WHOLE_WIDE = Weights(trained=1, bytes=4)


@pytest.mark.parametrize(
    ("weights", "adapter", "element"),
    [
        (Weights(trained=1), None, 2.0),
        (WHOLE_WIDE, None, 2.0),
        (WHOLE_WIDE, None, 4.0),
        (Weights(bytes=4), Adapter(targets=frozenset(("q_proj",)), drops=False), 2.0),
        (Weights(bytes=4), Adapter(targets=frozenset(("q_proj",)), drops=False), 4.0),
    ],
    ids=["bfloat16", "float32, cast", "float32", "LoRA on float32, cast", "LoRA on float32"],
)
def test_a_layer_keeps_what_transformers_keeps_of_it(
    weights: Weights, adapter: Adapter | None, element: float
) -> None:
    """Between models of three layers and of one, so that the loss is left out."""
    kept, predicted = [], []
    for layers in (3, 1):
        shape = Shape(64, 176, layers, 4, 2, 32)
        own = replace(weights, trained=shape.weights if weights.trained else 0)
        batch = Batch(rows=1, length=512)
        asked = Setting(shape, own, adapter, batch, kernels=PLAIN, element=element)
        kept.append(kept_by_peft(asked))
        found = memory(asked)
        predicted.append(found.activations + found.weights - own.bytes * shape.weights)
    assert kept[0] - kept[1] == pytest.approx(predicted[0] - predicted[1], rel=0.02)


def kept_by_peft(setting: Setting) -> int:
    """Return the bytes that transformers' model with PEFT's adapter keeps for its backward pass."""
    adapter = setting.adapter
    kernel = "eager" if setting.attention == SCORED else "sdpa"
    config = LlamaConfig(**config_of(setting.shape), attn_implementation=kernel)
    dtype = torch.float32 if setting.weights.bytes == 4 else torch.bfloat16
    adapted: torch.nn.Module = LlamaForCausalLM(config).to(dtype).train()
    if adapter is not None:
        settings = LoraConfig(
            r=adapter.rank, target_modules=list(adapter.targets), use_dora=adapter.dora
        )
        adapted = get_peft_model(adapted, settings).train()
    own = {weight.untyped_storage().data_ptr() for weight in adapted.parameters()}
    kept: list[weakref.ref[torch.Tensor]] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(weakref.ref(x))
        return x

    ids = torch.zeros(1, setting.batch.length, dtype=torch.long)
    positions = torch.arange(setting.batch.length)[None]
    if setting.attention != DOCUMENTS:  # two in a row
        positions = positions % (setting.batch.length // 2)
    casts = torch.autocast("cpu", torch.bfloat16, enabled=setting.element == 2)
    with casts, saved_tensors_hooks(keep, lambda x: x):
        loss = adapted(input_ids=ids, labels=ids, position_ids=positions, use_cache=False).loss
    assert loss.requires_grad
    storages = {x.untyped_storage() for x in (each() for each in kept) if x is not None}
    return sum({x.data_ptr(): x.nbytes() for x in storages if x.data_ptr() not in own}.values())


def test_lora_on_the_embedding_and_the_head_is_counted_once() -> None:
    s8 = KNOWN["llama-3.1-8b"]
    ends = Adapter(rank=16, targets=frozenset(("embed_tokens", "lm_head")))
    assert ends.weights(s8) == 2 * 16 * (4096 + 128256)
    both = replace(ends, targets=ends.targets | {"q_proj"})
    assert both.weights(s8) == ends.weights(s8) + 32 * 16 * (4096 + 4096)
    assert Setting(s8, adapter=both).adapted == {"q_proj"}
    memory(Setting(s8, adapter=both, kernels=PLAIN))


def test_scores_are_the_peak_of_a_layer_and_of_a_validation() -> None:
    scored = replace(LORA, attention=SCORED, policy=FULL)
    pairs = 32 * 4096  # of heads and keys for each token
    tokens = 2 * 4096
    # gradients of queries, keys and values and of what attention puts out give way to the scores'
    more = memory(scored).layer - memory(replace(scored, attention=MASKED)).layer
    assert more > 2 * tokens * (3 + 4) * pairs - GIB
    validated = replace(scored, validation=Validation(64 * 4096))
    features = 3 * (11008 + 4096) + 5 * pairs
    assert memory(validated).validation == 2 * 64 * 4096 * features


def test_recomputed_layers_of_wide_weights_are_cast_one_at_a_time() -> None:
    wide = replace(LORA, weights=Weights(bytes=4), kernels=PLAIN)
    kept, again = (memory(replace(wide, policy=policy)).weights for policy in ("keep", FULL))
    assert kept - again == pytest.approx(2.0 * 31 * S7.layer)
