"""The figure of a run's losses, by matplotlib, without its global state or a window."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that a notebook shows also before ``matplotlib.pyplot`` is imported."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()


def loss_figure(
    metrics: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]
) -> ShownFigure:
    """Return a figure of the losses by optimiser step.

    Args:
        metrics: rows of training, each with "step" and "loss".
        evaluations: rows of validations, with the same.
    """
    figure = ShownFigure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    for label, rows, style in (("training", metrics, "-"), ("validation", evaluations, "o-")):
        if rows:
            steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
            axes.plot(steps, losses, style, label=label)
    axes.grid(alpha=0.3)
    if metrics or evaluations:
        axes.legend()
    return figure
