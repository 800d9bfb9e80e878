"""Settings of the training loop that are invalid or would be ignored."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local.kernels.base import ModelKernel
from llama_recipes_local.policies import activation_policy
from llama_recipes_local.preflight.checks import LOOP, PRECISION, check_values, find_problems
from llama_recipes_local.run.resolution import resolve

PEFT = {"use_peft": True}
SELECTIVE = {"activation_policy": "selective"}


def problems_of(**flags: Any) -> list[str]:
    checks = (check_values, *PRECISION, *LOOP)
    return [problem.what for problem in find_problems(resolve(flags), checks)]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"gamma": 0.9},
        {"scheduler": "cosine", "warmup_steps": 10, "min_lr_ratio": 0.1},
        {"scheduler": "wsd", "wsd_decay_ratio": 0.2, "max_train_step": 100, "warmup_steps": 99},
        {"optimizer": "anyprecision"},
        {"optimizer": "AdamW", "enable_fsdp": True},
        {"optimizer": "paged_adamw"},
        {"optimizer": "adamw_8bit", "enable_fsdp": True, "sharding_strategy": "NO_SHARD"},
        {"eval_steps": 5},
        {"report_to": "tensorboard,wandb,mlflow"},
        {"use_fp16": True},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "enable_fsdp": True},
        {"fsdp_activation_checkpointing": False, "enable_fsdp": True},
        {"activation_policy": "keep"},
        {"activation_policy": "offload", "gradient_checkpointing": True},
        {"activation_policy": "keep", "gradient_checkpointing": False},
        SELECTIVE | {"use_fast_kernels": True} | PEFT,
    ],
)
def test_valid_settings(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ModelKernel, "unavailable", lambda self: "")
    assert problems_of(**flags) == []


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"scheduler": "cosin"}, "unknown --scheduler cosin"),
        ({"warmup_steps": -1}, "--warmup_steps is -1"),
        ({"eval_steps": -1}, "--eval_steps is -1"),
        ({"gamma": 0}, "--gamma is 0.0"),
        ({"gamma": -0.9}, "--gamma is -0.9"),
        (
            {"gradient_clipping": True, "gradient_clipping_threshold": -1},
            "--gradient_clipping_threshold is -1.0",
        ),
        ({"scheduler": "cosine", "min_lr_ratio": 1.5}, "--min_lr_ratio is 1.5"),
        ({"scheduler": "wsd", "wsd_decay_ratio": 0}, "--wsd_decay_ratio is 0.0"),
        (
            {"warmup_steps": 10, "max_train_step": 10},
            "--warmup_steps 10 with --max_train_step 10",
        ),
        ({"scheduler": "linear", "gamma": 0.9}, "--gamma with --scheduler linear"),
        ({"min_lr_ratio": 0.1}, "--min_lr_ratio with --scheduler step"),
        (
            {"scheduler": "cosine", "train_config.wsd_decay_ratio": 0.2},
            "--wsd_decay_ratio with --scheduler cosine",
        ),
        ({"optimizer": "lion"}, "unknown --optimizer lion"),
        (
            {"optimizer": "paged_adamw_8bit", "enable_fsdp": True},
            "--optimizer paged_adamw_8bit with weights that are sharded",
        ),
        (
            {"eval_steps": 5, "run_validation": False},
            "--eval_steps 5 with --run_validation False",
        ),
        ({"report_to": "tensorbord"}, "unknown --report_to tensorbord"),
        ({"use_fp16": True, "pure_bf16": True}, "--use_fp16 with --pure_bf16"),
        (
            {"gradient_checkpointing": False, "enable_fsdp": True},
            "--gradient_checkpointing False with --enable_fsdp",
        ),
        (
            {
                "train_config.gradient_checkpointing": True,
                "enable_fsdp": True,
                "fsdp_activation_checkpointing": False,
            },
            "--gradient_checkpointing True with --enable_fsdp",
        ),
        (SELECTIVE, "--activation_policy selective without --use_fast_kernels"),
        (
            SELECTIVE | {"use_fast_kernels": True, "peft_method": "prefix"} | PEFT,
            "--activation_policy selective with prefix",
        ),
        (
            SELECTIVE | {"gradient_checkpointing": True, "use_fast_kernels": True} | PEFT,
            "--activation_policy selective with --gradient_checkpointing True",
        ),
        ({"activation_policy": "sparse"}, "unknown --activation_policy sparse"),
        (
            {
                "activation_policy": "keep",
                "gradient_checkpointing": True,
                "enable_fsdp": True,
                "fsdp_activation_checkpointing": False,
            },
            "--activation_policy keep with --gradient_checkpointing True",
        ),
        (
            {"activation_policy": "full", "train_config.gradient_checkpointing": False},
            "--activation_policy full with --gradient_checkpointing False",
        ),
        (
            {
                "activation_policy": "offload",
                "fsdp_activation_checkpointing": False,
                "enable_fsdp": True,
            },
            "--activation_policy offload with --fsdp_activation_checkpointing False",
        ),
    ],
)
def test_invalid_settings_are_named(
    flags: dict[str, Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ModelKernel, "unavailable", lambda self: "")
    assert problems_of(**flags) == [what]


def test_without_its_kernels_norms_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelKernel, "unavailable", lambda self: "they run on CUDA only")
    flags = SELECTIVE | {"use_fast_kernels": True} | PEFT
    assert problems_of(**flags) == ["--activation_policy selective"]


@pytest.mark.parametrize("policy", ["offload", "auto"])
def test_inputs_of_layers_must_fit_into_host_memory(
    policy: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(activation_policy, "available_bytes", lambda: 1000)
    found = problems_of(activation_policy=policy, model_name=str(tiny_model))
    assert found == (["--activation_policy offload"] if policy == "offload" else [])
