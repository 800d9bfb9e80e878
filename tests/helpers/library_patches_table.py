"""The table of runtime patches in ``docs/architecture.md``, made from the list in the package.

``python tests/helpers/library_patches_table.py`` writes it into both languages' pages.
"""

import re
from pathlib import Path

from llama_recipes_local.library_patches import PATCHES

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEADS = {
    "architecture.md": "what | replaced or relied on | where | why | until",
    "architecture.zh-CN.md": "名称 | 替换或依赖的对象 | 位置 | 原因 | 何时去掉",
}
MARKED = re.compile(r"(?<=<!-- patches -->\n).*?(?=<!-- /patches -->)", re.DOTALL)


def make_table(page: str = "architecture.md") -> str:
    """Return a Markdown table with a row for each replacement."""
    lines = ["", f"| {HEADS[page]} |", "|---|---|---|---|---|"]
    for patch in PATCHES:
        targets = ", ".join(f"`{target.replace(':', '.')}`" for target in patch.targets)
        file = f"{patch.where.replace('.', '/')}.py"
        where = f"[`{file}`](../llama_recipes_local/{file})"
        lines.append(f"| {patch.name} | {targets} | {where} | {patch.reason} | {patch.drop_when} |")
    return "\n".join([*lines, "", ""])


def main() -> None:
    """Write the table into both pages."""
    for page in HEADS:
        path = DOCS / page
        table = make_table(page)
        text, found = MARKED.subn(lambda _, made=table: made, path.read_text("utf-8"))
        assert found == 1, f"{path} has no marks <!-- patches --> and <!-- /patches -->"
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
