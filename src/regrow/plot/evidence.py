"""Figures of the evidence: train size, reliability, risk and coverage, conformal sets, differences.

They draw the rows of the CSV files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from regrow.plot.accuracy import of_first_score
from regrow.plot.style import ALL_STYLES, STYLES, interval_note, settings

Row = Mapping[str, Any]
Curves = Mapping[str, Sequence[Row]]
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g}")
ALPHA = 0.1  # of the conformal sets drawn; the CSV files hold the others too
MEASURES = {
    "accuracy": ("accuracy, %", PERCENT),
    "nll": ("NLL, nats", None),
    "ece": ("calibration error, %", PERCENT),
    "set_size": (f"LAC set size,\nchoices (alpha = {ALPHA})", None),
}


def evidence_figures(every: Curves, about: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure by its name, under matplotlib's own defaults.

    every: rows by file name. about: what they stand on, as `comparison.json` says it; its margin
    is drawn in `difference`.
    """
    confidence, questions, seeds = (about[name] for name in ("confidence", "questions", "seeds"))
    note = interval_note(confidence, questions, seeds)
    curves = {name: of_first_score(rows) for name, rows in every.items()}
    for method in ("teacher", *STYLES):
        curves[f"measures/{method}"] = [
            {**one, **other}
            for one, other in zip(
                curves[f"accuracy/{method}"], curves[f"measures/{method}"], strict=True
            )
        ]
    with settings():
        return {
            "train_size": _train_size(curves, note),
            "reliability": _reliability(curves, confidence, questions, seeds),
            "risk": _risk(curves, f"{note}\n{_at_largest(curves)}"),
            "conformal": _conformal(curves, f"{note}\n{_at_largest(curves)}"),
            "difference": _difference(curves, note, about["margin"]),
        }


def _train_size(curves: Curves, note: str) -> Figure:
    """Accuracy and uncertainty over train size; a column a sparsity, a row a measure."""
    rows = {method: curves[f"measures/{method}"] for method in ("teacher", *STYLES)}
    sparsities = _values(rows["distill"], "sparsity")
    sizes = _values(rows["distill"], "train_size")
    figure, grid = _panels(len(MEASURES), len(sparsities), note, sharey="row")
    for (measure, (label, formatter)), line in zip(MEASURES.items(), grid, strict=True):
        for axes, sparsity in zip(line, sparsities, strict=True):
            for method in ("teacher", "pruned"):
                level = _where(rows[method], sparsity=sparsity)[0]
                _level(axes, level, measure, method)
            for method in ("finetune", "distill"):
                _curve(axes, _where(rows[method], sparsity=sparsity), "train_size", measure, method)
            if formatter:
                axes.yaxis.set_major_formatter(formatter)
        line[0].set_ylabel(label)
    for axes, sparsity in zip(grid[0], sparsities, strict=True):
        axes.set_title(_pruned(rows["distill"], sparsity), fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("train questions")
    if len(sizes) > 1:
        for axes in grid.flat:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
    for axes in grid.flat:
        axes.set_xticks([float(size) for size in sizes], [f"{size:,.0f}" for size in sizes])
        axes.margins(x=0.15)
    _legend(figure, ("distill", "finetune", "pruned", "teacher"))
    return figure


def _reliability(curves: Curves, confidence: float, questions: int, seeds: int) -> Figure:
    """Accuracy over confidence in bins of equal mass; a row a sparsity, a column a method."""
    methods = ("teacher", "pruned", "finetune", "distill")
    rows = {method: _of_largest(curves[f"reliability/{method}"]) for method in methods}
    sparsities = _values(rows["distill"], "sparsity")
    mass = float(np.mean(_column(rows["teacher"], "questions")))
    note = (
        f"Bins of equal mass, about {mass:.3g} of {questions:,} test questions each; bars: "
        f"{100 * confidence:g} % Wilson intervals.\nOn the diagonal, a model is right as often as "
        "it says; the mean gap to it, weighted by mass, is the calibration error."
        f"\n{_at_largest(curves)}{' Means over seeds.' if seeds > 1 else ''}"
    )
    figure, grid = _panels(len(sparsities), len(methods), note, size=(1.75, 1.75), sharey="all")
    for line, sparsity in zip(grid, sparsities, strict=True):
        for axes, method in zip(line, methods, strict=True):
            points = _where(rows[method], sparsity=sparsity)
            axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
            _curve(axes, points, "confidence", "accuracy", method, line="")
            axes.set_xlim(0, 1.02)
            axes.set_ylim(0, 1.02)
            axes.xaxis.set_major_formatter(PERCENT)
            axes.yaxis.set_major_formatter(PERCENT)
        line[0].set_ylabel(f"sparsity {sparsity:g}\naccuracy, %")
    for axes, method in zip(grid[0], methods, strict=True):
        axes.set_title(ALL_STYLES[method].label, fontsize=8, color=ALL_STYLES[method].colour)
    for axes in grid[-1]:
        axes.set_xlabel("confidence, %")
    return figure


def _risk(curves: Curves, note: str) -> Figure:
    """Error among the most confident answers over their share; a panel a sparsity."""
    methods = ("distill", "finetune", "pruned", "teacher")
    rows = {method: _of_largest(curves[f"risk/{method}"]) for method in methods}
    sparsities = _values(rows["distill"], "sparsity")
    figure, grid = _panels(1, len(sparsities), note, size=(2.1, 2.1), sharey="all")
    for axes, sparsity in zip(grid[0], sparsities, strict=True):
        for method in methods:
            style = ALL_STYLES[method]
            points = _where(rows[method], sparsity=sparsity)
            x = _column(points, "coverage")
            axes.plot(
                x,
                _column(points, "risk"),
                color=style.colour,
                linestyle=style.line,
                linewidth=1.2,
                marker=style.marker,
                markevery=(3, 5),
                markersize=4,
                markerfacecolor=style.fill,
            )
            if method in ("distill", "finetune"):
                low, high = (_column(points, f"risk_{end}") for end in ("low", "high"))
                axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
        axes.set_title(_pruned(curves["measures/distill"], sparsity), fontsize=8)
        axes.set_xlabel("coverage, % of questions")
        axes.xaxis.set_major_formatter(PERCENT)
        axes.yaxis.set_major_formatter(PERCENT)
    grid[0][0].set_ylim(bottom=0)  # all panels share it
    grid[0][0].set_ylabel("errors among the\nsurest answers, %")
    _legend(figure, methods)
    return figure


def _conformal(curves: Curves, note: str) -> Figure:
    """Coverage and mean size of conformal sets over retention; a row a score."""
    methods = ("distill", "finetune", "pruned", "teacher")
    rows = {method: _of_largest(curves[f"conformal/{method}"]) for method in methods}
    figure, grid = _panels(2, 2, note, size=(2.9, 2.0))
    for line, score in zip(grid, ("lac", "aps"), strict=True):
        for axes, part in zip(line, ("size", "coverage"), strict=True):
            for method in methods:
                points = _where(rows[method], sets=score, alpha=ALPHA)
                if method == "teacher":
                    _level(axes, points[0], part, method)
                else:
                    _curve(axes, points, "retention", part, method)
            axes.xaxis.set_major_formatter(PERCENT)
        line[1].axhline(1 - ALPHA, color="#999999", linewidth=0.8)
        line[1].yaxis.set_major_formatter(PERCENT)
        line[0].set_ylabel(f"{score.upper()}\nmean set size, choices")
        line[1].set_ylabel(f"coverage, % (asked: {100 * (1 - ALPHA):g})")
    for axes in grid[-1]:
        axes.set_xlabel("parameters kept, % of the teacher's")
    _legend(figure, methods)
    return figure


def _difference(curves: Curves, note: str, margin: float) -> Figure:
    """A forest plot: KL minus CE, a line a sparsity and train size."""
    rows = curves["difference"]
    height = 0.28 * len(rows) + 1.7
    figure = Figure(figsize=(6.4, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.31, 1.15 / height, 0.45, 0.28 * len(rows) / height))
    places = np.arange(len(rows))[::-1]
    values, low, high = (
        _column(rows, name) for name in ("difference", "difference_low", "difference_high")
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(-margin, color="#666666", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.errorbar(
        values,
        places,
        xerr=_reach(values, low, high),
        color=STYLES["distill"].colour,
        marker="o",
        markersize=5,
        linestyle="",
        elinewidth=1.1,
        capsize=2.5,
    )
    axes.set_yticks(places, [f"{_sparsity(row)}, {row['train_size']:,} train" for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("accuracy, KL - CE, points   (right of 0: KL is better)")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.text(
        -margin, len(rows) - 0.4, "margin ", ha="right", va="bottom", fontsize=7, color="#666666"
    )
    for place, value, start, end in zip(places, values, low, high, strict=True):
        text = "no interval" if np.isnan(start) else f"[{100 * start:+.1f}, {100 * end:+.1f}]"
        axes.text(
            1.03,
            float(place),
            f"{100 * value:+.1f} {text}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
        )
    figure.text(0.05, 0.1 / height, note, va="bottom", fontsize=7.5)
    return figure


def _panels(
    rows: int,
    columns: int,
    note: str,
    size: tuple[float, float] = (2.2, 1.45),
    sharey: Any = False,
) -> tuple[Figure, Any]:
    """A grid of panels of `size` inches, with room for a legend above and a note below."""
    left, right, top, bottom, across, down = 0.85, 0.2, 0.7, 1.1, 0.3, 0.35
    if not sharey:
        across = 0.75
    width = left + columns * size[0] + (columns - 1) * across + right
    height = top + rows * size[1] + (rows - 1) * down + bottom
    width = max(width, 5.2)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharey=sharey,
        gridspec_kw={
            "left": left / width,
            "right": (left + columns * size[0] + (columns - 1) * across) / width,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": across / size[0],
            "hspace": down / size[1],
        },
    )
    for axes in grid[:-1].flat:
        axes.tick_params(labelbottom=False)
    for axes in grid.flat:
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.text(left / width, 0.1 / height, note, va="bottom", fontsize=7.5)
    return figure, grid


def _legend(figure: Figure, methods: Sequence[str]) -> None:
    styles = [ALL_STYLES[method] for method in methods]
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markersize=5,
            markerfacecolor=style.fill,
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


def _curve(
    axes: Axes, rows: Sequence[Row], x: str, y: str, method: str, line: str | None = None
) -> None:
    style = ALL_STYLES[method]
    ordered = sorted(rows, key=lambda row: _number(row[x]))
    values, low, high = (_column(ordered, name) for name in (y, f"{y}_low", f"{y}_high"))
    axes.errorbar(
        _apart(_column(ordered, x), x, style.shift),
        values,
        yerr=_reach(values, low, high),
        color=style.colour,
        linestyle=style.line if line is None else line,
        linewidth=1.2,
        marker=style.marker or "D",
        markersize=4,
        markerfacecolor=style.fill,
        elinewidth=0.8,
        capsize=2,
    )


def _apart(values: Any, name: str, shift: float) -> Any:
    """Places moved a little, so that the bars of two methods do not hide each other."""
    if name == "confidence":  # a panel of its own for each method
        return values
    if name == "train_size":  # a logarithmic axis
        return values * (values.max() / values.min() * 1.5) ** (1.5 * shift)
    return values + shift * (np.ptp(values) or 0.1)


def _level(axes: Axes, row: Row, y: str, method: str) -> None:
    """A model that is the same everywhere: a level line, and a band for the teacher."""
    style = ALL_STYLES[method]
    axes.axhline(_number(row[y]), color=style.colour, linestyle=style.line, linewidth=1.1)
    if method == "teacher" and row[f"{y}_low"] is not None:
        ends = (_number(row[f"{y}_{end}"]) for end in ("low", "high"))
        axes.axhspan(*ends, color=style.colour, alpha=0.08, linewidth=0)


def _reach(values: Any, low: Any, high: Any) -> list[Any]:
    """Lengths of error bars; none where there is no interval."""
    return [np.nan_to_num(values - low), np.nan_to_num(high - values)]


def _pruned(rows: Sequence[Row], sparsity: float) -> str:
    row = _where(rows, sparsity=sparsity)[0]
    return f"{_sparsity(row)} ({100 * _number(row['retention']):.0f} % kept)"


def _sparsity(row: Row) -> str:
    return f"sparsity {_number(row['sparsity']):g}"


def _at_largest(curves: Curves) -> str:
    size = _values(curves["measures/distill"], "train_size")[-1]
    return f"Students trained on {size:,.0f} questions."


def _of_largest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the largest train size."""
    return _where(rows, train_size=_values(rows, "train_size")[-1])


def _where(rows: Sequence[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return sorted({_number(row[column]) for row in rows})


def _column(rows: Sequence[Row], name: str) -> Any:
    return np.array([_number(row[name]) for row in rows])


def _number(value: str | int | float | None) -> float:
    """A field as a number; NaN where it is empty."""
    return float("nan") if value is None else float(value)
