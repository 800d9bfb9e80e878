"""Writes the tables of ``docs/hardware.md`` of which card a Llama needs, computed by ``planning``.

``python benchmarks/memory.py`` writes the tables between the marks of both languages' pages.
"""

import re
from pathlib import Path

from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.search import Outcome, outcome
from llama_recipes_local.planning.setting import (
    FULL_SHARD,
    OFFLOAD,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN, LINEAR

SHAPES = {
    "7B": KNOWN["llama-2-7b"],
    "8B": KNOWN["llama-3.1-8b"],
    "13B": KNOWN["llama-2-13b"],
    "70B": KNOWN["llama-3.1-70b"],
}
CARDS = (24, 48, 80, 141)  # GB as sold
METHODS = ("QLoRA", "LoRA", "full")
ROWS = (2048, 4096, 8192)
PAGES = ("hardware.md", "hardware.zh-CN.md")
HEADS = {
    "hardware.md": ("model", "method", "{} tokens, GiB", "smallest card", "tok/s on an H100"),
    "hardware.zh-CN.md": ("模型", "方法", "{} token, GiB", "最小的单卡", "H100 上的 tok/s"),
}


def run(name: str, method: str, tokens: int, memory: float, devices: int = 1) -> Outcome:
    """Return what one row of some tokens takes with recomputation; sharded over several devices."""
    shape = SHAPES[name]
    weights = {
        "QLoRA": Weights(bits=4, double=True),
        "LoRA": Weights(),
        "full": Weights(trained=shape.weights),
    }
    return outcome(
        Setting(
            shape,
            weights[method],
            None if method == "full" else Adapter(rank=16, targets=frozenset(LINEAR)),
            Batch(rows=1, length=tokens),
            Ranks(devices, 1, FULL_SHARD) if devices > 1 else Ranks(),
            OFFLOAD,
        ),
        card(memory),
    )


def one_card(page: str) -> str:
    """The table of what one card needs."""
    model, method_head, row, card_head, speed = HEADS[page]
    rows = [row.format(f"{tokens:,}") for tokens in ROWS]
    heads = [model, method_head, *rows, card_head, speed]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in SHAPES:
        for method in METHODS:
            needs = [run(name, method, tokens, 80).memory.gib for tokens in ROWS]
            cards = [f"{each} GB" for each in CARDS if run(name, method, 4096, each).fits]
            tokens_a_second = run(name, method, 4096, 80).tokens
            fast = f"{round(tokens_a_second / 100) * 100:,}" if cards else "-"
            shown = " | ".join(f"{need:.1f}" if need < 100 else f"{need:.0f}" for need in needs)
            lines.append(f"| {name} | {method} | {shown} | {cards[0] if cards else '-'} | {fast} |")
    return "\n".join(["", *lines, "", ""])


def several_cards(page: str) -> str:
    """The table of how many cards a model needs, sharded with FSDP, a row of 4,096 tokens each."""
    lines = [
        " | ".join(["", *HEADS[page][:2], *(f"{card} GB" for card in CARDS), ""]).strip(),
        "|---" * (2 + len(CARDS)) + "|",
    ]
    for name in SHAPES:
        for method in METHODS:
            cells = [_fewest(name, method, memory) for memory in CARDS]
            lines.append(f"| {name} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(["", *lines, "", ""])


def _fewest(name: str, method: str, memory: int) -> str:
    for devices in (1, 2, 4, 8, 16, 32):
        if run(name, method, 4096, memory, devices).fits:
            return str(devices)
    return "-"


def main() -> None:
    """Write the tables into both pages."""
    for page in PAGES:
        path = Path(__file__).resolve().parents[1] / "docs" / page
        text = path.read_text("utf-8")
        for mark, table in (("one card", one_card), ("several cards", several_cards)):
            text, found = re.subn(
                rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)",
                rf"\g<1>{table(page)}\g<2>",
                text,
                flags=re.DOTALL,
            )
            assert found == 1, f"{path} has no marks <!-- {mark} --> and <!-- /{mark} -->"
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
