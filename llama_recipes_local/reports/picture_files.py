"""Draws charts: as SVG of a page, whose style colours it, and as files of SVG and PNG."""

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from llama_recipes_local.errors import one_line
from llama_recipes_local.reports.line_chart import COLOURS, HEIGHT, WIDTH, Chart, Dot, Mark, Stroke
from llama_recipes_local.reports.line_chart import Words as Text

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

LIGHT = ("#0b5cad", "#b3470c", "#2a7d2e", "#8a2fa8", "#8a6d00", "#0a7a7a")
DARK = ("#6db3ff", "#ff9d5c", "#7ed482", "#d79bf0", "#e6c84a", "#5fd6d6")
_DASHES = ("", "7 3", "2 2", "8 3 2 3", "12 4", "4 2")
_BACK, _TEXT, _FAINT, _GRID = "#ffffff", "#1a1a1a", "#5c5c5c", "#dddddd"
_FONT = 13
_COLUMNS, _GAP, _HEAD, _LEGEND = 2, 20, 26, 24
_SCALE, _FINER = 2, 2
"""Pixels of a PNG for each unit of a chart, and of what it is drawn as for each of those."""


def style(colours: Sequence[str], back: str, text: str, faint: str, grid: str) -> str:
    """Return the style sheet of drawn charts."""
    rules = [
        f"svg.chart text {{ fill: {faint}; font: {_FONT}px system-ui, sans-serif; }}",
        f"svg.chart text.title {{ fill: {text}; font-weight: 600; }}",
        f"svg.chart .grid {{ stroke: {grid}; }}",
        "svg.chart polyline { fill: none; stroke-linejoin: round; stroke-width: 1.6; }",
        "svg.chart polyline.faint { opacity: 0.35; stroke-width: 1; }",
        f"svg.chart rect {{ fill: {back}; }}",
    ]
    for place, colour in enumerate(colours):
        rules.append(f"polyline.c{place} {{ stroke: {colour}; }}")
        rules.append(f"circle.c{place} {{ fill: {colour}; }}")
    rules += [f"polyline.d{n} {{ stroke-dasharray: {dash}; }}" for n, dash in enumerate(_DASHES)][
        1:
    ]
    return "\n".join(rules) + "\n"


def svg_element(chart: Chart) -> str:
    """Return a chart as an element of a page."""
    words = escape(one_line(chart.in_words()))
    opened = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">'
    return "\n".join([opened, *map(_as_svg, chart.marks), "</svg>"])


def stroke_class(colour: int) -> str:
    """Return the classes of a line of that number: no two of 36 look alike without colours."""
    return f"c{colour % COLOURS} d{_dash(colour)}"


def _dash(colour: int) -> int:
    return (colour + colour // COLOURS) % len(_DASHES)


def svg_file(charts: Sequence[Chart]) -> str:
    """Return charts beside each other as a file, in light colours."""
    width, height, cells = _cells(charts)
    parts = []
    for (left, top), chart in cells:
        parts.append(f'<g transform="translate({left} {top})">')
        parts += map(_as_svg, _with_title(chart))
        parts.append("</g>")
    words = escape(one_line(" ".join(chart.in_words() for chart in charts)))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{words}</title>",
            f"<style>{style(LIGHT, _BACK, _TEXT, _FAINT, _GRID)}</style>",
            f'<rect width="{width}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def png_file(charts: Sequence[Chart]) -> bytes:
    """Return the same picture in pixels."""
    from PIL import Image, ImageDraw, ImageFont

    width, height, cells = _cells(charts)
    scale = _SCALE * _FINER
    image = Image.new("RGB", (width * scale, height * scale), _BACK)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT * scale)
    for corner, chart in cells:
        for mark in _with_title(chart):
            _in_pixels(pen, mark, corner, font)
    content = io.BytesIO()
    pixels = image.reduce(_FINER).quantize(64, Image.Quantize.FASTOCTREE)  # a third of the bytes
    pixels.save(content, "PNG")
    return content.getvalue()


def _cells(charts: Sequence[Chart]) -> tuple[int, int, list[tuple[tuple[int, int], Chart]]]:
    """Return a picture's width and height, and the corner of each chart in it."""
    tall = _HEAD + HEIGHT + max(len(_legend(chart)) for chart in charts) // 2 * _LEGEND
    columns = min(_COLUMNS, len(charts))
    rows = -(-len(charts) // columns)
    corners = [
        (_GAP + column * (WIDTH + _GAP), _GAP + row * (tall + _GAP))
        for row in range(rows)
        for column in range(columns)
    ]
    size = _GAP + columns * (WIDTH + _GAP), _GAP + rows * (tall + _GAP)
    return *size, list(zip(corners, charts, strict=False))


def _with_title(chart: Chart) -> list[Mark]:
    moved = [_moved(mark, 0, _HEAD) for mark in chart.marks]
    return [Text((0, 16), chart.title, "start", "title"), *moved, *_legend(chart)]


def _legend(chart: Chart) -> list[Mark]:
    """Return the legend that tells lines apart, if there are several."""
    if len(chart.lines) < 2:
        return []
    marks: list[Mark] = []
    for place, line in enumerate(chart.lines):
        y = _HEAD + HEIGHT + place * _LEGEND + 12
        marks.append(Stroke([(66, y), (96, y)], "line", line.colour))
        marks.append(Text((104, y + 4), one_line(line.name)[:60], "start"))
    return marks


def _moved(mark: Mark, right: float, down: float) -> Mark:
    if isinstance(mark, Stroke):
        return mark._replace(points=[(x + right, y + down) for x, y in mark.points])
    return mark._replace(at=(mark.at[0] + right, mark.at[1] + down))


def _as_svg(mark: Mark) -> str:
    if isinstance(mark, Stroke):
        if mark.kind == "grid":
            (x1, y1), (x2, y2) = mark.points
            return f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
        faint = mark.kind == "faint"
        kind = f"faint c{mark.colour % COLOURS}" if faint else stroke_class(mark.colour)
        return f'<polyline class="{kind}" points="{path}"/>'
    x, y = mark.at
    if isinstance(mark, Dot):
        return f'<circle class="c{mark.colour % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    title = ' class="title"' if mark.kind == "title" else ""
    anchor = f' text-anchor="{mark.anchor}"' if mark.anchor != "start" else ""
    return f'<text{title} x="{x:.1f}" y="{y:.1f}"{anchor}>{escape(mark.text)}</text>'


def _in_pixels(
    pen: "ImageDraw",
    mark: Mark,
    corner: tuple[int, int],
    font: Any,  # Pillow's, of two kinds
) -> None:
    scale = _SCALE * _FINER

    def pixel(x: float, y: float) -> tuple[float, float]:
        return (x + corner[0]) * scale, (y + corner[1]) * scale

    if isinstance(mark, Stroke):
        colour = _GRID if mark.kind == "grid" else _blended(mark)
        width = scale if mark.kind != "line" else round(scale * 1.6)
        pen.line([pixel(*point) for point in mark.points], colour, width, "curve")
    elif isinstance(mark, Dot):
        pen.circle(pixel(*mark.at), 3 * scale, LIGHT[mark.colour % COLOURS])
    else:
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
        text = mark.text.encode("latin-1", "backslashreplace").decode("latin-1")  # its font's
        fill = _TEXT if mark.kind == "title" else _FAINT
        pen.text(pixel(*mark.at), text, fill, font, anchor)


def _blended(mark: Stroke) -> str:
    """Return a line's colour, of a faint one on the background."""
    colour = LIGHT[mark.colour % COLOURS]
    if mark.kind != "faint":
        return colour
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - 0.35 * (255 - part)):02x}" for part in parts)
