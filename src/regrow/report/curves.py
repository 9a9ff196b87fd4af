"""The one figure that only the report draws: training losses as small multiples."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regrow.plot.style import STYLES, settings

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


def training_svg(panels: Sequence[Panel]) -> bytes:
    """A panel a cell, with shared axes, as SVG; the same bytes for the same numbers."""
    data = io.BytesIO()
    with settings():
        _figure(panels).savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _figure(panels: Sequence[Panel]) -> Figure:
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    # Inches: the legend stands above the first row, the steps below each last panel.
    left, right, top, bottom, across, down, width, height = 0.7, 0.2, 0.7, 0.5, 0.2, 0.45, 1.9, 1.4
    whole = (
        max(left + columns * width + (columns - 1) * across + right, 4.2),
        top + rows * height + (rows - 1) * down + bottom,
    )
    figure = Figure(figsize=whole)
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=True,
        sharey=True,
        gridspec_kw={
            "left": left / whole[0],
            "right": (left + columns * width + (columns - 1) * across) / whole[0],
            "top": 1 - top / whole[1],
            "bottom": bottom / whole[1],
            "wspace": across / width,
            "hspace": down / height,
        },
    )
    positive = all(loss > 0 for panel in panels for curve in panel.curves for loss in curve.losses)
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.remove()
            continue
        for curve in panels[index].curves:
            style = STYLES[curve.method]
            axes.plot(
                curve.steps,
                curve.losses,
                color=style.colour,
                linestyle=style.line,
                linewidth=0.8,
                marker="o" if len(curve.steps) == 1 else "",
                markersize=3,
            )
        axes.set_title(panels[index].title, fontsize=8)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        if positive:  # a loss of 0, as of a KL that nothing is left of, has no logarithm
            axes.set_yscale("log")
        if index % columns == 0:
            axes.set_ylabel("loss, nats")
        if index + columns >= len(panels):
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
    methods = [
        method
        for method in STYLES
        if any(curve.method == method for panel in panels for curve in panel.curves)
    ]
    styles = [STYLES[method] for method in methods]
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            linestyle=style.line,
            linewidth=1.3,
        )
        for style in styles
    ]
    figure.legend(
        handles,
        [style.label for style in styles],
        loc="upper left",
        ncols=len(styles),
        frameon=False,
        fontsize=8,
        handlelength=2.6,
    )
    return figure
