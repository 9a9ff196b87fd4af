"""The one figure that only the report draws: training losses as small multiples."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from regrow.plot.style import STUDENTS, legend, names, panels, settings

COLUMNS = 4


class Curve(NamedTuple):
    """The loss at each logged step of one run; `method` is `finetune` or `distill`."""

    method: str
    steps: Sequence[float]
    losses: Sequence[float]


def training_svg(cells: Mapping[str, Sequence[Curve]]) -> bytes:
    """A panel for each title, with shared axes, as SVG; the same bytes for the same numbers."""
    columns = min(COLUMNS, len(cells))
    heights = [1.4] * math.ceil(len(cells) / columns)
    curves = [curve for cell in cells.values() for curve in cell]
    data = io.BytesIO()
    with settings():
        figure, grid = panels([1.9] * columns, heights, across=0.2, sharex=True, sharey=True)
        for axes in grid.flat[len(cells) :]:
            axes.remove()
        for index, (axes, title) in enumerate(zip(grid.flat, cells, strict=False)):
            for curve in cells[title]:
                axes.plot(
                    curve.steps,
                    curve.losses,
                    color=STUDENTS[curve.method].colour,
                    linestyle=STUDENTS[curve.method].line,
                    linewidth=0.8,
                    marker="o" if len(curve.steps) == 1 else "",
                    markersize=3,
                )
            axes.set_title(title, fontsize=8)
            if index + columns >= len(cells):
                axes.set_xlabel("step")
                axes.tick_params(labelbottom=True)
        for axes in grid[:, 0]:
            axes.set_ylabel("loss, nats")
        # A loss of 0, as of a KL that nothing is left of, has no logarithm.
        if all(loss > 0 for curve in curves for loss in curve.losses):
            grid[0, 0].set_yscale("log")
        shown = {curve.method for curve in curves}
        legend(figure, names(*(name for name in STUDENTS if name in shown)))
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()
