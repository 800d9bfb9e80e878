"""A line chart as marks on a plane: strokes, dots and words, which ``picture_files`` draws."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 34, 12, 38
_TICKS = 5
MOST_POINTS = 800
"""Of more points than a chart has columns, the lowest and the highest of neighbours are drawn."""
_MOST_DOTS = 60
_MOST, _LEAST = 1e300, 1e-300
"""Values of that size and more are not drawn, and differences below the other are none."""
_SMOOTHED_FROM = 30
_NUMBERS = 10
COLOURS = 6

Point = tuple[float, float]


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        name: for the legend.
        points: x and y, by x; what is not finite is left out.
        colour: number of its colour, from 0.
        dotted: whether its points are drawn too, if they are few.
        smoothed: whether a mean over neighbours is drawn over it, if they are many.
    """

    name: str
    points: Sequence[Point]
    colour: int
    dotted: bool = False
    smoothed: bool = False


class Stroke(NamedTuple):
    """A line through points; the kind is "grid", "line" or "faint"."""

    points: Sequence[Point]
    kind: str
    colour: int = 0


class Dot(NamedTuple):
    """A point."""

    at: Point
    colour: int


class Words(NamedTuple):
    """A text; its anchor is the "start", "middle" or "end" of it."""

    at: Point
    text: str
    anchor: str
    kind: str = "faint"


Mark = Stroke | Dot | Words


class Chart(NamedTuple):
    """A chart, drawn and in numbers.

    Attributes:
        title: what its values are.
        x_name: what they are by.
        lines: those that have something to draw, all their finite points.
        marks: what is drawn, in ``WIDTH`` by ``HEIGHT``.
    """

    title: str
    x_name: str
    lines: list[Line]
    marks: list[Mark]

    def in_words(self) -> str:
        """Return what a screen reader reads instead of the picture."""
        read = (
            f"{line.name}: {number(line.points[0][1])} at first, {number(line.points[-1][1])} at "
            f"last, between {number(min(y for _, y in line.points))} and "
            f"{number(max(y for _, y in line.points))}."
            for line in self.lines
        )
        return " ".join([f"{self.title} by {self.x_name}.", *read])

    def in_numbers(self) -> dict[str, list[str]]:
        """Return each line's values at some places, by the place."""
        places = sorted({x for line in self.lines for x, _ in line.points})
        step = max(1, (len(places) - 1) / _NUMBERS)
        count = math.floor((len(places) - 1) / step + 1e-9) + 1
        chosen = [places[round(place * step)] for place in range(count)]
        return {number(x, 12): [_value_at(line, x) for line in self.lines] for x in chosen}


def line_chart(title: str, x_name: str, lines: Sequence[Line]) -> Chart | None:
    """Return a chart; None if there is nothing to draw."""
    lines = [line._replace(points=_finite(line.points)) for line in lines]
    lines = [line for line in lines if line.points]
    every = [point for line in lines for point in line.points]
    if not every:
        return None
    across = _Scale(*_bounds([x for x, _ in every]), _LEFT, WIDTH - _RIGHT)
    up = _Scale(*_bounds([y for _, y in every]), HEIGHT - _BOTTOM, _TOP)
    most = max(MOST_POINTS // len(lines), 40)
    drawn = [mark for line in lines for mark in _marks(line, across, up, most)]
    return Chart(title, x_name, lines, [*_grid(across, up, x_name), *drawn])


class _Scale(NamedTuple):
    """From values to places."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if all(abs(value) < _MOST for value in point)]


def _groups(points: Sequence[Point], most: int) -> list[Sequence[Point]]:
    size = -(-len(points) // most)
    return [points[first : first + size] for first in range(0, len(points), size)]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return points that look the same: of each group of neighbours the lowest and the highest."""
    if len(points) <= most:
        return list(points)
    extremes = (
        {min(group, key=lambda point: point[1]), max(group, key=lambda point: point[1])}
        for group in _groups(points, most // 2)
    )
    return [point for pair in extremes for point in sorted(pair)]


def _means(points: Sequence[Point], most: int) -> list[Point]:
    """Return the mean of each point's neighbours, a twentieth of all of them."""
    half = max(len(points) // 40, 2)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for place, (x, _) in enumerate(points):
        first, last = max(place - half, 0), min(place + half + 1, len(points))
        smooth.append((x, (sums[last] - sums[first]) / (last - first)))
    return thinned(smooth, most)


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


def _grid(across: _Scale, up: _Scale, x_name: str) -> list[Mark]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    marks: list[Mark] = []
    for value, label in _labelled(ticks(up.low, up.high)):
        y = up(value)
        marks.append(Stroke([(_LEFT, y), (right, y)], "grid"))
        marks.append(Words((_LEFT - 6, y + 4), label, "end"))
    for value, label in _labelled(ticks(across.low, across.high)):
        marks.append(Words((across(value), bottom + 16), label, "middle"))
    marks.append(Words((right, HEIGHT - 4), x_name, "end"))
    return marks


def _labelled(values: Sequence[float]) -> list[tuple[float, str]]:
    """Return values with their labels, which have the digits that tell them apart."""
    for digits in range(4, 16):
        labels = [number(value, digits) for value in values]
        if len(set(labels)) == len(labels):
            break
    return list(zip(values, labels, strict=True))


def _marks(line: Line, across: _Scale, up: _Scale, most: int) -> list[Mark]:
    """Return a line's strokes and dots."""

    def placed(points: Sequence[Point]) -> list[Point]:
        return [(across(x), up(y)) for x, y in points]

    count, smooth = len(line.points), line.smoothed and len(line.points) >= _SMOOTHED_FROM
    places = placed(thinned(line.points, most))
    marks: list[Mark] = [Stroke(places, "faint" if smooth else "line", line.colour)]
    if smooth:
        marks.append(Stroke(placed(_means(line.points, most // 2)), "line", line.colour))
    if (line.dotted and count <= _MOST_DOTS) or count == 1:
        marks += [Dot(place, line.colour) for place in places]
    return marks


def _value_at(line: Line, x: float) -> str:
    """Return the value at a place, or the last one before it."""
    place = bisect_right(line.points, (x, math.inf)) - 1
    return number(line.points[place][1]) if place >= 0 else ""


def number(value: float, count: int = 4) -> str:
    """Return a value with some digits that count, thousands apart."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}" if abs(value) < max(1e6, 10.0**count) else f"{value:.{count - 1}g}"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.{count - 1}g}"
    digits = max(0, count - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:,.0f}"
