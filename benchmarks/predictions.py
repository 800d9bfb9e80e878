"""Compares what ``planning`` predicts with every run that is recorded, for ``docs/hardware.md``.

``python benchmarks/predictions.py`` writes the table between the marks of both languages' pages; a
test holds every prediction within ``OF_MEMORY`` and ``OF_SPEED``.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from marked_tables import put_into_pages

from llama_recipes_local.planning.cards import Card, card
from llama_recipes_local.planning.memory import memory
from llama_recipes_local.planning.setting import (
    FULL,
    FULL_SHARD,
    FUSED,
    OFFLOAD,
    PLAIN,
    REPLICATED,
    SELECTIVE,
    SHARD_GRAD_OP,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR
from llama_recipes_local.planning.speed import tokens_a_second
from llama_recipes_local.planning.wording import POLICIES

OF_MEMORY, OF_SPEED = 0.05, 0.08
H100, H200 = card(80, "H100"), card(141, "H200")
PAGES = {
    "hardware.md": (
        "run",
        "measured peak GiB",
        "predicted",
        "error",
        "measured tok/s",
        "predicted",
        "error",
    ),
    "hardware.zh-CN.md": ("运行", "实测峰值 GiB", "预测", "误差", "实测 tok/s", "预测", "误差"),
}

S7, S8 = KNOWN["llama-2-7b"], KNOWN["llama-3-8b"]
ALL = frozenset(LINEAR)
# the grammar data: documents of some 70 tokens, 40% of them with labels
GRAMMAR = Batch(rows=2, length=4096, accumulation=2, document=70, labelled=0.4)
ONE_ROW = replace(GRAMMAR, rows=1)
QV, LINEAR_8 = Adapter(), Adapter(targets=ALL)
LINEAR_16, LINEAR_64 = Adapter(rank=16, targets=ALL), Adapter(rank=64, targets=ALL)
FP4, NF4, FP8 = Weights(bits=4), Weights(bits=4, double=True), Weights(fp8=True)
ALL_7B = Weights(trained=S7.weights)
PREFIX = Adapter("prefix", tokens=30)
LLAMA_ADAPTER = Adapter("llama_adapter", tokens=10, layers=30)

CHOICES = Path(__file__).with_name("results") / "planned-choices-h200.json"
SIZES = {
    "1B": "llama-3.2-1b",
    "7B": "llama-2-7b",
    "13B": "llama-2-13b",
    "70B": "llama-3.1-70b",
}
METHODS = {
    "LoRA r=8 q,v": (Weights(), QV),
    "LoRA r=16": (Weights(), LINEAR_16),
    "QLoRA r=16": (NF4, LINEAR_16),
}
"""How weights are held, and the adapter, of what ``planned_choices.py`` trains."""


@dataclass(frozen=True)
class Recorded:
    """A run that was measured.

    Attributes:
        name: what ran.
        setting: the same for ``planning``.
        gib: torch's peak allocation.
        speed: tokens a second of all ranks.
        card: what it ran on.
    """

    name: str
    setting: Setting
    gib: float
    speed: int
    card: Card = H100

    @property
    def predicted_gib(self) -> float:
        """The peak that is predicted."""
        return memory(self.setting).gib

    @property
    def predicted_speed(self) -> float:
        """The speed that is predicted."""
        return tokens_a_second(self.setting, self.card)


def recorded() -> list[Recorded]:
    """Return the runs of ``benchmarks/README.md``, ``NOTES.md`` and ``docs/hardware.md``."""
    of_h200 = [*_sizes(), *_choices(), *_replicas(), *_present()]
    return [*of_h200, *_frozen(), *_fused(), *_sharded(), *_plain()]


def _sizes() -> Iterator[Recorded]:
    """Models of 1B to 13B by single steps on an H200, by ``planned_runs.py``."""
    batch = replace(GRAMMAR, document=60)
    short, long = replace(batch, rows=8, length=1024), replace(batch, rows=1, length=16384)
    one_row = replace(batch, rows=1)
    whole = replace(one_row, accumulation=1, document=4096)
    s1, s3, s7, s8, s13 = (
        Setting(KNOWN[name], adapter=LINEAR_16, batch=batch)
        for name in ("llama-3.2-1b", "llama-3.2-3b", "llama-2-7b", "llama-3.1-8b", "llama-2-13b")
    )
    for name, setting, gib, speed in (
        ("1B, LoRA r=16", s1, 10.4, 96334),
        ("1B, LoRA r=16, 8 x 1,024", replace(s1, batch=short), 10.4, 96868),
        ("1B, full, liger-kernel", _full(s1), 19.22, 65407),
        ("1B, full, recomputation, liger-kernel", replace(_full(s1), policy=FULL), 11.0, 49104),
        ("3B, LoRA r=16", s3, 22.86, 38136),
        ("3B, LoRA r=16, offload", replace(s3, policy=OFFLOAD), 7.31, 29257),
        ("3B, LoRA r=16, 1 x 16,384", replace(s3, batch=long), 38.87, 39309),
        ("3B, LoRA r=16, documents of 4,096", replace(s3, batch=whole, flash=True), 14.7, 28410),
        ("7B, LoRA r=8 q,v", replace(s7, adapter=QV), 37.98, 21638),
        ("8B, LoRA r=16", s8, 43.49, 17634),
        ("8B, LoRA r=16, 1 row", replace(s8, batch=one_row), 29.74, 17096),
        ("8B, LoRA r=16, offload", replace(s8, policy=OFFLOAD), 16.9, 12993),
        ("8B, LoRA r=16, recomputation", replace(s8, policy=FULL), 18.71, 13104),
        (
            "8B, LoRA r=16, 1 x 16,384, offload",
            replace(s8, batch=long, policy=OFFLOAD),
            18.07,
            13403,
        ),
        ("8B, LoRA r=16, fp8", replace(s8, weights=FP8), 37.22, 25303),
        ("8B, QLoRA r=16, offload", replace(s8, weights=NF4, policy=OFFLOAD), 7.38, 12911),
        ("13B, LoRA r=16, offload", replace(s13, policy=OFFLOAD), 26.95, 7638),
        ("13B, LoRA r=16, 1 row", replace(s13, batch=one_row), 46.82, 10265),
    ):
        yield Recorded(f"{name}, H200, steps", setting, gib, speed, H200)


def _choices() -> Iterator[Recorded]:
    """What ``plan`` chose and its neighbours, by ``planned_choices.py`` on four H200."""
    batch = Batch(length=4096, document=512, labelled=0.5)
    for row in json.loads(CHOICES.read_text("utf-8"))["results"]:
        work, _, described = row["name"].partition(": ")
        devices, size, method = re.findall(r"(\d) x (\w+), (.*?)(?:, cards|$)", work)[0]
        shape = KNOWN[SIZES[size]]
        (rows,) = re.findall(r"(\d) row", described)
        times = re.findall(r"(\d) times", described) or [1]
        named = [word for word in (REPLICATED, SHARD_GRAD_OP, FULL_SHARD) if word in described]
        setting = Setting(
            shape,
            Weights(trained=shape.weights) if method == "full" else METHODS[method][0],
            None if method == "full" else METHODS[method][1],
            replace(batch, rows=int(rows), accumulation=int(times[0])),
            Ranks(int(devices), 1, named[0]) if named else Ranks(),
            next(policy for policy, words in POLICIES.items() if words in described),
        )
        name = f"{work}: {described.removeprefix('chosen: ')}"
        numbers = row["peak_gib"], row["tokens_per_second"]
        yield Recorded(f"{name}, H200, steps", setting, *numbers, H200)


def _full(setting: Setting) -> Setting:
    weights = Weights(trained=setting.shape.weights)
    return replace(setting, adapter=None, weights=weights, kernels=FUSED)


def _replicas() -> Iterator[Recorded]:
    """``--use_fast_kernels --enable_fsdp`` on two H200: replicas, and no recomputation."""
    setting = Setting(S7, adapter=QV, batch=GRAMMAR, ranks=Ranks(2, 1, REPLICATED))
    yield Recorded("7B, LoRA r=8 q,v, 2 x NO_SHARD, H200", setting, 38.0, 43412, H200)


def _present() -> Iterator[Recorded]:
    """Kernels for frozen weights as they are, one process on an H200."""
    s7, s8 = Setting(S7, adapter=QV, batch=GRAMMAR), Setting(S8, adapter=LINEAR_16, batch=GRAMMAR)
    fp8: dict[str, Any] = {"weights": FP8, "policy": SELECTIVE}
    for name, setting, gib, speed in (
        ("7B, LoRA r=8 q,v", s7, 38.2, 21303),
        ("7B, LoRA r=8 q,v, selective", replace(s7, policy=SELECTIVE), 36.0, 22057),
        ("7B, LoRA r=8", replace(s7, adapter=LINEAR_8), 40.5, 19199),
        (
            "7B, LoRA r=8 q,v, fp8, selective",
            replace(s7, **fp8),
            30.2,
            33153,
        ),
        ("8B, LoRA r=16", s8, 43.6, 18030),
        ("8B, LoRA r=16, selective", replace(s8, policy=SELECTIVE), 39.6, 17787),
        ("8B, LoRA r=16, offload", replace(s8, policy=OFFLOAD), 16.8, 13204),
        ("8B, QLoRA r=16, offload", replace(s8, weights=NF4, policy=OFFLOAD), 7.3, 12849),
        ("8B, LoRA r=16, fp8, selective", replace(s8, **fp8), 33.3, 25053),
    ):
        yield Recorded(f"{name}, H200", setting, gib, speed, H200)


def _frozen() -> Iterator[Recorded]:
    """Kernels for frozen weights; grouped keys were copied, and nothing was in tiles then."""
    s7, s8 = Setting(S7, batch=GRAMMAR), Setting(S8, batch=GRAMMAR, repeats_keys=True)
    yield Recorded("7B, LoRA r=8 q,v", replace(s7, adapter=QV), 38.0, 21100)
    yield Recorded("7B, LoRA r=8", replace(s7, adapter=LINEAR_8), 40.3, 18800)
    s8 = replace(s8, adapter=LINEAR_16)
    yield Recorded("8B, LoRA r=16", s8, 46.8, 17000)
    s8 = replace(s8, policy=FULL, tiles=False)
    yield Recorded("8B, LoRA r=16, recomputation", s8, 19.3, 12800)
    yield Recorded("8B, QLoRA r=16, recomputation", replace(s8, weights=NF4), 9.7, 12300)
    long = replace(GRAMMAR, rows=1, length=8192)
    long_8b = Setting(S8, adapter=QV, batch=long, repeats_keys=True)
    yield Recorded("8B, LoRA r=8 q,v, rows of 8,192", long_8b, 44.0, 19100)


def _fused() -> Iterator[Recorded]:
    """liger-kernel and PEFT's modules, one process."""
    s7 = Setting(S7, adapter=QV, batch=GRAMMAR, kernels=FUSED)
    yield Recorded("7B, LoRA r=8 q,v, liger-kernel", s7, 41.8, 19692)
    bf16 = replace(s7, adapter=Adapter(bytes=2, drops=False))
    yield Recorded("the same, no dropout, `--pure_bf16`", bf16, 37.9, 19840)
    yield Recorded("7B, LoRA r=8, liger-kernel", replace(s7, adapter=LINEAR_8), 62.1, 15431)
    yield Recorded("7B, 4-bit LoRA r=8 q,v, liger-kernel", replace(s7, weights=FP4), 33.2, 18852)
    yield Recorded("7B, LLaMA-Adapter", replace(s7, adapter=LLAMA_ADAPTER), 36.5, 20442)
    yield Recorded("7B, prefix", replace(s7, adapter=PREFIX), 39.3, 19190)
    preset = replace(s7, weights=NF4, adapter=LINEAR_64, optimizer="paged_adamw")
    yield Recorded("7B, QLoRA r=64, liger-kernel", preset, 54.6, 13911)
    preset = replace(preset, policy=FULL)
    yield Recorded("7B, `--config qlora`, liger-kernel", preset, 8.8, 9670)
    full = Setting(S7, ALL_7B, batch=ONE_ROW, kernels=FUSED)
    yield Recorded("7B, full", full, 66.7, 13104)
    s8 = Setting(S8, adapter=LINEAR_16, batch=GRAMMAR, kernels=FUSED, repeats_keys=True)
    yield Recorded("8B, LoRA r=16, liger-kernel", s8, 70.7, 14015)
    dry = replace(s8, adapter=replace(LINEAR_16, drops=False))
    yield Recorded("the same, no dropout", dry, 53.3, 14843)
    yield Recorded("8B, LoRA r=16, recomputation", replace(s8, policy=FULL), 19.8, 9619)
    qlora = replace(s8, weights=NF4, policy=FULL)
    yield Recorded("8B, QLoRA r=16, recomputation", qlora, 10.0, 8813)
    dry = replace(qlora, adapter=replace(LINEAR_16, drops=False))
    yield Recorded("the same, no dropout", dry, 9.4, 9426)
    long = replace(s8, adapter=QV, batch=replace(GRAMMAR, rows=1, length=8192))
    yield Recorded("8B, LoRA r=8 q,v, rows of 8,192, liger-kernel", long, 47.4, 17687)


def _sharded() -> Iterator[Recorded]:
    """FSDP2 with recomputation, liger-kernel and PEFT's modules."""
    for ranks, sharding, name, weights, adapter, gib, speed in (
        (1, FULL_SHARD, "LoRA r=8 q,v", Weights(), QV, 16.9, 14081),
        (1, FULL_SHARD, "LoRA r=8", Weights(), LINEAR_8, 17.7, 10484),
        (1, FULL_SHARD, "4-bit LoRA r=8 q,v", FP4, QV, 7.9, 13352),
        (1, FULL_SHARD, "QLoRA r=64", NF4, LINEAR_64, 10.6, 9663),
        (1, FULL_SHARD, "LLaMA-Adapter", Weights(), LLAMA_ADAPTER, 16.6, 14801),
        (1, FULL_SHARD, "prefix", Weights(), PREFIX, 17.0, 13860),
        (1, FULL_SHARD, "full", ALL_7B, None, 66.2, 8802),
        (2, FULL_SHARD, "LoRA r=8 q,v", Weights(), QV, 10.9, 25919),
        (2, REPLICATED, "LoRA r=8 q,v", Weights(), QV, 28.4, 27924),
        (2, FULL_SHARD, "4-bit LoRA r=8 q,v", FP4, QV, 6.2, 25114),
        (2, FULL_SHARD, "full", ALL_7B, None, 47.6, 17594),
        (4, FULL_SHARD, "LoRA r=8 q,v", Weights(), QV, 7.8, 49281),
        (4, REPLICATED, "LoRA r=8 q,v", Weights(), QV, 28.5, 54643),
        (4, FULL_SHARD, "full", ALL_7B, None, 38.0, 32241),
    ):
        batch = GRAMMAR if adapter else ONE_ROW
        setting = Setting(S7, weights, adapter, batch, Ranks(ranks, 1, sharding), FULL, FUSED)
        was = replace(setting, copies=True)
        yield Recorded(f"7B, {name}, {ranks} x {sharding}", was, gib, speed)


def _plain() -> Iterator[Recorded]:
    """Transformers' and PEFT's modules on an H200."""
    s7 = Setting(S7, adapter=QV, batch=GRAMMAR, kernels=PLAIN)
    yield Recorded("7B, LoRA r=8 q,v, transformers, H200", s7, 53.7, 15226, H200)
    sharded = replace(s7, ranks=Ranks(1, 1, FULL_SHARD), policy=FULL, copies=True)
    yield Recorded("the same, 1 x FULL_SHARD, H200", sharded, 18.2, 10780, H200)


def table(page: str) -> str:
    """Return the table of a page of the documentation."""
    heads = PAGES[page]
    lines = ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in recorded():
        gib, speed = run.predicted_gib, run.predicted_speed
        lines.append(
            f"| {run.name} | {run.gib} | {gib:.1f} | {gib / run.gib - 1:+.1%} "
            f"| {run.speed:,} | {speed:,.0f} | {speed / run.speed - 1:+.1%} |"
        )
    return "\n".join([*lines, "", ""])


def main() -> None:
    """Write the table into both pages."""
    put_into_pages("predictions", PAGES, table)


if __name__ == "__main__":
    main()
