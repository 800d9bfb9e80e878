"""On a device, inputs of layers go to host memory and come back on a stream of their own."""

import copy
from collections.abc import Iterator
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import frozen
from llama_recipes_local.kernels.lora import projections, tiled_mlp
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.projections import Adapter, Layer
from llama_recipes_local.policies import offload

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LAYERS, HIDDEN, TOKENS = 6, 512, 2048
SHAPE = {
    "hidden_size": HIDDEN,
    "intermediate_size": 1024,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 500,
    "attn_implementation": "sdpa",
}


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield


def with_lora(offloads: bool) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).cuda().bfloat16()
    frozen.install(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.get_input_embeddings().register_forward_hook(lambda *args: args[2].detach())
    if offloads:
        offload.offload_inputs(model)
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=8, lora_dropout=0.1, target_modules="all-linear", init_lora_weights=False
    )
    return peft.get_peft_model(model, config).bfloat16().train()


def steps(model: Any, lengths: tuple[int, ...]) -> list[torch.Tensor]:
    """Return losses and gradients, which are accumulated."""
    found = []
    for seed, length in enumerate(lengths):
        torch.manual_seed(seed)
        ids = torch.randint(3, 500, (2, length), device="cuda")
        loss = model(input_ids=ids, labels=ids, num_items_in_batch=100.0).loss
        loss.backward()
        found.append(loss.detach())
    return found + [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("slowed", [False, True])
def test_no_bit_changes(slowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow stream shows what is not waited for."""
    plain, ours = with_lora(False), with_lora(True)
    move = offload.HostInputs._move

    def late(self: Any, *args: Any, **kwargs: Any) -> None:
        with torch.cuda.stream(self._stream):
            torch.cuda._sleep(5_000_000)
        move(self, *args, **kwargs)

    if slowed:
        monkeypatch.setattr(offload.HostInputs, "_move", late)
    lengths = (TOKENS, 300, TOKENS, 300)
    assert all(
        torch.equal(*each) for each in zip(steps(plain, lengths), steps(ours, lengths), strict=True)
    )


def test_the_device_holds_two_inputs_and_not_all() -> None:
    kept = []
    for offloads in (False, True):
        model = with_lora(offloads)
        ids = torch.randint(3, 500, (2, TOKENS), device="cuda")
        before = torch.cuda.memory_allocated()
        loss = model(input_ids=ids, labels=ids, num_items_in_batch=100.0).loss
        kept.append(torch.cuda.memory_allocated() - before)
        del loss, model
    inputs = (LAYERS - 2) * 2 * TOKENS * HIDDEN * 2
    assert kept[0] - kept[1] >= 0.99 * inputs  # what all layers read once a micro-batch stays


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_tiles_are_the_whole(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile's products are summed as the whole's are, in float32, in another order."""
    torch.manual_seed(0)
    made, trained = [], []
    for into, out in ((96, 200), (96, 200), (200, 96)):
        weight = (torch.randn(out, into, device="cuda") / into**0.5).bfloat16()
        a, b = (torch.randn(n, device="cuda") * 0.1 for n in ((8, into), (out, 8)))
        trained += [x.requires_grad_() for x in (a, b)]
        made.append(Layer(lambda weight=weight: weight, None, Adapter(a, b, 2.0)))  # type: ignore[misc]
    gate, up, down = made
    x = torch.randn(1, 333, 96, device="cuda").bfloat16().requires_grad_()
    dropouts = Dropout(share, 5), Dropout(share, 6)
    found = []
    for tokens in (1000, 128 if not share else 1000):
        monkeypatch.setattr(tiled_mlp, "_TOKENS", tokens)
        out = tiled_mlp.tiled_mlp(x, (gate, up), down, dropouts)
        found.append(
            [out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *trained])]
        )
    out = projections.mlp(x, (gate, up), down, dropouts)
    want = [out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *trained])]
    for got in found:
        for one, two in zip(got, want, strict=True):
            assert (one - two).abs().max() <= 2**-7 * two.abs().max()


def test_copies_of_a_model_keep_their_inputs_apart() -> None:
    model = with_lora(True)
    other = copy.deepcopy(model)
    for seed in range(2):
        losses = []
        for each in (model, other):
            torch.manual_seed(seed)
            ids = torch.randint(3, 500, (2, 300), device="cuda")
            losses.append(each(input_ids=ids, labels=ids, num_items_in_batch=100.0).loss)
        sum(losses).backward()
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(p.grad, q.grad) for p, q in pairs if p.grad is not None)
