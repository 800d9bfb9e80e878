"""What ``--activation_policy`` sets, and where the inputs of recomputed layers stay."""

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import frozen
from llama_recipes_local.policies import activation_policy, apply_activation_policy
from llama_recipes_local.policies.activation_policy import implied_flags, where_inputs_stay
from llama_recipes_local.preflight.all_problems import _resolved as resolved
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.storage import host_memory

SIZES = {"num_hidden_layers": 32, "hidden_size": 4096}
FAST = {"use_fast_kernels": True}


@pytest.mark.parametrize(
    ("flags", "implied"),
    [
        ({}, {}),
        ({"activation_policy": "keep"}, {"gradient_checkpointing": False}),
        ({"activation_policy": "selective"}, {"gradient_checkpointing": False}),
        ({"activation_policy": "full"}, {"gradient_checkpointing": True}),
        ({"activation_policy": "offload"}, {"gradient_checkpointing": True}),
        (
            {"activation_policy": "keep", "enable_fsdp": True},
            {"fsdp_activation_checkpointing": False},
        ),
        ({"activation_policy": "offload", "train_config.gradient_checkpointing": True}, {}),
    ],
)
def test_what_it_sets(flags: dict[str, Any], implied: dict[str, bool]) -> None:
    assert implied_flags(resolve(flags)) == implied


@pytest.mark.parametrize("policy", ["keep", "selective", "auto"])
def test_it_comes_before_a_recipe(tiny_model: Path, policy: str) -> None:
    flags = {"config": "qlora", "model_name": str(tiny_model), "activation_policy": policy}
    run, problems = resolved((), flags)
    assert problems == [] and run.train.gradient_checkpointing is (policy == "auto")


@pytest.mark.parametrize(
    ("flags", "device", "chosen", "reason"),
    [
        ({}, "cuda", "full", ""),
        (FAST, "cuda", "offload", "copied while layers"),
        (FAST, "cpu", "full", ""),
        (FAST | {"activation_policy": "full"}, "cuda", "full", "--activation_policy full"),
        ({"activation_policy": "offload"}, "cuda", "offload", "--activation_policy offload"),
        ({"activation_policy": "offload"}, "cpu", "full", "it is in host memory already"),
        (FAST | {"batch_size_training": 64}, "cuda", "full", "32 layers take 64.0 GiB"),
        (FAST | {"dtype": "float32"}, "cuda", "offload", "copied while layers"),
        (FAST | {"dtype": "float32", "context_length": 8192}, "cuda", "full", "take 16.0 GiB"),
    ],
)
def test_where_inputs_stay(
    flags: dict[str, Any],
    device: str,
    chosen: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(activation_policy, "available_bytes", lambda: 15 * 2**30)
    policy, why = where_inputs_stay(resolve(flags), SIZES, device)
    assert policy == chosen and reason in why and bool(reason) == bool(why)


def test_without_a_run_they_stay_on_the_device() -> None:
    assert where_inputs_stay(None, SIZES, "cuda") == ("full", "")


def test_each_rank_of_a_host_needs_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_policy, "available_bytes", lambda: 15 * 2**30)
    train = resolve({"batch_size_training": 8}).train
    assert activation_policy.lacking_host_memory(train, SIZES) == ""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "take 16.0 GiB" in activation_policy.lacking_host_memory(train, SIZES)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("meminfo", "max", "current")]
    files[0].write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    files[1].write_text("max\n")
    files[2].write_text("1000\n")
    monkeypatch.setattr(host_memory, "_FIGURES", files[0])
    monkeypatch.setattr(host_memory, "_LIMITS", ((files[1], files[2]),))
    assert host_memory.available_bytes() == 5000 * 1024
    files[1].write_text("3000\n")
    assert host_memory.available_bytes() == 2000
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\nactive_file 200\n")
    assert host_memory.available_bytes() == 2300
    (tmp_path / "memory.stat").unlink()
    for file in files:
        file.unlink()
    assert host_memory.available_bytes() is None


@pytest.mark.parametrize(
    ("flags", "recomputes", "remakes"),
    [
        ({}, False, False),
        ({"gradient_checkpointing": True}, True, False),
        ({"gradient_checkpointing": True, "enable_fsdp": True}, False, False),  # main has done it
        ({"activation_policy": "selective"}, False, True),
    ],
)
def test_what_the_training_loop_applies(
    flags: dict[str, Any], recomputes: bool, remakes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, vocab_size=8))
    frozen.install(model)
    apply_activation_policy(model, resolve(flags).train)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [recomputes] * 2
    assert [layer.remakes_norms for layer in model.model.layers] == [remakes] * 2
    assert ("norms' outputs of 2 layers" in capsys.readouterr().out) == remakes
