"""The figure of accuracy over retention."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from regrow.plot.style import (
    ALL_STYLES,
    CHANCE,
    NORMALISATIONS,
    STYLES,
    TEACHER,
    interval_note,
    settings,
    spread,
)

Rows = Sequence[Mapping[str, Any]]
Curves = Mapping[str, Rows]


def accuracy_figure(curves: Curves, about: Mapping[str, Any]) -> Figure:
    """Accuracy over whole-model retention, in percent; one panel for each train size.

    curves: rows by file name, of which those of `accuracy/METHOD` are drawn. about: what they
    stand on, as `comparison.json` says it.
    """
    with settings():
        return _accuracy_figure(curves, about)


def _accuracy_figure(curves: Curves, about: Mapping[str, Any]) -> Figure:
    rows_of = {
        method: of_first_score(curves[f"accuracy/{method}"]) for method in ("teacher", *STYLES)
    }
    teacher_rows = rows_of["teacher"]
    train_sizes = sorted({row["train_size"] for row in teacher_rows})
    columns = 2 if len(train_sizes) == 4 else min(3, len(train_sizes))
    rows = math.ceil(len(train_sizes) / columns)
    # Inches: the direct labels stand right of the last column, the notes below the last row.
    panel_width = 4.6 if columns == 1 else 2.9
    panel_height, left, right, top, bottom, gap = 3.0, 0.65, 1.75, 0.4, 0.95, 0.6
    width = left + columns * panel_width + (columns - 1) * 0.2 + right
    height = top + rows * panel_height + (rows - 1) * gap + bottom
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        rows,
        columns,
        sharex=True,
        sharey=True,
        squeeze=False,
        gridspec_kw={
            "left": left / width,
            "right": 1 - right / width,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": 0.2 / panel_width,
            "hspace": gap / panel_height,
        },
    )
    panels: list[Axes] = list(grid.flat)
    for axes in panels[len(train_sizes) :]:
        axes.remove()
    for index, (axes, train_size) in enumerate(zip(panels, train_sizes, strict=False)):
        cells = {
            method: [row for row in found if row["train_size"] == train_size]
            for method, found in rows_of.items()
        }
        _draw_panel(axes, cells, about["chance"])
        axes.set_title(f"{train_size:,} train questions", loc="left", fontsize=9)
        axes.tick_params(labelbottom=True)
        if index + columns >= len(train_sizes):
            axes.set_xlabel("parameters kept, % of the teacher's")
        if index % columns == 0:
            axes.set_ylabel(f"test {NORMALISATIONS[about['accuracy']]}, %")
        if index % columns == columns - 1 or index == len(train_sizes) - 1:
            _label_ends(axes, cells, about["chance"])
    note = interval_note(about["confidence"], about["questions"], about["seeds"], "Bars and band")
    figure.text(left / width, 0.1 / height, note, va="bottom", fontsize=7.5)
    return figure


def _draw_panel(axes: Axes, cells: Curves, chance: float) -> None:
    teacher = cells["teacher"][0]
    left = 100 * min(row["retention"] for row in cells["teacher"])
    width = max(100 - left, 1.0) * 1.08
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.axhspan(*_ends(teacher), color="#000000", alpha=0.08, linewidth=0)
    axes.axhline(
        100 * teacher["accuracy"], color=TEACHER.colour, linestyle=TEACHER.line, linewidth=1.1
    )
    axes.axhline(100 * chance, color=CHANCE.colour, linestyle=CHANCE.line, linewidth=1.1)
    for method, style in STYLES.items():
        points = sorted(
            (100 * row["retention"] + style.shift * width, 100 * row["accuracy"], *_ends(row))
            for row in cells[method]
        )
        x = [point[0] for point in points]
        y = [point[1] for point in points]
        axes.errorbar(
            x,
            y,
            yerr=(
                [point[1] - point[2] for point in points],
                [point[3] - point[1] for point in points],
            ),
            color=style.colour,
            linestyle=style.line,
            linewidth=1.3,
            marker=style.marker,
            markersize=5,
            markerfacecolor=style.fill,
            elinewidth=0.9,
            capsize=2.5,
        )
    axes.set_xlim(100 + 0.02 * width - 1.04 * width, 100 + 0.02 * width)


def _label_ends(axes: Axes, cells: Curves, chance: float) -> None:
    """Name each curve right of the panel, at the height of its last point, without overlaps."""
    last = {method: max(rows, key=lambda row: row["retention"]) for method, rows in cells.items()}
    heights = {"chance": 100 * chance} | {
        method: 100 * row["accuracy"] for method, row in last.items()
    }
    low, high = axes.get_ylim()
    wanted = {name: (height - low) / (high - low) for name, height in heights.items()}
    for name, height in spread(wanted, gap=0.062).items():
        style = ALL_STYLES[name]
        axes.plot(
            [1.03, 1.06, 1.09],
            [height] * 3,
            transform=axes.transAxes,
            clip_on=False,
            color=style.colour,
            linestyle=style.line,
            linewidth=1.3,
            marker=style.marker,
            markevery=[1],
            markersize=5,
            markerfacecolor=style.fill,
        )
        axes.annotate(
            style.label,
            (1.115, height),
            xycoords="axes fraction",
            va="center",
            fontsize=8,
            color=style.colour,
        )


def _ends(row: Mapping[str, Any]) -> tuple[float, float]:
    """The interval in percent; one that cannot be had is drawn with no length."""
    low, high = (
        row["accuracy"] if row[name] is None else row[name]
        for name in ("accuracy_low", "accuracy_high")
    )
    return 100 * low, 100 * high


def of_first_score(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows of the first importance score."""
    return [row for row in rows if row["score"] == rows[0]["score"]]
