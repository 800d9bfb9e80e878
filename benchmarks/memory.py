"""Computes the memory and speed of fine-tuning a Llama, for the tables of ``docs/hardware.md``.

The formula and its constants are those of the page; a test compares them with what was measured.
``python benchmarks/memory.py`` writes the tables between the marks of both languages' pages.
"""

import re
from dataclasses import dataclass
from pathlib import Path

SHAPES = {  # hidden size, MLP, layers, heads, key-value heads, vocabulary
    "7B": (4096, 11008, 32, 32, 32, 32000),
    "8B": (4096, 14336, 32, 32, 8, 128256),
    "13B": (5120, 13824, 40, 40, 40, 32000),
    "70B": (8192, 28672, 80, 64, 8, 128256),
}
CARDS = {24: 22.5, 48: 44.4, 80: 79.1, 141: 139.8}  # GB as sold: GiB that torch can allocate
METHODS = ("QLoRA", "LoRA", "full")
LORA_RANK = 16
ROWS = (2048, 4096, 8192)
GIB = 2**30
RESERVE = 3  # GiB for CUDA's context and fragments
TERAFLOPS = {"QLoRA": 550, "LoRA": 575, "full": 475}  # reached at the 7B and 8B shapes on an H100
FLOPS_A_WEIGHT = {"QLoRA": 6, "LoRA": 6, "full": 8}  # with activation checkpointing
PAGES = ("hardware.md", "hardware.zh-CN.md")
HEADS = {
    "hardware.md": ("model", "method", "{} tokens, GiB", "smallest card", "tok/s on an H100"),
    "hardware.zh-CN.md": ("模型", "方法", "{} token, GiB", "最小的单卡", "H100 上的 tok/s"),
}


@dataclass(frozen=True)
class Llama:
    """The sizes of a Llama that memory depends on."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """The inputs and outputs of a decoder layer's linear layers."""
        narrow = self.hidden * self.kv_heads // self.heads
        attention = [(self.hidden, self.hidden)] * 2 + [(self.hidden, narrow)] * 2
        return [*attention, *[(self.hidden, self.mlp)] * 2, (self.mlp, self.hidden)]

    @property
    def linear(self) -> int:
        """Weights of all decoder layers."""
        return self.layers * sum(rows * columns for rows, columns in self.matrices)

    @property
    def embeddings(self) -> int:
        """Weights of the embedding and the head."""
        return 2 * self.vocabulary * self.hidden

    def adapter(self, rank: int) -> int:
        """Weights of LoRA on all linear layers."""
        return self.layers * sum(rank * (rows + columns) for rows, columns in self.matrices)


def fixed_bytes(llama: Llama, method: str) -> float:
    """Bytes of weights, gradients and optimiser: what does not depend on the tokens."""
    if method == "full":
        return 8 * (llama.linear + llama.embeddings)
    weights = 2 * llama.linear if method == "LoRA" else 0.5 * llama.linear * (1 + 1 / 31)
    return weights + 2 * llama.embeddings + 16 * llama.adapter(LORA_RANK)


def activation_bytes(llama: Llama, tokens: int) -> int:
    """Bytes of activations with activation checkpointing: what is kept, and a layer again."""
    return 2 * tokens * (llama.hidden * (llama.layers + 16) + 6 * llama.mlp)


def gib(llama: Llama, method: str, tokens: int, devices: int = 1) -> float:
    """The peak on each of some devices, in GiB; sharded if there are several."""
    gathered = 0 if devices == 1 else 2 * 2 * llama.linear / llama.layers
    fixed = fixed_bytes(llama, method) / devices
    return (fixed + gathered + activation_bytes(llama, tokens)) / GIB


def tokens_a_second(llama: Llama, method: str) -> float:
    """Of one H100, with activation checkpointing."""
    weights = llama.linear + llama.embeddings / 2
    return TERAFLOPS[method] * 1e12 / (FLOPS_A_WEIGHT[method] * weights)


def one_card(page: str) -> str:
    """The table of what one card needs."""
    model, method_head, row, card_head, speed = HEADS[page]
    rows = [row.format(f"{tokens:,}") for tokens in ROWS]
    heads = [model, method_head, *rows, card_head, speed]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, sizes in SHAPES.items():
        for method in METHODS:
            llama = Llama(*sizes)
            needs = [gib(llama, method, tokens) for tokens in ROWS]
            cards = [f"{card} GB" for card, has in CARDS.items() if needs[1] + RESERVE <= has]
            fast = f"{round(tokens_a_second(llama, method), -2):,.0f}" if cards else "-"
            shown = " | ".join(f"{need:.1f}" if need < 100 else f"{need:.0f}" for need in needs)
            lines.append(f"| {name} | {method} | {shown} | {cards[0] if cards else '-'} | {fast} |")
    return "\n".join(["", *lines, "", ""])


def several_cards(page: str) -> str:
    """The table of how many cards a model needs, sharded with FSDP, a row of 4,096 tokens each."""
    lines = [
        " | ".join(["", *HEADS[page][:2], *(f"{card} GB" for card in CARDS), ""]).strip(),
        "|---" * (2 + len(CARDS)) + "|",
    ]
    for name, sizes in SHAPES.items():
        for method in METHODS:
            cells = [_fewest(Llama(*sizes), method, has) for has in CARDS.values()]
            lines.append(f"| {name} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(["", *lines, "", ""])


def _fewest(llama: Llama, method: str, has: float) -> str:
    if method == "QLoRA" and fixed_bytes(llama, method) / GIB + RESERVE > has:
        return "-"  # it is quantised on each card before it is sharded
    for devices in (1, 2, 4, 8, 16, 32):
        if gib(llama, method, 4096, devices) + RESERVE <= has:
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
