"""Inputs of layers that go to host memory come back as they were, and leave nothing behind.

On a CPU the same happens in copies; ``tests/cuda`` has the streams.
"""

import copy
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.library_patches import TargetMissingError
from llama_recipes_local.policies import offload
from llama_recipes_local.policies.offload import HostInputs, offload_inputs

LAYERS = 4
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "use_cache": False,
    "attention_dropout": 0.2,
}


def rows(length: int) -> torch.Tensor:
    return torch.arange(2 * length).reshape(2, length) * 7 % 100


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[HostInputs]:
    """What keeps the inputs of each model, in blocks of two rows."""
    made: list[HostInputs] = []

    class Kept(HostInputs):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(offload, "HostInputs", Kept)
    monkeypatch.setattr(offload, "_MOST", 256)
    return made


@pytest.fixture
def models() -> tuple[Any, Any]:
    """A model with activation checkpointing, and the same one that keeps its inputs here."""
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SHAPE)).train()
    both = plain, copy.deepcopy(plain)
    for model in both:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return both


def step(model: Any, length: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)
    loss = model(input_ids=rows(length), labels=rows(length)).loss
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


def check_equal(one: Any, two: Any, length: int = 9) -> None:
    (loss, gradients), (other_loss, others) = step(one, length), step(two, length)
    assert torch.equal(loss, other_loss) and len(gradients) == len(others)
    assert all(torch.equal(*pair) for pair in zip(gradients, others, strict=True))


def test_no_bit_changes_and_blocks_are_used_again(models: Any, inputs: list[HostInputs]) -> None:
    offload_inputs(models[1])
    most = 0
    for length in (9, 3, 17, 17, 2):  # gradients are accumulated
        check_equal(*models, length)
        (kept,) = inputs
        most = max(most, length)
        assert kept._moving is None and len(kept._free) == LAYERS * most


def test_only_the_last_layers_input_stays(models: Any, inputs: list[HostInputs]) -> None:
    _, model = models
    offload_inputs(model)
    seen = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(
            lambda _, args: seen.append(StorageWeakRef(args[0].untyped_storage()))
        )
    loss = model(input_ids=rows(9), labels=rows(9)).loss
    assert [ref.expired() for ref in seen[:LAYERS]] == [True] * (LAYERS - 1) + [False]
    loss.backward()
    assert all(ref.expired() for ref in seen)


def test_the_input_before_comes_back_early(inputs: list[HostInputs]) -> None:
    kept = offload.HostInputs()
    tensors = [torch.randn(2, 5, 7) for _ in range(3)]
    packed = [kept.pack(x) for x in tensors]
    for number in (2, 1, 0):
        assert torch.equal(kept.unpack(packed[number]), tensors[number])
        assert kept._moving is None or kept._moving.input is packed[number - 1]
        assert (kept._moving is None) == (number == 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_any_tensor_and_any_order(dtype: torch.dtype, inputs: list[HostInputs]) -> None:
    kept = offload.HostInputs()
    tensors = [torch.randn(3, n, 11).to(dtype).transpose(1, 2) for n in (5, 1, 40)]
    packed = [kept.pack(x) for x in tensors]
    for number in (1, 0, 2, 2, 1):
        assert torch.equal(kept.unpack(packed[number]), tensors[number])


def test_a_graph_that_is_dropped_gives_its_blocks_back(
    models: Any, inputs: list[HostInputs]
) -> None:
    offload_inputs(models[1])
    loss = models[1](input_ids=rows(9), labels=rows(9)).loss
    (kept,) = inputs
    assert not kept._free
    del loss
    check_equal(*models)
    assert len(kept._free) == LAYERS * 9


def test_after_a_step_that_failed_the_next_one_is_right(
    models: Any, inputs: list[HostInputs]
) -> None:
    plain, ours = models
    offload_inputs(ours)

    def fail(*_: Any) -> None:
        raise RuntimeError("as asked for")

    for where in ("forward", "backward"):
        layer = ours.model.layers[2].mlp
        register = layer.register_full_backward_hook if where == "backward" else None
        handle = (register or layer.register_forward_hook)(fail)
        with pytest.raises(RuntimeError, match="as asked for"):
            step(ours, 9)
        handle.remove()
        ours.zero_grad()
        plain.zero_grad()
        check_equal(plain, ours)


def test_a_graph_can_be_gone_through_twice(models: Any, inputs: list[HostInputs]) -> None:
    offload_inputs(models[1])
    found = []
    for model in models:
        torch.manual_seed(1)
        loss = model(input_ids=rows(9), labels=rows(9)).loss
        loss.backward(retain_graph=True)
        loss.backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_two_micro_batches_at_once(models: Any, inputs: list[HostInputs]) -> None:
    offload_inputs(models[1])
    found = []
    for model in models:
        torch.manual_seed(1)
        losses = [model(input_ids=rows(n), labels=rows(n)).loss for n in (9, 4)]
        sum(losses).backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_frozen_first_layers_and_evaluation(models: Any, inputs: list[HostInputs]) -> None:
    offload_inputs(models[1])
    for model in models:
        model.requires_grad_(False)
        model.model.layers[-1].requires_grad_(True)
    check_equal(*models)
    evaluated = [model.eval()(input_ids=rows(9)).logits for model in models]
    assert torch.equal(*evaluated)
    (kept,) = inputs
    assert len(kept._free) <= LAYERS * 9


def test_an_empty_tensor_is_left_alone() -> None:
    """As torch 2.11 saves one with the inputs."""
    kept = HostInputs()
    assert kept.unpack(kept.pack(torch.empty(0))).shape == (0,)
    x = torch.randn(3)
    assert torch.equal(kept.unpack(kept.pack(x)), x)


def test_host_memory_that_cannot_be_pinned_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(TrainingError, match="fix: keep inputs on the device: --activation_policy"):
        HostInputs().pack(torch.ones(3))


def test_what_a_layer_saves_itself_is_not_moved() -> None:
    kept = HostInputs()
    x = torch.randn(5, 3, requires_grad=True)
    moved = []
    pack = kept.pack
    kept.pack = lambda x: moved.append(x.shape) or pack(x)  # type: ignore[method-assign,func-returns-value]
    run = kept.wrap(checkpoint)
    run(lambda x: (x.sin() * x).exp(), x, use_reentrant=False).sum().backward()
    # torch 2.11's checkpoint saves an empty tensor of its own
    assert [shape for shape in moved if shape.numel()] == [x.shape]


def test_a_model_without_checkpoints_is_an_error() -> None:
    with pytest.raises(TargetMissingError):
        offload_inputs(torch.nn.Linear(2, 2))
