"""Makes the table of methods in ``docs/methods.md`` from the cells that the tests run.

``python tests/helpers/methods_table.py`` writes it between the marks of both languages' pages.
"""

import re
from pathlib import Path

from methods import CELLS, METHODS, MODEL, QUANTIZATIONS, SHARDINGS, UNQUANTIZED, Cell

PROJECT = Path(__file__).resolve().parents[2]
ENGLISH, CHINESE = PROJECT / "docs/methods.md", PROJECT / "docs/methods.zh-CN.md"
MARKED = re.compile(r"(?<=<!-- methods -->\n).*?(?=<!-- /methods -->)", re.DOTALL)
WORKS = "✓"
COLUMNS = {"one device": "one device", "NO_SHARD": "`NO_SHARD` (DDP)", "CPU offload": "offload"}
IN_CHINESE = {
    "flags": "参数",
    "one device": "单个设备",
    "LoRA+, rsLoRA, all linear layers": "LoRA+, rsLoRA, 全部线性层",
    "all layers": "全部层",
    "without the first N layers": "冻结前 N 层",
    "the head": "只训练 lm_head",
    "the last N layers": "只训练最后 N 层",
    "new layers on top": "在顶部新增层",
    "everything else": "其他方法",
    "no `--use_peft`": "不带 `--use_peft`",
    "none": "无",
}


def make_table(page: Path = ENGLISH) -> str:
    """Return a Markdown table for each quantisation, and the numbered problems."""
    refusals = list(dict.fromkeys(cell.refused for cell in CELLS if cell.refused))
    words = IN_CHINESE if page == CHINESE else {}
    tables = [_table(quantization, refusals, words) for quantization in QUANTIZATIONS]
    notes = [f"{number}. `{refusal}`" for number, refusal in enumerate(refusals, 1)]
    return "\n".join(["", *tables, *notes, "", ""])


def _table(quantization: str, refusals: list[str], words: dict[str, str]) -> str:
    title = "" if quantization == UNQUANTIZED else f"`--quantization {quantization}`"
    columns = [COLUMNS.get(name, f"`{name}`") for name in SHARDINGS]
    lines = [[title, "flags", *columns], ["---"] * 2 + [":-:"] * len(columns)]
    for method in METHODS:
        row = [Cell(method, sharding, quantization) for sharding in SHARDINGS]
        marks = [
            WORKS if cell.refused is None else str(refusals.index(cell.refused) + 1) for cell in row
        ]
        if method.saves == MODEL and quantization != UNQUANTIZED:
            line = ["everything else", "no `--use_peft`", *marks]
        else:
            line = [method.name, _flags(method.flags), *marks]
        if line not in lines:
            lines.append(line)
    shown = ([words.get(word, word) for word in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in shown)


def _flags(flags: dict[str, object]) -> str:
    shown = [f"--{name}" if value is True else f"--{name} {value}" for name, value in flags.items()]
    return f"`{' '.join(shown)}`" if shown else "none"


def main() -> None:
    """Write the table into both pages."""
    for path in (ENGLISH, CHINESE):
        text, found = MARKED.subn(make_table(path), path.read_text("utf-8"))
        assert found == 1, f"{path} has no marks <!-- methods --> and <!-- /methods -->"
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
