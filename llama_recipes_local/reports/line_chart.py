"""A line chart as SVG, in colours of the page that it is put into."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from llama_recipes_local.errors import one_line

WIDTH, HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 34
_TICKS = 5
_POINTS = 800
"""More points than a chart has columns are not drawn: each is the mean of its neighbours."""
_MOST, _LEAST = 1e300, 1e-300
"""Values of that size and more are not drawn, and differences below the other are none."""
COLOURS = 6

Point = tuple[float, float]


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        name: for the legend.
        points: x and y, by x; what is not finite is left out.
        colour: number of its colour, from 0.
        dotted: whether its points are drawn too: for few points.
    """

    name: str
    points: Sequence[Point]
    colour: int
    dotted: bool = False


def line_chart(title: str, x_name: str, lines: Sequence[Line]) -> str:
    """Return an ``svg`` element; a screen reader reads its title and each line's ends."""
    lines = [line._replace(points=_drawn(line.points)) for line in lines]
    every = [point for line in lines for point in line.points]
    if not every:
        return ""
    x_low, x_high = _bounds([x for x, _ in every])
    y_low, y_high = _bounds([y for _, y in every])
    across = _Scale(x_low, x_high, _LEFT, WIDTH - _RIGHT)
    up = _Scale(y_low, y_high, HEIGHT - _BOTTOM, _TOP)
    drawn = [_line(line, across, up) for line in lines if line.points]
    read = " ".join(_in_words(line) for line in lines if line.points)
    words = escape(one_line(f"{title}. {read}"))
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">',
            *_grid(across, up, x_name),
            *drawn,
            "</svg>",
        ]
    )


class _Scale(NamedTuple):
    """From values to places."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)


def _drawn(points: Sequence[Point]) -> list[Point]:
    """Return what is drawn: finite points, or means of neighbours where there are many."""
    finite = [point for point in points if all(abs(value) < _MOST for value in point)]
    size = -(-len(finite) // _POINTS)
    if size < 2:
        return finite
    groups = [finite[first : first + size] for first in range(0, len(finite), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < max(_LEAST, 1e-12 * max(abs(low), abs(high))):
        room = abs(low) / 2 if abs(low) > _LEAST else 1.0
        return low - room, high + room
    return low, high


def ticks(low: float, high: float) -> list[float]:
    """Return some round values between two, both included if they are round."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _grid(across: _Scale, up: _Scale, x_name: str) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for value, label in _labelled(ticks(up.low, up.high)):
        y = up(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in _labelled(ticks(across.low, across.high)):
        x = across(value)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_name)}</text>')
    return parts


def _labelled(values: Sequence[float]) -> list[tuple[float, str]]:
    """Return values with their labels, which have the digits that tell them apart."""
    for digits in range(4, 16):
        labels = [number(value, digits) for value in values]
        if len(set(labels)) == len(labels):
            break
    return list(zip(values, labels, strict=True))


def _line(line: Line, across: _Scale, up: _Scale) -> str:
    places = [(across(x), up(y)) for x, y in line.points]
    colour = f"c{line.colour % COLOURS}"
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = ""
    if line.dotted or len(places) == 1:
        dots = "".join(
            f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places
        )
    return f'<polyline class="{colour}" points="{path}"/>{dots}'


def _in_words(line: Line) -> str:
    first, last = line.points[0], line.points[-1]
    return f"{line.name}: {number(first[1])} at first, {number(last[1])} at last."


def number(value: float, count: int = 4) -> str:
    """Return a value with some digits that count, thousands apart."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else str(value)
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.{count - 1}g}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    digits = max(0, count - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:,.0f}"
