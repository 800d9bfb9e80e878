"""A Llama that is trained itself, by the kernels, in half precision and in fp8, at odd sizes too.

The kernels' own parts are compared with their functions on a CPU; see ``test_frozen_cuda.py``, of
which tolerances are, and ``test_fp8_cuda.py``.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import MixedPrecisionPolicy, ShardingStrategy
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import configs, parallel
from llama_recipes_local.kernels import attention, frozen, norm
from llama_recipes_local.kernels.fp8.scaled_rows import quantize
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.kernels.fp8.turned import turned
from llama_recipes_local.kernels.full import trained_products
from llama_recipes_local.kernels.lora.products import Given
from llama_recipes_local.training.stepping import Stepper

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
in_fp8_only = pytest.mark.skipif(not HOPPER, reason="needs a CUDA device that multiplies in fp8")
LENGTHS = (50, 14, 1, 62)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device="cuda").bfloat16()


@in_fp8_only
@pytest.mark.parametrize("rows", [1, 77, 304])
@pytest.mark.parametrize("columns", [24, 1001, 4096])
def test_turned(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    parts = [random(rows, columns), random(48, columns)]
    factors = [torch.rand(len(part), device="cuda") * 100 for part in parts]
    got = turned(parts, factors).cpu().view(torch.uint8)
    want = turned([x.cpu() for x in parts], [x.cpu() for x in factors]).view(torch.uint8)
    assert got.shape == want.shape
    assert (got != want).sum() <= 0.001 * got.numel()  # near a tie
    values = quantize(parts[0]).values
    got, want = turned([values]), turned([values.cpu()])
    assert torch.equal(got.cpu().view(torch.uint8), want.view(torch.uint8))


@in_fp8_only
@pytest.mark.parametrize("widths", [(200,), (4096, 1024, 1024), (1001, 14336)])
def test_rows_of_parts_have_their_own_largest(widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    parts = [random(77, width) * 10**number for number, width in enumerate(widths)]
    factors = tuple(torch.rand(width, device="cuda") for width in widths)
    got, without = (quantize(*parts, factors=factors, apart=apart) for apart in (True, False))
    assert got.largest is not None and without.largest is None
    assert torch.equal(got.largest, torch.stack([x.float().abs().amax(1) for x in parts]))
    assert torch.equal(got.values.view(torch.uint8), without.values.view(torch.uint8))


@pytest.mark.parametrize(("rows", "features"), [(1, 24), (700, 576), (2000, 4096)])
def test_a_norms_weight(rows: int, features: int) -> None:
    torch.manual_seed(0)
    stream, of_total, of_normed = (random(rows, features) for _ in range(3))
    weight = random(features)
    total, _, scale = norm._forward(stream, None, weight, 1e-5)
    found, of_weight = norm._backward(of_total, of_normed, total, scale, weight, True)
    alone, none = norm._backward(of_total, of_normed, total, scale, weight, False)
    assert none is None and torch.equal(found, alone)
    inputs = (x.double().cpu() for x in (of_total, of_normed, total, scale, weight))
    want = norm._backward(*inputs, True)[1]
    assert of_weight is not None and want is not None
    # sums in float32, rounded to bfloat16 once
    assert (of_weight.cpu().double() - want).abs().max() < 2**-8 * want.abs().max()


@in_fp8_only
@pytest.mark.parametrize("tokens", [1, 77, 304])
def test_products_in_fp8(tokens: int) -> None:
    """Beside float64: each factor is off by 2.7% on average, and a sum by no more."""
    torch.manual_seed(0)
    weights = tuple(random(n, 208) for n in (96, 16))
    x, gradients = random(tokens, 208), (random(tokens, 96), random(tokens, 16))
    own = trained_products.Eight(weights, torch.bfloat16)
    given = own.given(x)
    outputs = own.outputs(given)
    ready = own.ready(Given(gradients))
    wide = torch.cat(weights).double(), x.double(), torch.cat(gradients, dim=1).double()
    for got, want in (
        (torch.cat(outputs, dim=1), wide[1] @ wide[0].T),
        (own.input_gradient(ready), wide[2] @ wide[0]),
        (torch.cat([g for g in own.weight_gradients(ready, given) if g is not None]),
         wide[2].T @ wide[1]),
    ):  # fmt: skip
        assert (got - want).norm() < 0.06 * want.norm()


def make_model(dtype: torch.dtype, **config: Any) -> Any:
    torch.manual_seed(0)
    attention.register()
    shape = {
        "hidden_size": 256,
        "intermediate_size": 528,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 500,
        "attn_implementation": attention.NAME,
    }
    return LlamaForCausalLM(LlamaConfig(**shape | config)).cuda().to(dtype).train()


def packed_row(seed: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    ids = torch.randint(3, 500, (1, sum(LENGTHS)), device="cuda")
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None].cuda()
    labels = torch.where(positions % 5 == 0, -100, ids)
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def trained(model: Any) -> tuple[float, list[torch.Tensor]]:
    """Return the last loss and the gradients of two micro-batches."""
    for seed in (2, 3):
        loss = model(**packed_row(seed), num_items_in_batch=200.0).loss
        loss.backward()
    return float(loss.detach()), [p.grad.float() for p in model.parameters()]


def error(got: list[torch.Tensor], want: list[torch.Tensor]) -> float:
    pairs = zip(got, want, strict=True)
    return max(((one - two).norm() / two.norm()).item() for one, two in pairs)


@pytest.mark.parametrize("config", [{}, {"tie_word_embeddings": True}], ids=str)
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_model_is_as_near_to_float32_as_transformers(
    config: dict[str, Any], recomputed: bool
) -> None:
    models = [make_model(dtype, **config) for dtype in (torch.float32, *[torch.bfloat16] * 2)]
    frozen.install(models[2])
    assert frozen.fallbacks(models[2]) == {}
    if recomputed:
        for model in models:
            model.gradient_checkpointing_enable({"use_reentrant": False})
    (want_loss, want), (_, plain), (loss, ours) = map(trained, models)
    assert loss == pytest.approx(want_loss, rel=2e-3)
    assert error(ours, want) < 1.2 * error(plain, want)


@in_fp8_only
def test_a_model_trains_in_fp8_as_in_bfloat16() -> None:
    plain = make_model(torch.bfloat16)
    eight, modules, again = (copy.deepcopy(plain) for _ in range(3))
    for model in (eight, modules, again):
        keep_in_fp8(model, adapted=False)
    for model in (plain, eight, again):
        frozen.install(model)
    again.gradient_checkpointing_enable({"use_reentrant": False})
    want_loss, want = trained(plain)
    loss, found = trained(eight)
    assert loss == pytest.approx(want_loss, rel=5e-3)
    assert trained(again)[0] == pytest.approx(loss, rel=1e-3)
    assert trained(modules)[0] == pytest.approx(loss, rel=5e-3)  # weights are rounded otherwise
    # as in test_fp8_cuda.py
    for one, two in zip(found, want, strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), dim=0) > 0.97


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("fp8", [False, pytest.param(True, marks=in_fp8_only)])
@pytest.mark.parametrize("sharded", [ShardingStrategy.FULL_SHARD, ShardingStrategy.SHARD_GRAD_OP])
def test_a_sharded_model_steps_as_a_whole_one(
    sharded: ShardingStrategy, fp8: bool, tmp_path: Path
) -> None:
    parallel.setup()
    losses = []
    for strategy in (None, sharded):
        model = make_model(torch.bfloat16)
        if fp8:
            keep_in_fp8(model, adapted=False)
        frozen.install(model)
        if strategy is not None:
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
            model = parallel.FullyShardedDataParallel(
                model, [LlamaDecoderLayer], None, policy, strategy
            )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        stepper = Stepper(model, optimizer, configs.train_config())
        rows = [{n: x.cpu() for n, x in packed_row(seed).items()} for seed in (2, 3)]
        losses.append([float(stepper.step(rows, 200).values[0]) for _ in range(6)])
    parallel.cleanup()
    alone, shards = losses
    assert alone[-1] < 0.95 * alone[0]
    assert shards == pytest.approx(alone, rel=5e-3)  # gradients are added up in float32


@in_fp8_only
@pytest.mark.ranks
@pytest.mark.parametrize(
    "flags",
    [[], ["--enable_fsdp", "--checkpoint_type=FULL_STATE_DICT"], ["--gradient_checkpointing"]],
    ids=str,
)
def test_the_command_trains_all_weights_in_fp8(
    flags: list[str], tiny_model: Path, grammar_data: Path, run_finetuning: Any, tmp_path: Path
) -> None:
    done = run_finetuning(
        "--use_fast_kernels",
        "--fp8",
        f"--model_name={tiny_model}",
        "--dataset=grammar_dataset",
        f"--data_root={grammar_data}",
        "--context_length=256",
        "--lr=1e-3",
        "--max_train_step=8",
        "--gradient_accumulation_steps=2",
        "--output_dir=out",
        "--run_validation=False",
        "--dist_checkpoint_root_folder=out",
        *flags,
        cwd=tmp_path,
        nproc=1,
    )
    assert done.returncode == 0, done.stderr
    assert "trained and multiplied in fp8" in done.stdout
    steps = [json.loads(row) for row in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["loss"] < steps[0]["loss"]
    saved = list((tmp_path / "out").rglob("model.safetensors"))
    assert saved
    for path in saved:
        assert load_file(path).keys() == load_file(tiny_model / "model.safetensors").keys()
