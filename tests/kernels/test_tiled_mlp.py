"""An MLP some tokens at a time is the same MLP, with the gradients of the whole."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from llama_recipes_local.kernels.lora import projections, tiled_mlp
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.projections import Adapter, Layer

TOKENS, WIDTH, INNER = 23, 6, 10
NONE = Dropout(), Dropout()


def layers(adapted: str, bias: bool = False) -> tuple[list[Layer], list[torch.Tensor]]:
    """Return gate, up and down, and the matrices of those that have an adapter."""
    torch.manual_seed(0)
    made, trained = [], []
    shapes = {"g": (WIDTH, INNER), "u": (WIDTH, INNER), "d": (INNER, WIDTH)}
    for name, (into, out) in shapes.items():
        weight = torch.randn(out, into, dtype=torch.double)
        a, b = (torch.randn(n, dtype=torch.double) for n in ((2, into), (out, 2)))
        matrices = [x.requires_grad_() for x in (a, b)] if name in adapted else []
        trained += matrices
        adapter = Adapter(a, b, 1.5) if matrices else None
        added = torch.randn(out, dtype=torch.double) if bias else None
        made.append(Layer(lambda weight=weight: weight, added, adapter))  # type: ignore[misc]
    return made, trained


def rows(requires_grad: bool = True) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, TOKENS, WIDTH, dtype=torch.double).requires_grad_(requires_grad)


@pytest.fixture(params=[4, 11, 22, 100])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let tiles have so many tokens; the last of some has fewer."""
    monkeypatch.setattr(tiled_mlp, "_TOKENS", request.param)
    monkeypatch.setattr(tiled_mlp, "_MULTIPLE", 3)
    return int(request.param)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("needed", [False, True])
@pytest.mark.parametrize("adapted", ["gud", "g", "d", ""])
def test_tiles_are_the_whole(tile: int, adapted: str, needed: bool, checkpointed: bool) -> None:
    (gate, up, down), trained = layers(adapted, bias=True)
    wanted = [*trained, rows()] if needed else trained
    x = wanted[-1] if needed else rows(False)
    want = projections.mlp(x, (gate, up), down, NONE)

    def compute(x: torch.Tensor) -> torch.Tensor:
        return tiled_mlp.tiled_mlp(x, (gate, up), down, NONE)

    got = checkpoint(compute, x, use_reentrant=False) if checkpointed else compute(x)
    assert torch.allclose(got, want)
    if wanted:
        found, expected = (torch.autograd.grad(y.sin().sum(), wanted) for y in (got, want))
        assert all(torch.allclose(*each) for each in zip(found, expected, strict=True))


def test_gradients_are_those_of_the_masks(tile: int) -> None:
    """The masks of a seed are fixed, so that numerical derivatives are exact."""
    (gate, up, down), trained = layers("gud")
    dropouts = Dropout(0.3, 5), Dropout(0.2, 2**31 - 2)

    def compute(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return tiled_mlp.tiled_mlp(x, (gate, up), down, dropouts)

    assert torch.autograd.gradcheck(compute, (rows(), *trained), fast_mode=True)


def test_a_tile_is_let_go_before_the_next(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[StorageWeakRef] = []

    def watched(function: Any) -> Any:
        def call(group: Any, first: Any, second: Any, *args: Any, **kwargs: Any) -> Any:
            assert all(each.expired() for each in seen)
            made = (first, second) if isinstance(second, torch.Tensor) else (first, *second)
            seen.extend(StorageWeakRef(x.untyped_storage()) for x in made)
            return function(group, first, second, *args, **kwargs)

        return call

    for name in ("swiglu", "swiglu_backward"):
        monkeypatch.setattr(projections.Group, name, watched(getattr(projections.Group, name)))
    (gate, up, down), _ = layers("gud")
    tiled_mlp.tiled_mlp(rows(), (gate, up), down, NONE).sum().backward()
    tiles = {4: 4, 11: 3, 22: 2, 100: 1}[tile]
    assert len(seen) == (2 + 3) * tiles


def test_two_tiles_drop_other_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_mlp, "_TOKENS", 8)
    monkeypatch.setattr(tiled_mlp, "_MULTIPLE", 8)
    (gate, up, down), _ = layers("gud")
    x = rows(False)[:, :8].repeat(1, 2, 1)

    def halves(share: float) -> Any:
        return tiled_mlp.tiled_mlp(x, (gate, up), down, (Dropout(share, 7), Dropout())).chunk(2, 1)

    assert torch.equal(*halves(0.0))
    assert not torch.equal(*halves(0.3))


def test_one_tile_is_what_the_whole_is_to_the_bit() -> None:
    (gate, up, down), _ = layers("gud")
    dropouts = Dropout(0.3, 5), Dropout(0.2, 6)
    both = (projections.mlp, tiled_mlp.tiled_mlp)
    assert torch.equal(*(function(rows(), (gate, up), down, dropouts) for function in both))


def test_a_checkpoint_keeps_the_input_alone() -> None:
    (gate, up, down), _ = layers("gud")
    kept: list[torch.Size] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.shape)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        tiled_mlp.tiled_mlp(rows(), (gate, up), down, NONE)
    assert kept == [(1, TOKENS, WIDTH)]
