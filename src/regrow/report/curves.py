"""The one figure that only the report draws: training losses as small multiples."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from regrow.plot.style import STUDENTS, legend, names, panels, settings

COLUMNS = 4


@dataclass(frozen=True)
class Curve:
    """The loss at each logged step of one run; `method` is `finetune` or `distill`."""

    method: str
    steps: Sequence[float]
    losses: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """All runs of one cell of the grid."""

    title: str
    curves: Sequence[Curve]


def training_svg(shown: Sequence[Panel]) -> bytes:
    """A panel a cell, with shared axes, as SVG; the same bytes for the same numbers."""
    data = io.BytesIO()
    with settings():
        _figure(shown).savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _figure(shown: Sequence[Panel]) -> Figure:
    columns = min(COLUMNS, len(shown))
    heights = [1.4] * math.ceil(len(shown) / columns)
    figure, grid = panels([1.9] * columns, heights, across=0.2, sharex=True, sharey=True)
    for axes in grid.flat[len(shown) :]:
        axes.remove()
    curves = [curve for panel in shown for curve in panel.curves]
    for index, (axes, panel) in enumerate(zip(grid.flat, shown, strict=False)):
        for curve in panel.curves:
            style = STUDENTS[curve.method]
            axes.plot(
                curve.steps,
                curve.losses,
                color=style.colour,
                linestyle=style.line,
                linewidth=0.8,
                marker="o" if len(curve.steps) == 1 else "",
                markersize=3,
            )
        axes.set_title(panel.title, fontsize=8)
        if index + columns >= len(shown):
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("loss, nats")
    # A loss of 0, as of a KL that nothing is left of, has no logarithm.
    if all(loss > 0 for curve in curves for loss in curve.losses):
        grid[0, 0].set_yscale("log")
    legend(figure, names(*(name for name in STUDENTS if name in {one.method for one in curves})))
    return figure
