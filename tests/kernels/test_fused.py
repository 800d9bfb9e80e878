"""Where fused kernels can run and where not; ``tests/cuda`` shows that they compute the same."""

from pathlib import Path

import pytest

from llama_recipes_local import models
from llama_recipes_local.extras import install_extra
from llama_recipes_local.kernels import base
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve


def load(folder: Path, **flags: bool) -> None:
    with activate(resolve({"model_name": str(folder), **flags})):
        models.LlamaForCausalLM.from_pretrained(folder)


def test_without_cuda_the_reason_is_printed(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "device_type", lambda: "cpu")
    load(tiny_model, use_fast_kernels=True)
    assert "Fused kernels: none, they run on CUDA only" in capsys.readouterr().out


def test_without_liger_the_command_that_brings_it_is_printed(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "device_type", lambda: "cuda")
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    load(tiny_model, use_fast_kernels=True)
    reason = f"liger-kernel is not installed; {install_extra('fast')}"
    assert f"Fused kernels: none, {reason}" in capsys.readouterr().out


def test_without_the_flag_nothing_is_fused_or_printed(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(tiny_model)
    assert "Fused kernels" not in capsys.readouterr().out
