"""The page: one file of HTML without scripts, whose style follows the reader's light or dark."""

from collections.abc import Sequence
from html import escape

from llama_recipes_local.errors import one_line
from llama_recipes_local.reports.line_chart import COLOURS

_LIGHT = ("#0b5cad", "#b3470c", "#2a7d2e", "#8a2fa8", "#8a6d00", "#0a7a7a")
_DARK = ("#6db3ff", "#ff9d5c", "#7ed482", "#d79bf0", "#e6c84a", "#5fd6d6")
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1a1a1a; --faint: #666; --line: #ddd; }
@media (prefers-color-scheme: dark) {
  :root { --back: #16181c; --text: #e8e8e8; --faint: #a0a4ab; --line: #3a3d44; }
}
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 1400px; padding: 1rem; }
h1, h2 { line-height: 1.2; }
p { color: var(--faint); overflow-wrap: anywhere; }
.charts { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); }
figure { margin: 0; }
figcaption { font-weight: 600; }
svg { width: 100%; height: auto; }
svg text { fill: var(--faint); font-size: 13px; }
svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 1.5; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.75rem 0.25rem 0;
  text-align: left; vertical-align: top; }
ul.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; list-style: none; padding: 0; }
ul.legend svg { height: 0.6rem; margin-right: 0.4rem; width: 1.5rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return the whole file."""
    style = _STYLE + _colours(_LIGHT)
    style += f"@media (prefers-color-scheme: dark) {{\n{_colours(_DARK)}}}\n"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}',
            f"<title>{shown(title)}</title>\n<style>{style}</style></head>\n<body><main>",
            f"<h1>{shown(title)}</h1>",
            *parts,
            "</main></body></html>\n",
        ]
    )


def section(title: str, *parts: str) -> str:
    """Return a heading with what belongs to it; empty if nothing does."""
    inside = [part for part in parts if part]
    return "\n".join([f"<section><h2>{shown(title)}</h2>", *inside, "</section>"]) if inside else ""


def charts(drawn: dict[str, str]) -> str:
    """Return charts beside each other, by their titles; those that are empty are left out."""
    figures = [
        f"<figure><figcaption>{shown(title)}</figcaption>{svg}</figure>"
        for title, svg in drawn.items()
        if svg
    ]
    return "\n".join(['<div class="charts">', *figures, "</div>"]) if figures else ""


def legend(names: Sequence[str]) -> str:
    """Return which colour is whose."""
    sample = (
        '<svg viewBox="0 0 24 8" aria-hidden="true"><polyline class="c{}" points="0,4 24,4"/></svg>'
    )
    items = [
        f"<li>{sample.format(number % COLOURS)}{shown(name)}</li>"
        for number, name in enumerate(names)
    ]
    return "\n".join(['<ul class="legend">', *items, "</ul>"])


def table(columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    """Return a table whose first column are the rows' names; empty if there are none."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{shown(name)}</th>' for name in columns)
    body = [
        f'<tr><th scope="row">{shown(name)}</th>'
        + "".join(f"<td>{shown(value)}</td>" for value in values)
        + "</tr>"
        for name, values in rows.items()
    ]
    # a region that scrolls is reached by the keyboard
    opened = '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>'
    return "\n".join(
        [opened, f"<thead><tr>{head}</tr></thead><tbody>", *body, "</tbody></table></div>"]
    )


def note(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{shown(text)}</p>"


def shown(text: str) -> str:
    """Return a text as a page may have it: a file's name or a setting may hold anything."""
    return escape(one_line(text))


def _colours(colours: Sequence[str]) -> str:
    return "".join(
        f"polyline.c{number} {{ stroke: {colour}; }} circle.c{number} {{ fill: {colour}; }}\n"
        for number, colour in enumerate(colours)
    )
