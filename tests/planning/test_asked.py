"""A setting is what the flags of a run say."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.planning.asked import setting, with_data
from llama_recipes_local.planning.setting import (
    ALONE,
    DOCUMENTS,
    FROZEN,
    FULL,
    FUSED,
    HYBRID_SHARD,
    KEEP,
    MASKED,
    OFFLOAD,
    PLAIN,
    SCORED,
    Batch,
    Setting,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR, Shape, config_of, shape_of
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.run.weight_bits import packed_bits

PROJECT = Path(__file__).resolve().parents[2]
S7 = KNOWN["llama-2-7b"]


def of(world: int = 1, hosts: int = 1, **flags: Any) -> Setting:
    return setting(resolve(flags), S7, world, hosts)


@dataclass(frozen=True)
class Size:
    rows: int
    tokens: int
    label_tokens: int


def test_the_data_says_lengths_and_labels_and_bounds_the_validation() -> None:
    asked = of(run_validation=True)
    assert asked.validation is not None
    found = with_data(asked, Size(10, 700, 280), Size(1, 50, 20))
    assert (found.batch.document, found.batch.labelled) == (70, 0.4)
    assert found.validation is not None and found.validation.tokens == 50
    assert with_data(asked, None, Size(9, 10**12, 9)) == asked


def test_full_fine_tuning_is_the_default() -> None:
    found = of()
    assert found.trained == S7.weights
    assert (found.ranks.sharding, found.policy, found.kernels) == (ALONE, KEEP, PLAIN)
    assert of(use_fast_kernels="True").kernels == FROZEN
    assert of(use_fast_kernels="True", use_fp16="True").kernels == FUSED
    assert of(fp8="True").weights.trained_in_fp8 and not of(fp8="True").weights.fp8
    assert of(fp8="True", freeze_layers="True").weights.fp8
    assert of(dtype="float32").weights.bytes == 4
    assert of(use_fp16="True").weights.bytes == 4


def test_an_adapter_is_what_its_flags_say() -> None:
    lora = {"use_peft": "True", "use_fast_kernels": "True"}
    found = of(**lora, r="16", target_modules="all-linear", lora_dropout="0")
    assert found.adapter is not None
    assert (found.adapter.rank, found.adapter.targets) == (16, frozenset(LINEAR))
    assert not found.adapter.drops
    assert found.weights.trained == 0
    assert found.kernels == FROZEN
    assert of(**lora, use_dora="True").kernels == FUSED
    bf16 = of(**lora, pure_bf16="True")
    assert bf16.adapter is not None
    assert bf16.adapter.bytes == 2
    prefix = of(**lora, peft_method="prefix", num_virtual_tokens="7")
    assert prefix.trained == 32 * 7 * 2 * 4096


def test_recomputation_is_named_by_another_flag_with_fsdp() -> None:
    assert of(gradient_checkpointing="True").policy == FULL
    fast = {"use_fast_kernels": "True"}
    assert of(**fast, gradient_checkpointing="True").policy == OFFLOAD
    assert of(**fast, activation_policy="full").policy == FULL
    assert of(**fast).policy == KEEP
    sharded = of(4, enable_fsdp="True")
    assert (sharded.policy, sharded.ranks.world, sharded.ranks.shards) == (FULL, 4, 4)
    assert of(4, enable_fsdp="True", fsdp_activation_checkpointing="False").policy == KEEP
    grouped = of(8, 2, enable_fsdp="True", hsdp="True", sharding_group_size="2")
    assert (grouped.ranks.sharding, grouped.ranks.shards) == (HYBRID_SHARD, 2)
    assert of(8, 2, enable_fsdp="True", sharding_strategy="HYBRID_SHARD").ranks.shards == 4


def test_attention_is_that_of_the_rows() -> None:
    flash = of(attn_implementation="flash_attention_2")
    assert of().attention == flash.attention == DOCUMENTS
    assert (of().flash, flash.flash) == (False, True)
    assert of(attn_implementation="sdpa").attention == MASKED
    assert of(attn_implementation="eager").attention == SCORED
    padded = of(batching_strategy="padding")
    assert padded.is_masked and not of(attn_implementation="eager").is_masked
    assert not replace(padded, batch=Batch(rows=1)).is_masked


@pytest.mark.parametrize(("bits", "held"), [(4, 4), (3, 4), (8, 8)])
def test_weights_that_a_folder_has_packed_stay_so(bits: int, held: int) -> None:
    config = config_of(S7) | {"quantization_config": {"quant_method": "gptq", "bits": bits}}
    run = resolve({"use_peft": "True", "use_fast_kernels": "True"})
    found = setting(run, S7, packed=packed_bits(config))
    assert (found.weights.bits, found.kernels) == (held, FUSED)
    # 128 weights share a scale of 16 bits and a zero point of 4
    if held == 4:
        assert found.weights.of_linear == pytest.approx((4 + 20 / 128) / 8, rel=0.01)
    assert packed_bits({"quantization_config": {"quant_method": "awq", "bits": 4}}) == 4
    for other in ({}, {"quantization_config": {"quant_method": "fp8"}}):  # is dequantised
        assert packed_bits(other) == 0


def test_parts_of_a_model_are_trained() -> None:
    last = of(train_only="last:3")
    assert (last.trained, last.layers) == (3 * S7.layer, 3)
    assert of(train_only="lm_head").layers == 0
    frozen = of(freeze_layers="True", num_freeze_layers="30")
    assert frozen.trained == S7.weights - 30 * S7.layer


@pytest.mark.parametrize("bits", [("4bit", 4), ("8bit", 8), ("True", 8), ("None", 0)])
def test_weights_are_quantised(bits: tuple[str, int]) -> None:
    found = of(quantization=bits[0], use_double_quant="True").weights
    assert (found.bits, found.double) == (bits[1], True)


def test_a_config_is_read_and_another_architecture_is_not() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "tie_word_embeddings": True,
    }
    shape = shape_of(config)
    assert shape is not None
    assert (shape.keys, shape.tied, shape.layer) == (32, True, 64 * 64 * 3 + 3 * 64 * 128)
    for wrong in ({"model_type": "gpt2"}, {"hidden_size": "64"}, {"num_hidden_layers": 0}):
        assert shape_of({**config, **wrong}) is None


@pytest.mark.command
def test_flags_are_resolved_without_torch() -> None:
    flags = {
        "use_peft": "True",
        "enable_fsdp": "True",
        "sharding_strategy": "ShardingStrategy.SHARD_GRAD_OP",
        "fsdp_config.optimizer": "anyprecision",
        "compute_dtype": "bf16",
    }
    code = f"""
import sys
from llama_recipes_local.fields import word_of
from llama_recipes_local.run.resolution import resolve
run = resolve({flags!r})
print(word_of(run.fsdp, "sharding_strategy"), run.is_sharded, "torch" in sys.modules)
print(run.fsdp.sharding_strategy, run.quantization.compute_dtype)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "SHARD_GRAD_OP True False",
        "ShardingStrategy.SHARD_GRAD_OP torch.bfloat16",
    ]


@pytest.mark.parametrize("shape", KNOWN.values(), ids=list(KNOWN))
def test_a_shape_is_that_of_its_configuration(shape: Shape) -> None:
    assert shape_of(config_of(shape)) == shape
