"""Steps on CUDA: the host does not wait, and a step that is not finite changes nothing."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local import configs
from llama_recipes_local.kernels import attention
from llama_recipes_local.optimization import AdamW
from llama_recipes_local.training.stepping import Stepper

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LENGTHS = (50, 14)
LABELS = sum(LENGTHS) - 1


def make_model(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=200,
        attn_implementation=attention.NAME,
    )
    return LlamaForCausalLM(config).cuda().to(dtype)


def make_batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 200, (1, sum(LENGTHS))).pin_memory()
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None].pin_memory()
    return {"input_ids": ids, "labels": ids, "position_ids": positions}


@pytest.fixture
def no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("flags", [{}, {"gradient_clipping": True}, {"use_fp16": True}])
def test_no_step_waits_for_the_device(flags: dict[str, bool]) -> None:
    model = make_model(torch.float32 if flags.get("use_fp16") else torch.bfloat16)
    stepper = Stepper(model, AdamW(model.parameters(), lr=1e-3), configs.train_config(**flags))
    stepper.step([make_batch()], LABELS)  # makes the optimiser's state and the scaler
    batches = [make_batch() for _ in range(4)]
    torch.cuda.set_sync_debug_mode("error")
    for batch in batches:
        figures = stepper.step([batch, batch], 2 * LABELS)
    torch.cuda.set_sync_debug_mode("default")
    assert figures.values.isfinite().all()


@pytest.mark.parametrize("use_fp16", [False, True])
def test_a_loss_that_is_not_finite_changes_no_bit(use_fp16: bool) -> None:
    model = make_model(torch.float32)
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    stepper = Stepper(model, optimizer, configs.train_config(use_fp16=use_fp16))
    stepper.step([make_batch()], LABELS)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def spoil(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * float("nan")

    handle = model.get_input_embeddings().register_forward_hook(spoil)
    stopped = stepper.step([make_batch()], LABELS)
    handle.remove()
    after_it = stepper.step([make_batch()], LABELS)
    assert [int(each.values[2]) for each in (stopped, after_it)] == [1, 1]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
