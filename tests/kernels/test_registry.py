"""Kernels are listed once: a flag's choices, what "auto" means, and what is put into models."""

import pytest
import transformers
from torch import nn

from llama_recipes_local import configs
from llama_recipes_local.fields import facts
from llama_recipes_local.kernels import registry
from llama_recipes_local.kernels.base import ModelKernel


@pytest.mark.parametrize(("model_type", "chosen"), [("llama", "documents"), ("mllama", "sdpa")])
def test_auto_is_chosen_by_the_type_of_model(model_type: str, chosen: str) -> None:
    assert registry.choose_attention("auto", model_type) == chosen
    assert registry.choose_attention("eager", model_type) == "eager"


def test_each_implementation_is_a_value_of_the_flag() -> None:
    choices = facts(configs.train_config)["attn_implementation"].choices
    assert choices is not None and choices.values == ("auto", *registry.ATTENTION)


def test_each_type_of_model_has_one_default() -> None:
    defaults = [kind for kernel in registry.ATTENTION.values() for kind in kernel.default_for]
    assert sorted(defaults) == ["llama", "mllama"]


def test_transformers_knows_each_implementation() -> None:
    registry.register_attention()
    known = {"eager", *transformers.AttentionInterface().valid_keys()}
    assert set(registry.ATTENTION) <= known


def test_every_model_kernel_has_a_flag() -> None:
    assert registry.MODEL_KERNELS
    assert all(hasattr(configs.train_config, kernel.flag) for kernel in registry.MODEL_KERNELS)


def test_a_kernel_is_a_line_and_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def install(model: nn.Module) -> str:
        model.add_module("new", nn.Identity())
        return "the new one"

    arguments = {"replaces": "nothing", "title": "New", "flag": "use_fp16", "install": install}
    runs, lacks = ModelKernel(**arguments), ModelKernel(**arguments, package="no_such_package")
    monkeypatch.setattr(registry, "MODEL_KERNELS", [runs, lacks])
    model, train = nn.Module(), configs.train_config()
    registry.install_model_kernels(model, train)
    assert not capsys.readouterr().out and not list(model.children())
    train.use_fp16 = True
    registry.install_model_kernels(model, train)
    assert capsys.readouterr().out.startswith(
        "--> New: the new one\n--> New: none, no-such-package is not installed; "
    )
    assert len(list(model.children())) == 1
