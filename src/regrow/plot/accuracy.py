"""The figures of accuracy: over retention with the paired differences below, and these by name."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regrow.plot.rows import (
    Curves,
    Row,
    Rows,
    cell_name,
    column,
    curve,
    ends,
    level_of,
    values,
    where,
)
from regrow.plot.style import (
    GREY,
    LEVELS,
    METHODS,
    PERCENT,
    STUDENTS,
    STYLES,
    Style,
    bars,
    interval_note,
    legend,
    level,
    names,
    panels,
    settings,
)

RULES = {"raw": "accuracy", "per_character": "accuracy per character"}
NOTHING = "not testable"
NOTHING_REGREW: dict[str, Any] = {"color": GREY, "marker": "x", "linestyle": "", "markersize": 6}
GAP = Style("KL - CE", STUDENTS["distill"].colour, "o", "-", STUDENTS["distill"].colour)
LATER = Style("KL - CE", GAP.colour, "o", "-", "white")


def accuracy_figure(curves: Curves, about: Row) -> Figure:
    """Accuracy over whole-model retention, and KL - CE below it with paired intervals.

    A column a score, two rows a train size.

    Args:
        curves: of these, `accuracy/METHOD` and `difference` are drawn.
        about: what they stand on, as `comparison.json` says it.
    """
    rows = {method: curves[f"accuracy/{method}"] for method in METHODS}
    scores, sizes = values(rows["teacher"], "score"), values(rows["teacher"], "train_size")
    note = (
        f"{interval_note(about['confidence'], about['questions'], about['seeds'])}\n"
        "KL - CE is paired by question and seed: its interval is what tells the losses apart, "
        "and not whether\nthe bars above overlap. Dashed: the margin up to which KL is not "
        "inferior."
    )
    with settings():
        figure, grid = panels(
            [4.6 if len(scores) == 1 else 2.7] * len(scores),
            [2.4, 1.1] * len(sizes),
            note,
            top=0.9,
            down=0.25,
            sharex=True,
            sharey="row",
        )
        for place, size in enumerate(sizes):
            above, below = grid[2 * place], grid[2 * place + 1]
            for left, under, score in zip(above, below, scores, strict=True):
                here = {"score": score, "train_size": size}
                _draw_methods(left, {name: where(rows[name], **here) for name in rows}, about)
                _draw_differences(under, where(curves["difference"], **here), about["margin"])
            many = f"{size:,} train questions\n" if len(sizes) > 1 else ""
            above[0].set_ylabel(f"{many}test {RULES[about['accuracy']]}, %")
            below[0].set_ylabel("KL - CE,\npoints")
        for axes, score in zip(grid[0], scores, strict=True):
            many = f", {sizes[0]:,} train questions" if len(sizes) == 1 else ""
            axes.set_title(f"pruned by {score}{many}", loc="left", fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("parameters kept, % of the teacher's")
        _same_heights(grid[::2])
        _same_heights(grid[1::2])
        handles = names(*STYLES)
        if where(curves["difference"], verdict=NOTHING):
            handles.append(_nothing())
        legend(figure, handles)
    return figure


def difference_figure(curves: Curves, about: Row) -> Figure:
    """A forest plot of KL minus CE, a line a cell; what was named before the run is full."""
    rows = curves["difference"]
    named = any(row["named"] != "exploratory" for row in rows)
    note = interval_note(about["confidence"], about["questions"], about["seeds"])
    note += "\nThe dashed line is the margin up to which KL is not inferior."
    with settings():
        figure, grid = panels(
            [2.9], [0.26 * len(rows) + 0.2], note, left=2.7, right=1.6, top=0.5 if named else 0.35
        )
        axes: Axes = grid[0, 0]
        places = np.arange(len(rows))[::-1]
        axes.axvline(0, color="black", linewidth=0.8)
        axes.axvline(-about["margin"], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.grid(visible=False)
        for place, row in zip(places, rows, strict=True):
            _draw_line(
                axes, int(place), row, LATER if named and row["named"] == "exploratory" else GAP
            )
        labels = [f"{cell_name(row)}, {row['train_size']:,} train" for row in rows]
        axes.set_yticks(places, labels, fontsize=8)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set_xlabel("accuracy, KL - CE, points (right of 0: KL is better)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if named:
            look: dict[str, Any] = {"marker": "o", "linestyle": "", "color": GAP.colour}
            legend(
                figure,
                [
                    Line2D([], [], label="named before the run", **look),
                    Line2D([], [], label="looked at after", markerfacecolor="white", **look),
                ],
            )
    return figure


def _draw_methods(axes: Axes, rows: Curves, about: Row) -> None:
    for name, style in LEVELS.items():
        if about[name] is not None:
            level(axes, about[name], style)
    level_of(axes, rows["teacher"][0], "accuracy", "teacher")
    # Nothing removed is the teacher itself, where every model starts.
    whole = {**rows["teacher"][0], "retention": 1.0, "accuracy_low": None, "accuracy_high": None}
    curve(axes, [*rows["pruned"], whole], "retention", "accuracy", "pruned")
    for method in STUDENTS:
        curve(axes, rows[method], "retention", "accuracy", method)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_formatter(PERCENT)


def _draw_differences(axes: Axes, rows: Rows, margin: float) -> None:
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(-margin, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    told = [row for row in rows if row["verdict"] != NOTHING]
    if told:
        bars(axes, column(told, "retention"), ends(told, "difference"), GAP, line="")
    nothing = where(rows, verdict=NOTHING)
    axes.plot(column(nothing, "retention"), [0.0] * len(nothing), **NOTHING_REGREW)
    axes.yaxis.set_major_formatter(PERCENT)


def _draw_line(axes: Axes, place: int, row: Row, style: Style) -> None:
    """A line of the forest plot, and its numbers beside it."""
    value, low, high = (float(part[0]) for part in ends([row], "difference"))
    if row["verdict"] == NOTHING:
        axes.plot([0], [place], **NOTHING_REGREW)
        text = "nothing regrew"
    else:
        at = np.array([place])
        bars(axes, at, ends([row], "difference"), style, line="", flat=True)
        interval = "no interval" if np.isnan(low) else f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        text = f"{100 * value:+.1f} {interval}"
    axes.text(1.03, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)


def _nothing() -> Artist:
    return Line2D([], [], label="nothing regrew", **NOTHING_REGREW)


def _same_heights(grid: Any) -> None:
    """One scale for all rows of a kind."""
    limits = [axes.get_ylim() for axes in grid.flat]
    for axes in grid.flat:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
