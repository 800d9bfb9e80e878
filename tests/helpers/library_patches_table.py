"""The table of runtime patches in ``docs/architecture.md``, made from the list in the package.

``python tests/helpers/library_patches_table.py`` writes it between the page's marks.
"""

import re
from pathlib import Path

from llama_recipes_local.library_patches import PATCHES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
MARKED = re.compile(r"(?<=<!-- patches -->\n).*?(?=<!-- /patches -->)", re.DOTALL)


def make_table() -> str:
    """Return a Markdown table with a row for each replacement."""
    lines = ["", "| what | replaced or relied on | where | why | until |", "|---|---|---|---|---|"]
    for patch in PATCHES:
        targets = ", ".join(f"`{target.replace(':', '.')}`" for target in patch.targets)
        file = f"{patch.where.replace('.', '/')}.py"
        where = f"[`{file}`](../llama_recipes_local/{file})"
        lines.append(f"| {patch.name} | {targets} | {where} | {patch.reason} | {patch.drop_when} |")
    return "\n".join([*lines, "", ""])


def main() -> None:
    """Write the table into the page."""
    text, found = MARKED.subn(lambda _: make_table(), PAGE.read_text("utf-8"))
    assert found == 1, f"{PAGE} has no marks <!-- patches --> and <!-- /patches -->"
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
