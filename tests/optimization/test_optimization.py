"""The optimiser that a flag names moves what is trained as its reference does, and nothing else."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from llama_recipes_local import configs
from llama_recipes_local.optimization import AdamW, StepLR
from llama_recipes_local.optimization.optimizers import OPTIMIZERS, make_optimizer
from llama_recipes_local.optimization.parameter_groups import split_lora_plus
from llama_recipes_local.optimization.schedules import make_schedule
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve

LR = 1e-2
STEPS = 5
# How far the weights may be from those of torch's own AdamW after five steps, in mean and relative
# to lr. float32 twice differ by rounding: 4e-7 is seen. bfloat16 moments keep 8 bits, so each step
# is off by some 2**-8 of itself: 0.006 is seen. 8-bit moments keep some two digits of the largest
# of their block, and fewer of small ones: 0.023 is seen.
TOLERANCE = {
    "adamw": 1e-5,
    "anyprecision": 0.02,
    "adamw_8bit": 0.1,
    "paged_adamw": 1e-5,
    "paged_adamw_8bit": 0.1,
}


def model() -> nn.Sequential:
    """Weights of more than 4096 entries, below which bitsandbytes keeps 32 bits."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64))


def trained_by(make: Any) -> list[torch.Tensor]:
    """Return the weights after some steps; the first bias is frozen."""
    trained = model()
    trained[0].bias.requires_grad_(False)
    optimizer = make(trained)
    torch.manual_seed(1)
    for _ in range(STEPS):
        trained(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in trained.parameters()]


def torchs_own(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=0.1, fused=False)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_trains_as_torchs_adamw(name: str) -> None:
    if name not in ("adamw", "anyprecision"):
        pytest.importorskip("bitsandbytes")
    with activate(resolve({"optimizer": name})):
        got = trained_by(lambda m: AdamW(m.parameters(), lr=LR, weight_decay=0.1))
    before, expected = list(model().parameters()), trained_by(torchs_own)
    assert got[1].equal(before[1])
    for number in (0, 2, 3):
        assert (got[number] - before[number]).abs().mean() > LR
        off = (got[number] - expected[number]).abs().mean() / LR
        assert off < TOLERANCE[name]


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_8_bit_moments_have_8_bits(name: str) -> None:
    pytest.importorskip("bitsandbytes")
    module = model()
    optimizer = make_optimizer(name, list(module.parameters()), LR, 0.0)
    module(torch.randn(2, 64)).sum().backward()
    optimizer.step()
    moments = optimizer.state[module[0].weight]
    assert moments["state1"].dtype == moments["state2"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("name", "unpaged"), [("paged_adamw", "AdamW"), ("paged_adamw_8bit", "AdamW8bit")]
)
def test_on_the_cpu_nothing_is_paged_nor_warned_of(name: str, unpaged: str) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    module = model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = make_optimizer(name, list(module.parameters()), LR, 0.0)
        module(torch.randn(2, 64)).sum().backward()
        optimizer.step()
    assert type(optimizer) is getattr(bitsandbytes.optim, unpaged)


def test_anyprecision_has_bfloat16_moments() -> None:
    module = model()
    optimizer = make_optimizer("anyprecision", list(module.parameters()), LR, 0.0)
    module(torch.randn(2, 64)).sum().backward()
    optimizer.step()
    moments = optimizer.state[module[0].weight]
    assert moments["exp_avg"].dtype == moments["exp_avg_sq"].dtype == torch.bfloat16
    assert module[0].weight.dtype == torch.float32


def test_adamw_is_fused_by_default() -> None:
    optimizer = AdamW(model().parameters(), lr=LR)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["fused"] is True


def test_case_is_ignored_and_an_unknown_optimizer_is_an_error() -> None:
    parameters = list(model().parameters())
    assert type(make_optimizer("AdamW", parameters, LR, 0.0)) is torch.optim.AdamW
    with pytest.raises(ValueError, match="unknown optimizer 'lion'"):
        make_optimizer("lion", parameters, LR, 0.0)


class Adapted(nn.Module):
    """The names that LoRA's parameters have."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})
        self.head = nn.Linear(4, 4)


def test_lora_plus_gives_b_a_learning_rate_of_its_own() -> None:
    module = Adapted()
    optimizer = AdamW(module.parameters(), lr=LR, weight_decay=0.1)
    split_lora_plus(module, optimizer, 16.0)
    rest, matrices_b = optimizer.param_groups
    assert [matrices_b["lr"], rest["lr"]] == [16 * LR, LR]
    assert matrices_b["weight_decay"] == rest["weight_decay"] == 0.1
    (b,) = matrices_b["params"]
    assert b is module.lora_B["default"].weight
    assert len(rest["params"]) == 3
    before = [p.detach().clone() for p in (b, module.lora_A["default"].weight)]
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved_b, moved_a = (
        float((p.detach() - old * (1 - lr * 0.1)).abs().mean())
        for p, old, lr in zip(
            (b, module.lora_A["default"].weight), before, (16 * LR, LR), strict=True
        )
    )
    assert moved_b / moved_a == pytest.approx(16, rel=1e-3)


def test_b_keeps_its_rate_under_the_schedule_that_main_makes_before() -> None:
    """torch keeps a group's first rate in it, and schedules from that one."""
    module = Adapted()
    optimizer = AdamW(module.parameters(), lr=LR)
    given = StepLR(optimizer, step_size=1, gamma=0.5)
    split_lora_plus(module, optimizer, 16.0)
    schedule = make_schedule(given, optimizer, configs.train_config(gamma=0.5), 4, 2)
    for _ in range(3):
        optimizer.step()
        schedule.after_step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5 * LR, 0.5 * 16 * LR]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_lora_without_plus_has_one_group(ratio: float) -> None:
    module = Adapted()
    optimizer = AdamW(module.parameters(), lr=LR)
    split_lora_plus(module, optimizer, ratio)
    assert len(optimizer.param_groups) == 1
