"""Makes the README's table of methods from the cells that the tests run.

``python tests/helpers/methods_table.py`` writes it between the marks in both READMEs.
"""

import re
from pathlib import Path

from methods import CELLS, METHODS, MODEL, QUANTIZATIONS, SHARDINGS, UNQUANTIZED, Cell

PROJECT = Path(__file__).resolve().parents[2]
READMES = (PROJECT / "README.md", PROJECT / "README.zh-CN.md")
MARKED = re.compile(r"(?<=<!-- methods -->\n).*?(?=<!-- /methods -->)", re.DOTALL)
WORKS = "✓"
COLUMNS = {"one device": "one device", "NO_SHARD": "`NO_SHARD` (DDP)", "CPU offload": "offload"}


def make_table() -> str:
    """Return a Markdown table for each quantisation, and the numbered problems."""
    refusals = list(dict.fromkeys(cell.refused for cell in CELLS if cell.refused))
    tables = [_table(quantization, refusals) for quantization in QUANTIZATIONS]
    notes = [f"{number}. `{refusal}`" for number, refusal in enumerate(refusals, 1)]
    return "\n".join(["", *tables, *notes, "", ""])


def _table(quantization: str, refusals: list[str]) -> str:
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
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _flags(flags: dict[str, object]) -> str:
    shown = [f"--{name}" if value is True else f"--{name} {value}" for name, value in flags.items()]
    return f"`{' '.join(shown)}`" if shown else "none"


def main() -> None:
    """Write the table into both READMEs."""
    for path in READMES:
        text, found = MARKED.subn(lambda _: make_table(), path.read_text("utf-8"))
        assert found == 1, f"{path} has no marks <!-- methods --> and <!-- /methods -->"
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
