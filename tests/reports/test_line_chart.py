"""Charts: round ticks, labels that differ, few points of many, and their extremes."""

import pytest

from llama_recipes_local.reports.line_chart import (
    Chart,
    Dot,
    Line,
    Stroke,
    Words,
    line_chart,
    number,
    thinned,
    ticks,
)


def chart_of(points: list[tuple[float, float]], smoothed: bool = False) -> Chart:
    chart = line_chart("t", "step", [Line("a", points, 0, smoothed=smoothed)])
    assert chart is not None
    return chart


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (1.1, 1.9, [1.2, 1.4, 1.6, 1.8]), (-3e-5, 3e-5, None)],
)
def test_ticks_are_round(low: float, high: float, want: list[float] | None) -> None:
    got = ticks(low, high)
    assert 3 <= len(got) <= 7 and low <= got[0] and got[-1] <= high
    assert want is None or got == pytest.approx(want)


def test_numbers() -> None:
    values = [0, 1.0, 12345, 0.12345, 1.5, 33153.4, 0.00012, 2.5e7, -0.5]
    want = ["0", "1", "12,345", "0.1235", "1.5", "33,153", "0.00012", "2.5e+07", "-0.5"]
    assert [number(value) for value in values] == want


def test_a_chart_of_one_value_and_of_many() -> None:
    assert sum(isinstance(mark, Dot) for mark in chart_of([(1, 5.0)]).marks) == 1
    assert line_chart("t", "step", [Line("a", [(1, float("inf"))], 0)]) is None
    many = chart_of([(x, x % 7) for x in range(100_000)])
    drawn = [mark for mark in many.marks if isinstance(mark, Stroke) and mark.kind == "line"]
    assert len(drawn) == 1 and 400 < len(drawn[0].points) <= 800


def test_a_single_spike_is_drawn() -> None:
    points = [(float(x), 0.0) for x in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    assert max(y for _, y in thinned(points, 800)) == 9.0
    assert [x for x, _ in thinned(points, 800)] == sorted(x for x, _ in thinned(points, 800))


def test_a_noisy_line_has_its_mean() -> None:
    chart = chart_of([(x, 1.0 + x % 2) for x in range(400)], smoothed=True)
    faint, mean = [m for m in chart.marks if isinstance(m, Stroke) and m.kind != "grid"]
    assert faint.kind == "faint" and mean.kind == "line"
    spread = [max(y for _, y in m.points) - min(y for _, y in m.points) for m in (faint, mean)]
    assert spread[1] < 20 < 150 < spread[0]


def test_numbers_of_a_chart() -> None:
    one = Line("one", [(float(x), x / 2) for x in range(101)], 0)
    two = Line("two", [(50.0, 7.0)], 1)
    chart = line_chart("t", "step", [one, two])
    assert chart is not None
    rows = chart.in_numbers()
    assert list(rows)[:2] == ["0", "10"] and list(rows)[-1] == "100" and len(rows) == 11
    assert rows["40"] == ["20", ""] and rows["60"] == ["30", "7"]


def test_labels_of_an_axis_differ() -> None:
    marks = chart_of([(x, 12.3456 + x * 1e-5) for x in range(5)]).marks
    labels = [mark.text for mark in marks if isinstance(mark, Words) and mark.anchor == "end"]
    assert len(labels) > 3 and len(set(labels)) == len(labels)
