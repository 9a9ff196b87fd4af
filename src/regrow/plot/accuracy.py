"""The figures of accuracy: over retention with the paired differences below, and these by name."""

from itertools import product
from typing import Any

import numpy as np
from matplotlib.artist import Artist, setp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regrow.plot import style
from regrow.plot.rows import Curves, Row, Rows, by_panel, cell_name, curve, ends, level_of, where
from regrow.plot.style import GREY, STUDENTS, Style

RULES = {"raw": "accuracy", "per_character": "accuracy per character"}
NOTHING = "not testable"
NOTHING_REGREW: dict[str, Any] = {"color": GREY, "marker": "x", "linestyle": "", "markersize": 6}
GAP = Style("KL - CE", STUDENTS["distill"].colour, "o", "-", STUDENTS["distill"].colour)
LATER = Style("KL - CE", GAP.colour, "o", "-", "white")
ZERO: dict[str, Any] = {"color": "black", "linewidth": 0.8}
MARGIN: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 3))}


@style.settings()
def accuracy_figure(curves: Curves, about: Row) -> Figure:
    """Accuracy over whole-model retention, and KL - CE below it with paired intervals.

    A column a score, two rows a train size.

    Args:
        curves: of these, `accuracy` and `difference` are drawn.
        about: what they stand on, as `comparison.json` says it.
    """
    found = by_panel(curves, "accuracy", "score", "train_size")
    scores, sizes = (list(dict.fromkeys(axis)) for axis in zip(*found, strict=True))
    note = (
        f"{style.interval_note(about)}\n"
        "KL - CE is paired by question and seed: its interval is what tells the losses apart, "
        "and not whether\nthe bars above overlap. Dashed: the margin up to which KL is not "
        "inferior."
    )
    widths = [4.6 if len(scores) == 1 else 2.7] * len(scores)
    shape: dict[str, Any] = {"top": 0.9, "down": 0.25, "sharex": True, "sharey": "row"}
    figure, grid = style.panels(widths, [2.4, 1.1] * len(sizes), note, percent="xy", **shape)
    above, below = grid[::2], grid[1::2]
    for place, (size, score) in enumerate(product(sizes, scores)):
        _draw_methods(above.flat[place], found[score, size], about)
        gaps = where(curves["difference"], score=score, train_size=size)
        _draw_differences(below.flat[place], gaps, about["margin"])
    for left, under, size in zip(above[:, 0], below[:, 0], sizes, strict=True):
        many = f"{size:,} train questions\n" if len(sizes) > 1 else ""
        left.set_ylabel(f"{many}test {RULES[about['accuracy']]}, %")
        under.set_ylabel("KL - CE,\npoints")
    for axes, score in zip(grid[0], scores, strict=True):
        many = f", {sizes[0]:,} train questions" if len(sizes) == 1 else ""
        axes.set_title(f"pruned by {score}{many}", loc="left", fontsize=9)
    setp(grid[-1], xlabel="parameters kept, % of the teacher's")
    for rows in (above, below):  # one scale for all of a kind
        limits = np.array([axes.get_ylim() for axes in rows.flat])
        setp(rows, ylim=(limits.min(), limits.max()))
    entries: list[str | Artist] = [*style.STYLES]
    if where(curves["difference"], verdict=NOTHING):
        entries.append(Line2D([], [], label="nothing regrew", **NOTHING_REGREW))
    style.legend(figure, entries)
    return figure


@style.settings()
def difference_figure(curves: Curves, about: Row) -> Figure:
    """A forest plot of KL minus CE, a line a cell; what was named before the run is full."""
    rows = curves["difference"]
    named = any(row["named"] != "exploratory" for row in rows)
    note = style.interval_note(about)
    note += "\nThe dashed line is the margin up to which KL is not inferior."
    heights, top = [0.26 * len(rows) + 0.2], 0.5 if named else 0.35
    figure, grid = style.panels([2.9], heights, note, left=2.7, right=1.6, top=top, percent="x")
    axes: Axes = grid[0, 0]
    places = np.arange(len(rows))[::-1]
    axes.axvline(0, **ZERO)
    axes.axvline(-about["margin"], **MARGIN)
    axes.grid(visible=False)
    for place, row in zip(places, rows, strict=True):
        _draw_line(axes, int(place), row, named and row["named"] == "exploratory")
    labels = [f"{cell_name(row)}, {row['train_size']:,} train" for row in rows]
    axes.set_yticks(places, labels, fontsize=8)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("accuracy, KL - CE, points (right of 0: KL is better)")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if named:
        full: dict[str, Any] = {"marker": "o", "linestyle": "", "color": GAP.colour}
        before = Line2D([], [], label="named before the run", **full)
        after = Line2D([], [], label="looked at after", markerfacecolor="white", **full)
        style.legend(figure, [before, after])
    return figure


def _draw_methods(axes: Axes, rows: Curves, about: Row) -> None:
    for name, look in style.LEVELS.items():
        if about[name] is not None:
            style.level(axes, about[name], look)
    (teacher, *_) = rows["teacher"]
    level_of(axes, teacher, "accuracy", "teacher")
    # Nothing removed is the teacher itself, where every model starts.
    whole = {**teacher, "retention": 1.0, "accuracy_low": None, "accuracy_high": None}
    curve(axes, [*rows["pruned"], whole], "retention", "accuracy", "pruned")
    for method in STUDENTS:
        curve(axes, rows[method], "retention", "accuracy", method)


def _draw_differences(axes: Axes, rows: Rows, margin: float) -> None:
    axes.axhline(0, **ZERO)
    axes.axhline(-margin, **MARGIN)
    if told := [row for row in rows if row["verdict"] != NOTHING]:
        at = [row["retention"] for row in told]
        style.bars(axes, at, ends(told, "difference"), GAP, line="")
    nothing = [row["retention"] for row in where(rows, verdict=NOTHING)]
    axes.plot(nothing, [0.0] * len(nothing), **NOTHING_REGREW)


def _draw_line(axes: Axes, place: int, row: Row, later: bool) -> None:
    """A line of the forest plot, and its numbers beside it."""
    text = "nothing regrew"
    if row["verdict"] == NOTHING:
        axes.plot([0], [place], **NOTHING_REGREW)
    else:
        parts = ends([row], "difference")
        style.bars(axes, np.array([place]), parts, LATER if later else GAP, line="", flat=True)
        value, low, high = (100 * float(part[0]) for part in parts)
        around = "no interval" if np.isnan(low) else f"[{low:+.1f}, {high:+.1f}]"
        text = f"{value:+.1f} {around}"
    axes.text(1.03, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
