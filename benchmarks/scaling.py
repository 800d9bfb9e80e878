"""Writes the table of ``docs/hardware.md`` of how training scales over machines, computed.

``python benchmarks/scaling.py`` writes the table between the marks of both languages' pages. 8 H100
a machine, 50 GB/s from each to other machines, 8,192 tokens a GPU and step.
"""

from marked_tables import put_into_pages
from memory import SHAPES

from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.search import Outcome, ranked
from llama_recipes_local.planning.setting import (
    FULL_SHARD,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import LINEAR

GPUS = (8, 64, 512)
PAGES = ("hardware.md", "hardware.zh-CN.md")
HEADS = {
    "hardware.md": ("model", "method", "{} GPUs: tok/s a GPU", "sharding, waiting"),
    "hardware.zh-CN.md": ("模型", "方法", "{} 张卡, 每张 tok/s", "分片方式, 等待"),
}


def fastest(name: str, method: str, gpus: int) -> Outcome:
    """Return the fastest setting that fits on so many H100, or what needs the least."""
    shape = SHAPES[name]
    full = method == "full"
    asked = Setting(
        shape,
        Weights(trained=shape.weights) if full else Weights(),
        None if full else Adapter(rank=16, targets=frozenset(LINEAR)),
        Batch(rows=2),
        Ranks(gpus, gpus // 8, FULL_SHARD),
    )
    return ranked(asked, card(80, "H100"))[0]


def table(page: str) -> str:
    """Return the table of a page of the documentation."""
    model, method_head, speed, what = HEADS[page]
    heads = [model, method_head]
    for gpus in GPUS:
        heads += [speed.format(gpus), what]
    lines = ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in ("7B", "13B", "70B"):
        for method in ("LoRA", "full"):
            cells = [cell for gpus in GPUS for cell in _cells(fastest(name, method, gpus))]
            lines.append(f"| {name} | {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def _cells(found: Outcome) -> tuple[str, str]:
    if not found.fits:
        return "-", "-"
    setting, time = found.setting, found.seconds
    waiting = f"{time.communication / time.step:.0%}"
    each = f"{found.tokens / setting.ranks.world:,.0f}"
    return each, f"`{setting.ranks.sharding}`, {waiting}"


def main() -> None:
    """Write the table into both pages."""
    put_into_pages("scaling", PAGES, table)


if __name__ == "__main__":
    main()
