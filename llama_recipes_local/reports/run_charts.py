"""The charts of runs: training and validation, by step and by tokens."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local.reports.line_chart import Chart, Line, line_chart
from llama_recipes_local.reports.picture_files import png_file, svg_file
from llama_recipes_local.reports.run_files import Row, Rows, RunFiles, tokens_by_step
from llama_recipes_local.storage.publishing import published_file, write_text

_STEPS = {
    "training loss": "loss",
    "learning rate": "lr",
    "gradient norm": "grad_norm",
    "tokens per second": "tokens_per_second",
    "memory, GiB": "memory_gib",
}
_NAMED = {"loss": "validation loss", "gleu": "GLEU"}
_NOT_DRAWN = ("step", "epoch", "seconds", "perplexity")
"""Perplexity is the loss on another scale."""


def validation_charts(runs: Sequence[RunFiles], by_tokens: bool = False) -> list[Chart]:
    """Return a chart for each number that validations have.

    Names with a slash, as the loss of each source, are lines of one chart: that of the part before
    it.
    """
    every = [row for run in runs for row in run.validations]
    names = dict.fromkeys(name for row in every for name in row if name not in _NOT_DRAWN)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.partition("/")[0]].append(name)
    return [
        chart
        for group, members in groups.items()
        if (chart := _validation_chart(runs, group, members, by_tokens))
    ]


def _validation_chart(
    runs: Sequence[RunFiles], group: str, members: Sequence[str], by_tokens: bool
) -> Chart | None:
    lines: list[Line] = []
    for run in runs:
        for name in members:
            source = name.partition("/")[2]
            own = run.name if len(runs) > 1 or not source else ""
            title = f"{own} {source}".strip() if len(members) > 1 else run.name
            points = _points(run.validations, name, _places(run.logged, by_tokens))
            lines.append(Line(title, points, len(lines), dotted=True))
    return line_chart(_NAMED.get(group, group), "tokens" if by_tokens else "step", lines)


def training_charts(runs: Sequence[RunFiles], by_tokens: bool = False) -> list[Chart]:
    """Return a chart for each number that training logs."""
    drawn = [_training_chart(runs, title, name, by_tokens) for title, name in _STEPS.items()]
    drawn.insert(1, _chart_of_sources(runs, by_tokens))
    return [chart for chart in drawn if chart]


def _chart_of_sources(runs: Sequence[RunFiles], by_tokens: bool) -> Chart | None:
    """Return the training losses of a mixture's sources, which are logged as ``loss/NAME``."""
    lines: list[Line] = []
    for run in runs:
        named = dict.fromkeys(name for row in run.steps for name in row)
        for name in (each for each in named if each.startswith("loss/")):
            title = f"{run.name * (len(runs) > 1)} {name.partition('/')[2]}".strip()
            points = _points(run.steps, name, _places(run.logged, by_tokens))
            lines.append(Line(title, points, len(lines), smoothed=True))
    return line_chart("training loss by source", "tokens" if by_tokens else "step", lines)


def _training_chart(
    runs: Sequence[RunFiles], title: str, name: str, by_tokens: bool
) -> Chart | None:
    smoothed = name in ("loss", "grad_norm")
    lines = [
        Line(
            run.name,
            _points(run.steps, name, _places(run.logged, by_tokens)),
            colour,
            smoothed=smoothed,
        )
        for colour, run in enumerate(runs)
    ]
    return line_chart(title, "tokens" if by_tokens else "step", lines)


def _places(rows: Rows, by_tokens: bool) -> dict[float, float] | None:
    """Return where each step is drawn; None for the step itself."""
    return tokens_by_step(rows) if by_tokens else None


def _points(
    rows: Sequence[Row], name: str, places: dict[float, float] | None
) -> list[tuple[float, float]]:
    own = [(row["step"], row[name]) for row in rows if name in row]
    if places is None:
        return own
    steps, known = list(places), [0.0, *places.values()]
    return [(known[bisect_right(steps, step)], value) for step, value in own] if steps else []


def write_pictures(runs: Sequence[RunFiles], page: Path) -> None:
    """Write the charts as one picture beside a page, as SVG and as PNG."""
    charts = [*validation_charts(runs), *training_charts(runs)]
    if charts:
        write_text(page.with_suffix(".svg"), svg_file(charts))
        with published_file(page.with_suffix(".png")) as draft:
            draft.write_bytes(png_file(charts))
