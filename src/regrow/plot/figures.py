"""The figures of the stage `compare`, drawn from the rows of its CSV files."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.artist import Artist, setp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from regrow.plot import style
from regrow.plot.style import GREY, METHODS, PERCENT, STUDENTS, Style

Row = Mapping[str, Any]
Rows = Sequence[Row]
Curves = Mapping[str, Rows]
"""Rows by the file's name, such as `accuracy`."""

RULES = {"raw": "accuracy", "per_character": "accuracy per character"}
NOTHING = "not testable"
NOTHING_REGREW: dict[str, Any] = {"color": GREY, "marker": "x", "linestyle": "", "markersize": 6}
GAP = Style("KL - CE", STUDENTS["distill"].colour, "o", "-", STUDENTS["distill"].colour)
LATER = Style("KL - CE", GAP.colour, "o", "-", "white")
ZERO: dict[str, Any] = {"color": "black", "linewidth": 0.8}
MARGIN: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 3))}
ALPHA = 0.1  # of the conformal sets drawn; the CSV files hold the others too
AXES = {"retention": "parameters kept, % of the teacher's", "train_size": "train questions"}
SHARED = {"sharex": True, "sharey": True}
ORDER = ("teacher", "pruned", "finetune", "distill")
OVER_SIZE = {  # a measure's file, label and the form of its numbers
    "accuracy": ("accuracy", "accuracy, %", PERCENT),
    "nll": ("measures", "NLL, nats", None),
    "ece": ("measures", "calibration error, %", PERCENT),
    "set_size": ("measures", f"LAC set size,\nchoices (alpha = {ALPHA})", None),
}


@style.settings()
def figures(curves: Curves, about: Row) -> dict[str, Figure]:
    """Every figure that the sweep has points for, by its name.

    A curve needs two points: of train sizes, or of sparsities. about: what the rows stand on, as
    `comparison.json` says it.
    """
    places = curves["measures"]
    sizes, sparsities = values(places, "train_size"), values(places, "sparsity")
    students = f"\nStudents trained on {max(sizes):,} questions."
    note = style.interval_note(about)
    drawn = {
        "accuracy": accuracy_figure(curves, about),
        "difference": difference_figure(curves, about),
        "reliability": _reliability(curves, max(sizes), about, students),
        "risk": _risk(curves, max(sizes), note + students),
    }
    if len(sizes) > 1:
        drawn["train_size"] = _train_size(curves, note)
    if len(sparsities) > 1:
        drawn["conformal"] = _conformal(curves, max(sizes), note + students)
    return drawn


@style.settings()
def accuracy_figure(curves: Curves, about: Row) -> Figure:
    """Accuracy over whole-model retention, and KL - CE below it with paired intervals.

    A column a score, two rows a train size. Of a sweep of several train sizes at one sparsity, over
    train size instead: no panel holds a single point where a curve can be drawn.
    """
    over_size = len(values(curves["measures"], "sparsity")) == 1
    over_size &= len(values(curves["measures"], "train_size")) > 1
    x, other = ("train_size", "sparsity") if over_size else ("retention", "train_size")
    found = by_panel(curves, "accuracy", "score", other)
    scores, others = (list(dict.fromkeys(axis)) for axis in zip(*found, strict=True))
    note = (
        f"{style.interval_note(about)}\n"
        "KL - CE is paired by question and seed: its interval is what tells the losses apart, "
        "and not whether\nthe bars above overlap. Dashed: the margin up to which KL is not "
        "inferior."
    )
    widths = [4.6 if len(scores) == 1 else 2.7] * len(scores)
    shape: dict[str, Any] = {"top": 0.9, "down": 0.25, "sharex": True, "sharey": "row"}
    figure, grid = style.panels(widths, [2.4, 1.1] * len(others), note, percent="y", **shape)
    above, below = grid[::2], grid[1::2]
    for place, (value, score) in enumerate(product(others, scores)):
        _draw_methods(above.flat[place], found[score, value], x, about)
        gaps = where(curves["difference"], **{"score": score, other: value})
        _draw_differences(below.flat[place], gaps, x, about["margin"])
    for axes in grid.flat:
        _scale(axes, x, curves)
    for left, under, value in zip(above[:, 0], below[:, 0], others, strict=True):
        many = f"{value:,} train questions\n" if len(others) > 1 else ""
        left.set_ylabel(f"{many}test {RULES[about['accuracy']]}, %")
        under.set_ylabel("KL - CE,\npoints")
    for axes, score in zip(grid[0], scores, strict=True):
        title = f"pruned by {cell_name(found[score, others[0]]['distill'][0])}"
        if not over_size:
            many = f", {others[0]:,} train questions" if len(others) == 1 else ""
            title = f"pruned by {score}{many}"
        axes.set_title(title, loc="left", fontsize=9)
    setp(grid[-1], xlabel=AXES[x])
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


def _draw_methods(axes: Axes, rows: Curves, x: str, about: Row) -> None:
    for name, look in style.LEVELS.items():
        style.level(axes, about[name], look)
    (teacher, *_) = rows["teacher"]
    level_of(axes, teacher, "accuracy", "teacher")
    if x == "retention":
        # Nothing removed is the teacher itself, where every model starts.
        whole = {**teacher, "retention": 1.0, "accuracy_low": None, "accuracy_high": None}
        curve(axes, [*rows["pruned"], whole], x, "accuracy", "pruned")
    else:
        level_of(axes, rows["pruned"][0], "accuracy", "pruned")
    for method in STUDENTS:
        curve(axes, rows[method], x, "accuracy", method)


def _draw_differences(axes: Axes, rows: Rows, x: str, margin: float) -> None:
    axes.axhline(0, **ZERO)
    axes.axhline(-margin, **MARGIN)
    if told := [row for row in rows if row["verdict"] != NOTHING]:
        at = [row[x] for row in told]
        style.bars(axes, at, ends(told, "difference"), GAP, line="")
    nothing = [row[x] for row in where(rows, verdict=NOTHING)]
    axes.plot(nothing, [0.0] * len(nothing), **NOTHING_REGREW)


def _scale(axes: Axes, x: str, curves: Curves) -> None:
    """Train sizes on a logarithmic axis with a mark at each, retentions in percent."""
    if x == "retention":
        axes.xaxis.set_major_formatter(PERCENT)
        return
    sizes = values(curves["measures"], "train_size")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.margins(x=0.15)


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


def _train_size(curves: Curves, note: str) -> Figure:
    """Accuracy and uncertainty over train size; a column a pruned model, a row a measure."""
    pruned = by_panel(curves, "accuracy", "score", "sparsity")
    heights = [1.4] * len(OVER_SIZE)
    figure, grid = style.panels([2.1] * len(pruned), heights, note, left=0.85, sharey="row")
    for line, (measure, (file, label, form)) in zip(grid, OVER_SIZE.items(), strict=True):
        found = by_panel(curves, file, "score", "sparsity")
        for axes, rows in zip(line, found.values(), strict=True):
            for method in ("teacher", "pruned"):
                level_of(axes, rows[method][0], measure, method)
            for method in STUDENTS:
                curve(axes, rows[method], "train_size", measure, method)
            _scale(axes, "train_size", curves)
            if form:
                axes.yaxis.set_major_formatter(form)
        line[0].set_ylabel(label)
    for axes, rows in zip(grid[0], pruned.values(), strict=True):
        axes.set_title(cell_name(rows["distill"][0]), fontsize=8)
    setp(grid[-1], xlabel=AXES["train_size"])
    style.legend(figure, METHODS)
    return figure


def _reliability(curves: Curves, size: int, about: Row, students: str) -> Figure:
    """Accuracy over confidence in bins of equal mass; a row a pruned model, a column a method."""
    found = by_panel(curves, "reliability", "score", "sparsity", train_size=size)
    teachers = where(curves["reliability"], method="teacher", train_size=size)
    mass = float(np.mean(column(teachers, "questions")))
    note = (
        f"Bins of equal mass, about {mass:.3g} of {about['questions']:,} test questions each; "
        f"bars: {100 * about['confidence']:g} % Wilson intervals.\nOn the diagonal, a model is "
        "right as often as it says; the mean gap to it, weighted by mass, is the calibration "
        f"error.{students}{' Means over seeds.' if about['seeds'] > 1 else ''}"
    )
    shape: dict[str, Any] = {"left": 0.85, "top": 0.35, "percent": "xy", **SHARED}
    figure, grid = style.panels([1.7] * len(ORDER), [1.7] * len(found), note, **shape)
    for axes, (rows, method) in zip(grid.flat, product(found.values(), ORDER), strict=True):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        curve(axes, rows[method], "confidence", "accuracy", method, line="")
    for axes, (score, sparsity) in zip(grid[:, 0], found, strict=True):
        axes.set_ylabel(f"{score}, sparsity {sparsity:g}\naccuracy, %")
    grid[0, 0].set(xlim=(0, 1.02), ylim=(0, 1.02))
    for axes, method in zip(grid[0], ORDER, strict=True):
        axes.set_title(METHODS[method].label, fontsize=8, color=METHODS[method].colour)
    setp(grid[-1], xlabel="confidence, %")
    return figure


def _risk(curves: Curves, size: int, note: str) -> Figure:
    """Error among the most confident answers over their share; a row a score."""
    found = by_panel(curves, "risk", "score", "sparsity", train_size=size)
    scores, sparsities = (list(dict.fromkeys(axis)) for axis in zip(*found, strict=True))
    shape: dict[str, Any] = {"down": 0.5, "percent": "xy", **SHARED}
    figure, grid = style.panels([2.1] * len(sparsities), [1.9] * len(scores), note, **shape)
    for axes, rows in zip(grid.flat, found.values(), strict=True):
        for method, points in rows.items():
            look = style.look(METHODS[method]) | {"markevery": (3, 5), "markersize": 4}
            x, (risk, low, high) = column(points, "coverage"), ends(points, "risk")
            # A line through 20 points: its band is drawn whole, its marker at every fifth.
            axes.plot(x, risk, **look)
            if method in STUDENTS:
                axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.set_title(cell_name(points[0]), fontsize=8)
    setp(grid[:, 0], ylabel="errors among the\nsurest answers, %")
    grid[0, 0].set_ylim(bottom=0)  # all panels share it
    setp(grid[-1], xlabel="coverage, % of questions")
    style.legend(figure, METHODS)
    return figure


def _conformal(curves: Curves, size: int, note: str) -> Figure:
    """Mean size and coverage of conformal sets over retention; a row a score and kind of set."""
    found = by_panel(curves, "conformal", "score", "sets", train_size=size, alpha=ALPHA)
    shape: dict[str, Any] = {"left": 0.95, "across": 0.75, "percent": "x", "sharex": True}
    figure, grid = style.panels([2.9] * 2, [1.7] * len(found), note, **shape)
    for line, ((score, kind), rows) in zip(grid, found.items(), strict=True):
        for axes, part in zip(line, ("size", "coverage"), strict=True):
            for method, points in rows.items():
                if method == "teacher":
                    level_of(axes, points[0], part, method)
                else:
                    curve(axes, points, "retention", part, method)
            axes.set_title(f"{kind.upper()} sets, pruned by {score}", loc="left", fontsize=8)
        line[1].axhline(1 - ALPHA, color="#999999", linewidth=0.8)
        line[1].yaxis.set_major_formatter(PERCENT)
    setp(grid[:, 0], ylabel="mean set size, choices")
    setp(grid[:, 1], ylabel=f"coverage, % (asked: {100 * (1 - ALPHA):g})")
    setp(grid[-1], xlabel=AXES["retention"])
    style.legend(figure, METHODS)
    return figure


def where(rows: Rows, **wanted: object) -> list[Row]:
    """The rows that hold these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def by_panel(
    curves: Curves, name: str, *columns: str, **wanted: object
) -> dict[tuple[Any, ...], dict[str, list[Row]]]:
    """Each method's rows of a file that hold what is wanted, by these columns' values."""
    found: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    for method in METHODS:
        for row in where(curves[name], method=method, **wanted):
            of_panel = found.setdefault(tuple(row[column] for column in columns), {})
            of_panel.setdefault(method, []).append(row)
    return found


def values(rows: Rows, column: str) -> list[Any]:
    """The values of a column, each once, in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in rows))


def column(rows: Rows, name: str) -> NDArray[np.float64]:
    """A column as numbers, [rows]; NaN where it is empty."""
    return np.array([np.nan if row[name] is None else float(row[name]) for row in rows])


def ends(rows: Rows, name: str) -> list[NDArray[np.float64]]:
    """A column and the ends of its interval, each [rows]."""
    return [column(rows, part) for part in (name, f"{name}_low", f"{name}_high")]


def curve(
    axes: Axes, rows: Rows, x: str, y: str, method: str, line: LineStyleType | None = None
) -> None:
    """A method's points with intervals, moved a little apart from other methods' points."""
    drawn = METHODS[method]
    ordered = sorted(rows, key=lambda row: float(row[x]))
    at = column(ordered, x)
    if x == "train_size":  # a logarithmic axis
        at = at * (at.max() / at.min() * 1.5) ** (1.5 * drawn.shift)
    elif x == "retention":
        at = at + drawn.shift * (1 - at.min() or 0.1)
    style.bars(axes, at, ends(ordered, y), drawn, line=line)


def level_of(axes: Axes, row: Row, y: str, method: str) -> None:
    """A model that is the same in a whole panel; a band for the teacher."""
    value, low, high = (float(part[0]) for part in ends([row], y))
    style.level(axes, value, METHODS[method], (low, high) if method == "teacher" else None)


def cell_name(row: Row) -> str:
    """What tells a pruned model from others, in words."""
    kept = f"{100 * row['retention']:.0f} % kept"
    return f"{row['score']}, sparsity {row['sparsity']:g} ({kept})"
