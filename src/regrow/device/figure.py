"""The figure of the frontier: accuracy over bytes and over decoding speed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from regrow.device.choice import Row
from regrow.plot import style
from regrow.plot.style import LEVELS, METHODS

MARKERS = "osDv^P*X<>"
POINT: dict[str, Any] = {"color": "black", "linestyle": ""}
RING = {**POINT, "color": "#009E73", "marker": "o", "markersize": 11, "fillstyle": "none"}


@style.settings()
def frontier_figure(rows: Sequence[Row], levels: Mapping[str, float], note: str) -> Figure:
    """A line joins one loss's students of one score in one format, and the teacher's formats.

    levels: accuracies of `style.LEVELS`. Bars are intervals; a ring marks what no
    other file beats.
    """
    figure, grid = style.panels([4.2] * 2, [3.6], note, top=0.8, percent="y", sharey=True)
    markers = dict(zip(dict.fromkeys(row.form for row in rows), MARKERS * 9, strict=False))
    scores = sorted({_score(row) for row in rows if row.cell})
    fast = [row for row in rows if "decode_per_s" in row.speed]
    draw: Any = {"markers": markers, "hollow": scores[1:]}
    _draw(grid[0, 0], rows, lambda row: row.megabytes, lambda row: row.on_bytes, **draw)
    _draw(grid[0, 1], fast, _decode, lambda row: row.on_decode, **draw)
    grid[0, 0].set(xlabel="MB on the device (log)", ylabel="test accuracy, %")
    grid[0, 1].set(xlabel=f"decoded tokens a second (log){'' if fast else ': not measured'}")
    for axes in grid.flat:
        for name, value in levels.items():
            style.level(axes, value, LEVELS[name])
    methods = [METHODS[name] for name in dict.fromkeys(row.method for row in rows)]
    named = {one.label: style.look(replace(one, marker="")) for one in methods}
    named |= {form: {**POINT, "marker": marker} for form, marker in markers.items()}
    if len(scores) > 1:
        named[f"hollow: {', '.join(scores[1:])}"] = {**POINT, "marker": "o", "fillstyle": "none"}
    named["on the frontier"] = RING
    marks = [Line2D([], [], label=label, **look) for label, look in named.items()]
    style.legend(figure, [*marks, *levels])
    return figure


def _score(row: Row) -> str:
    return (row.cell or "").partition("-")[0]


def _decode(row: Row) -> float:
    return float(row.speed["decode_per_s"]["median"])


def _draw(
    axes: Axes,
    rows: Sequence[Row],
    x: Callable[[Row], float],
    ringed: Callable[[Row], bool],
    markers: Mapping[str, str],
    hollow: Sequence[str],
) -> None:
    lines: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for row in sorted(rows, key=x):
        look = METHODS[row.method]
        # Two losses have files of the same size: their bars stand beside each other.
        at, height = x(row) * (1 + 2 * look.shift), row.accuracy["estimate"]
        fill = "white" if _score(row) in hollow else look.colour
        ends = [np.array([row.accuracy[end]]) for end in ("estimate", "low", "high")]
        style.bars(axes, [at], ends, replace(look, marker=markers[row.form], fill=fill), line="")
        if ringed(row):
            axes.plot([at], [height], **RING)
        size = (row.cell or "").rpartition("-")[2]
        of_line = () if row.method == "teacher" else (_score(row), size, row.form)
        lines.setdefault((row.method, *of_line), []).append((at, height))
    for (method, *_), points in lines.items():
        axes.plot(*zip(*points, strict=True), **style.look(replace(METHODS[method], marker="")))
    if rows:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
