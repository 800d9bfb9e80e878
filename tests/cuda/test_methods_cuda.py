"""Every method in bfloat16 on CUDA, on packed rows, and attention behind a prefix."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from methods import ALONE, CELLS, IN_8BIT, METHODS, Cell, Method
from recorded_runs import Trained, fine_tune, reloaded_errors

from llama_recipes_local.data.documents import document_bounds
from llama_recipes_local.kernels import attention
from llama_recipes_local.kernels.adapter_prompts import Prompts
from llama_recipes_local.kernels.prefix import Prefix

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ON_ONE_GPU = [
    cell
    for cell in CELLS
    if cell.refused is None
    and cell.sharding in (ALONE, "FULL_SHARD", "NO_SHARD", "CPU offload")
    and "loraplus_lr_ratio" not in cell.method.flags
]
# refused on the CPU alone
ON_ONE_GPU += [Cell(m, ALONE, IN_8BIT) for m in METHODS if "use_dora" in m.flags]
# relative to the logits: bfloat16 keeps 8 bits an operation; PiSSA has its weights rounded anew,
# and 8-bit layers round their inputs
LOGITS, ROUNDED_MORE = 0.05, 0.1


def fine_tuned(cell: Cell, model: Path, data: Path, output: Path) -> Trained:
    flags: dict[str, Any] = {
        "model_name": str(model),
        "data_root": str(data),
        "dataset": "grammar_dataset",
        "lr": 1e-2,  # a normalisation's weights, 1, are 2**-8 from the next number
        "context_length": 128,
        "batch_size_training": 4,
        "num_epochs": 1,
        "max_train_step": 4,
        "num_workers_dataloader": 0,
        "run_validation": False,
        "enable_fsdp": cell.is_spread,
    }
    fine_tune(flags | cell.flags, output)
    return Trained(output)


@pytest.mark.parametrize("cell", ON_ONE_GPU, ids=str)
def test_a_method_trains_and_is_saved(
    cell: Cell,
    tiny_model: Path,
    grammar_data: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if cell.is_spread:
        request.getfixturevalue("one_rank")
    run = fine_tuned(cell, tiny_model, grammar_data, tmp_path)
    assert run.report["moved"] == run.report["trained"] != []
    adapted = cell.method.flags.get("use_peft") or "top_layers" in cell.method.flags
    assert run.report["dtypes"] == ["torch.float32" if adapted else "torch.bfloat16"]
    rounds = "init_lora_weights" in cell.method.flags or cell.quantization == IN_8BIT
    error, moved = reloaded_errors(cell, run, tiny_model)
    assert error < (ROUNDED_MORE if rounds else LOGITS)
    assert error < moved


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_method_trains_with_fused_kernels(
    method: Method, tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("liger_kernel")
    cell = Cell(replace(method, flags=method.flags | {"use_fast_kernels": True}), ALONE, "none")
    run = fine_tuned(cell, tiny_model, grammar_data, tmp_path)
    plain = fine_tuned(Cell(method, ALONE, "none"), tiny_model, grammar_data, tmp_path / "plain")
    assert run.report["moved"] == run.report["trained"] == plain.report["trained"]
    losses = [first_loss(each.output) for each in (run, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)  # bfloat16, 8 bits


def first_loss(output: Path) -> float:
    return json.loads((output / "metrics.jsonl").read_text().splitlines()[0])["loss"]


def states(lengths: list[int], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return queries, keys and values of 8 heads on 2, and a prefix and prompts of 7 each."""
    torch.manual_seed(0)
    shapes = {"query": (1, 8, sum(lengths), 64), "key": (1, 2, sum(lengths), 64)}
    shapes |= {"value": shapes["key"], "prefix_keys": (1, 2, 7, 64), "prefix_values": (1, 2, 7, 64)}
    shapes |= {"prompt_keys": (2, 7, 64), "prompt_values": (2, 7, 64)}
    made = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    return {name: x.to("cuda", dtype).requires_grad_() for name, x in made.items()}


def attended(x: dict[str, torch.Tensor], lengths: list[int]) -> torch.Tensor:
    positions = torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0)
    bounds, longest = document_bounds(positions)
    layer: Any = SimpleNamespace(layer_idx=0)
    prefix = Prefix(
        x["prefix_keys"], x["prefix_values"], bounds.cuda(), longest, tokens=sum(lengths)
    )
    gate = torch.full((1,), 0.5, device="cuda")
    prompts = Prompts(x["prompt_keys"], x["prompt_values"], gate)
    out, _ = attention.document_attention(
        layer, x["query"], x["key"], x["value"], None, prefix=prefix, prompts=prompts
    )
    return out


def test_kernel_behind_a_prefix_equals_each_document_alone() -> None:
    lengths = [1, 5, 64, 333, 2, 100]
    half, whole = states(lengths, torch.bfloat16), states(lengths, torch.float32)
    outputs = attended(half, lengths), attended(whole, lengths)
    weight = torch.randn_like(outputs[1])
    (outputs[0].float() * weight).sum().backward()
    (outputs[1] * weight).sum().backward()
    pairs = [outputs, *((half[name].grad, whole[name].grad) for name in half)]
    # bfloat16 keeps 8 bits: a relative error of about 2**-8 an operation
    for got, wanted in pairs:
        assert got is not None and wanted is not None
        assert (got.float() - wanted).norm() / wanted.norm() < 1e-2


def test_no_layer_behind_a_prefix_waits_for_the_device() -> None:
    lengths = [1, 5, 64]
    x = states(lengths, torch.bfloat16)
    attended(x, lengths).sum().backward()  # loads the kernels
    torch.cuda.synchronize()
    bounds = torch.tensor([0, 1, 6, 70], dtype=torch.int32, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        prefix = Prefix(x["prefix_keys"], x["prefix_values"], bounds, 64, tokens=70)
        layer: Any = SimpleNamespace(layer_idx=0)
        out, _ = attention.document_attention(
            layer, x["query"], x["key"], x["value"], None, prefix=prefix
        )
        out.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
