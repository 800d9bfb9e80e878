"""The page: one file of HTML without scripts, whose style follows the reader's light or dark."""

from collections.abc import Sequence
from html import escape

from llama_recipes_local.errors import one_line
from llama_recipes_local.reports.line_chart import Chart
from llama_recipes_local.reports.picture_files import DARK, LIGHT, stroke_class, style, svg_element

MOST_CHARACTERS = 2000
_LIGHT = ("#fff", "#1a1a1a", "#5c5c5c", "#ddd")
_DARK = ("#16181c", "#e8e8e8", "#a8acb3", "#3a3d44")
_STYLE = """
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 1400px; padding: 0 1rem 3rem; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; }
h1 { margin: 1.5rem 0 0.5rem; }
h2 { border-top: 1px solid var(--line); margin: 2rem 0 1rem; padding-top: 1rem; }
p, dd { overflow-wrap: anywhere; }
p.note { color: var(--faint); }
a { color: var(--link); }
a.skip { left: -999rem; position: absolute; }
a.skip:focus { background: var(--back); left: 1rem; padding: 0.5rem; top: 0.5rem; z-index: 1; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; list-style: none; padding: 0; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.cards { display: grid; gap: 1.5rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); }
figure { break-inside: avoid; margin: 0; min-width: 0; }
figcaption { font-weight: 600; }
svg.chart { display: block; height: auto; width: 100%; }
@media (max-width: 500px) { svg.chart text { font-size: 15px; } }
summary { color: var(--faint); cursor: pointer; padding: 0.25rem 0; }
details > .cards { margin-top: 1rem; }
.scroll { overflow-x: auto; }
.scroll + .scroll, .cards + .note { margin-top: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { font-weight: 600; text-align: start; }
caption.hidden { clip-path: inset(50%); height: 1px; overflow: hidden; position: absolute;
  white-space: nowrap; width: 1px; }
th, td { border-bottom: 1px solid var(--line); max-width: 40rem; min-width: 4rem;
  overflow-wrap: anywhere; padding: 0.25rem 1rem 0.25rem 0; text-align: start;
  vertical-align: top; }
th { font-weight: 500; }
thead th { color: var(--faint); }
ul.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; list-style: none; margin: 0;
  overflow-wrap: anywhere; padding: 0; }
ul.legend svg { height: 0.6rem; margin-inline-end: 0.4rem; width: 2.2rem; }
ul.legend polyline { fill: none; stroke-width: 2; }
article { border: 1px solid var(--line); border-radius: 0.5rem; break-inside: avoid;
  padding: 0.25rem 1rem; }
dl { margin: 0.5rem 0; }
dt { color: var(--faint); font-size: 0.85rem; }
dd { margin: 0 0 0.5rem; }
@media print {
  nav, a.skip { display: none; }
  .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""


def page(title: str, about: str, sections: dict[str, str]) -> str:
    """Return the whole file.

    Args:
        title: the heading.
        about: a line below it.
        sections: their content by their headings; empty ones are left out.
    """
    there = {name: content for name, content in sections.items() if content}
    links = "".join(f'<li><a href="#{_id(name)}">{shown(name)}</a></li>' for name in there)
    light = _variables(_LIGHT, LIGHT[0]) + style(LIGHT, *_LIGHT)
    dark = _variables(_DARK, DARK[0]) + style(DARK, *_DARK)
    themes = f":root {{ color-scheme: light dark; }}\n{light}@media screen and "
    themes += f"(prefers-color-scheme: dark) {{\n{dark}}}\n"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{shown(title)}</title>\n<style>{themes}{_STYLE}</style></head>\n<body>",
            '<a class="skip" href="#content">Skip to the content</a>',
            f"<header><h1>{bidi(title)}</h1>{note(about)}",
            f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main id="content">',
            *(
                f'<section aria-labelledby="{_id(name)}"><h2 id="{_id(name)}">{shown(name)}</h2>'
                f"\n{content}</section>"
                for name, content in there.items()
            ),
            "</main></body></html>\n",
        ]
    )


def charts(drawn: Sequence[Chart], numbers: bool = True) -> str:
    """Return charts beside each other, each with its numbers behind a summary."""
    figures = [
        f"<figure><figcaption>{shown(chart.title)}</figcaption>{svg_element(chart)}{_legend(chart)}"
        f"{_numbers(chart) if numbers else ''}</figure>"
        for chart in drawn
    ]
    return cards(figures)


def cards(parts: Sequence[str]) -> str:
    """Return parts beside each other, as many in a row as fit; empty if there are none."""
    return "\n".join(['<div class="cards">', *parts, "</div>"]) if parts else ""


def folded(summary: str, content: str) -> str:
    """Return what is shown when its summary is chosen; empty if there is nothing."""
    if not content:
        return ""
    return f"<details><summary>{shown(summary)}</summary>\n{content}</details>"


def table(
    title: str, columns: Sequence[str], rows: dict[str, list[str]], hidden: bool = False
) -> str:
    """Return a table whose first column are the rows' names; empty if there are none.

    Args:
        title: of the table.
        columns: their names.
        rows: the values by the rows' names.
        hidden: whether its title is for screen readers only.
    """
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col">{bidi(name)}</th>' if name else "<td></td>" for name in columns
    )
    body = [
        f'<tr><th scope="row">{bidi(name)}</th>'
        + "".join(f"<td>{bidi(value)}</td>" for value in values)
        + "</tr>"
        for name, values in rows.items()
    ]
    # a region that scrolls is reached by the keyboard
    opened = f'<div class="scroll" tabindex="0" role="region" aria-label="{shown(title)}"><table>'
    kind = ' class="hidden"' if hidden else ""
    caption = f"<caption{kind}>{shown(title)}</caption>"
    return "\n".join(
        [
            opened,
            f"{caption}<thead><tr>{head}</tr></thead><tbody>",
            *body,
            "</tbody></table></div>",
        ]
    )


def card(title: str, texts: dict[str, str]) -> str:
    """Return a card: some texts, each under its name."""
    named = "".join(f"<dt>{shown(name)}</dt><dd>{bidi(text)}</dd>" for name, text in texts.items())
    return f'<article aria-label="{shown(title)}"><dl>{named}</dl></article>'


def note(text: str) -> str:
    """Return a paragraph; empty if there is no text."""
    return f'<p class="note">{bidi(text)}</p>' if text else ""


def shown(text: str) -> str:
    """Return a text escaped for the page: a file's name or a setting may contain anything."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]} ... ({len(text) - MOST_CHARACTERS:,} characters more)"
    return escape(one_line(text))


def bidi(text: str) -> str:
    """Return a text that keeps its own writing direction and does not reorder what is beside it."""
    return f"<bdi>{shown(text)}</bdi>" if not text.isascii() else shown(text)


def _legend(chart: Chart) -> str:
    """Return the legend that tells lines apart, if there are several."""
    if len(chart.lines) < 2:
        return ""
    items = [
        f'<li><svg viewBox="0 0 36 8" aria-hidden="true"><polyline class="'
        f'{stroke_class(line.colour)}" points="0,4 36,4"/></svg>{bidi(line.name)}</li>'
        for line in chart.lines
    ]
    return "\n".join(['<ul class="legend">', *items, "</ul>"])


def _numbers(chart: Chart) -> str:
    columns = [chart.x_name, *(line.name for line in chart.lines)]
    return folded("Numbers", table(f"{chart.title} in numbers", columns, chart.in_numbers(), True))


def _variables(colours: tuple[str, str, str, str], link: str) -> str:
    back, text, faint, line = colours
    return (
        f":root {{ --back: {back}; --text: {text}; --faint: {faint}; --line: {line};"
        f" --link: {link}; }}\n"
    )


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")
