"""The figure of the frontier: accuracy over bytes and over decoding speed."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from regrow.device.choice import Row
from regrow.plot.style import LEVELS, METHODS, settings

MARKERS = "osDv^P*X<>"


def frontier_figure(rows: Sequence[Row], levels: Mapping[str, float], note: str) -> Figure:
    """A line joins one loss's students of one score in one format, and the teacher's formats.

    levels: accuracies of `style.LEVELS`. Bars are intervals; a ring marks what no
    other file beats.
    """
    with settings():
        figure = Figure(figsize=(9.2, 4.4))
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 2, sharey=True)
        formats = list(dict.fromkeys(row.form for row in rows))
        markers = dict(zip(formats, MARKERS * 9, strict=False))
        _draw(axes[0], rows, markers, lambda row: row.megabytes, lambda row: row.on_bytes)
        axes[0].set_xlabel("MB on the device (log)")
        axes[0].set_ylabel("test accuracy, %")
        fast = [row for row in rows if "decode_per_s" in row.speed]
        _draw(axes[1], fast, markers, _decode, lambda row: row.on_decode)
        axes[1].set_xlabel("decoded tokens a second (log)")
        if not fast:
            axes[1].text(0.5, 0.5, "not measured", ha="center", transform=axes[1].transAxes)
        for (name, level), one in product(levels.items(), axes):
            style = LEVELS[name]
            one.axhline(100 * level, color=style.colour, linestyle=style.line, linewidth=1)
        methods = dict.fromkeys(row.method for row in rows)
        entries = [_entry(METHODS[m].label, METHODS[m].colour, linestyle="-") for m in methods]
        entries += [_entry(form, "black", marker=mark) for form, mark in markers.items()]
        if len(scores := _scores(rows)) > 1:
            label = f"filled: {scores[0]}; hollow: {', '.join(scores[1:])}"
            entries.append(_entry(label, "black"))
        for style in map(LEVELS.__getitem__, levels):
            entries.append(_entry(style.label, style.colour, linestyle=style.line))
        ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
        entries.append(_entry("on the frontier", "#009E73", **ring))
        figure.legend(handles=entries, loc="center right", frameon=False, fontsize=8)
        figure.text(0.07, 0.01, note, va="bottom", fontsize=7.5)
        figure.subplots_adjust(left=0.07, right=0.8, top=0.97, bottom=0.2, wspace=0.08)
        return figure


def _score(row: Row) -> str:
    return (row.cell or "").partition("-")[0]


def _scores(rows: Sequence[Row]) -> list[str]:
    """The importance scores; marks of all but the first are hollow."""
    named = sorted(rows, key=lambda row: row.name)
    return list(dict.fromkeys(_score(row) for row in named if row.cell))


def _decode(row: Row) -> float:
    return float(row.speed["decode_per_s"]["median"])


def _entry(label: str, colour: str, **more: Any) -> Line2D:
    look: dict[str, Any] = {"linestyle": "", "markersize": 5} | more
    return Line2D([], [], color=colour, label=label, **look)


def _draw(
    axes: Axes,
    rows: Sequence[Row],
    markers: dict[str, str],
    x: Callable[[Row], float],
    ringed: Callable[[Row], bool],
) -> None:
    lines: dict[tuple[str, ...], list[Row]] = {}
    scores = _scores(rows)
    for row in rows:
        key = (row.method, _score(row), (row.cell or "").rpartition("-")[2], row.form)
        lines.setdefault(("teacher",) if row.method == "teacher" else key, []).append(row)
    for of_line in lines.values():
        ordered = sorted(of_line, key=x)
        style = METHODS[ordered[0].method]
        # Two losses have files of the same size: their bars stand beside each other.
        places = [x(row) * (1 + 2 * style.shift) for row in ordered]
        filled = _score(ordered[0]) in ("", *scores[:1])
        heights = [100 * row.accuracy["estimate"] for row in ordered]
        axes.plot(places, heights, color=style.colour, linestyle=style.line, linewidth=1)
        for row, at, height in zip(ordered, places, heights, strict=True):
            ends = [[height - 100 * row.accuracy["low"]], [100 * row.accuracy["high"] - height]]
            axes.errorbar(
                [at],
                [height],
                yerr=ends,
                color=style.colour,
                marker=markers[row.form],
                markersize=4.5,
                markerfacecolor=style.colour if filled else "white",
                elinewidth=0.5,
                alpha=0.9,
            )
            if ringed(row):
                axes.plot([at], [height], "o", color="#009E73", markersize=11, fillstyle="none")
    if rows:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
