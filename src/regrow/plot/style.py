"""What all figures share: the same bytes for the same numbers, whatever the reader's settings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from matplotlib.typing import LineStyleType

from regrow.support.files import replacing

DPI = 200
SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib brings it, so every machine has it
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "regrow",  # otherwise the ids in an SVG are random
    "path.simplify": False,
}
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g}")
GREY = "#666666"


@dataclass(frozen=True)
class Style:
    """How a curve looks: told apart by marker and line style too, not by colour alone."""

    label: str
    colour: str  # Okabe and Ito 2008, "Color Universal Design"
    marker: str
    line: LineStyleType
    fill: str
    shift: float = 0.0  # of the markers along x, in widths of the panel: bars do not overlap


STUDENTS = {
    "distill": Style("KL self-distillation", "#0072B2", "o", "-", "#0072B2", 0.008),
    "finetune": Style("cross-entropy", "#D55E00", "s", "--", "white", -0.008),
}
METHODS = {
    **STUDENTS,
    "pruned": Style("pruned only", GREY, "^", ":", GREY),
    "teacher": Style("teacher", "black", "", "-.", "black"),
}
LEVELS = {
    "longest_choice": Style("longest choice", GREY, "", (0, (6, 2)), GREY),
    "chance": Style("chance", GREY, "", (0, (1, 3)), GREY),
}
STYLES = {**METHODS, **LEVELS}


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib's own defaults and `SETTINGS`, in place of the reader's configuration."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg, without dates or versions; give their paths."""
    paths = []
    with settings():
        for kind, keys in {"png": ["Software"], "svg": ["Date", "Creator"]}.items():
            paths.append(stem.with_name(f"{stem.name}.{kind}"))
            with replacing(paths[-1]) as beside:
                figure.savefig(beside, format=kind, dpi=DPI, metadata=dict.fromkeys(keys))
    return paths


def panels(
    widths: Sequence[float],
    heights: Sequence[float],
    note: str = "",
    *,
    left: float = 0.75,
    right: float = 0.2,
    top: float = 0.7,
    across: float = 0.3,
    down: float = 0.45,
    percent: str = "",
    **shared: Any,
) -> tuple[Figure, Any]:
    """A figure and its axes, [rows, columns], a legend's room above them and a note below.

    widths, heights: of each column and of each row, in inches, as all lengths here. left, right,
    top: what is left free beside and above the panels. across, down: gaps between them. percent:
    axes whose numbers are shares and read in percent, as "xy". shared: `sharex` and `sharey`.
    """
    bottom = 0.55 + 0.165 * len(note.splitlines())
    inner = sum(widths) + across * (len(widths) - 1)
    width = max(left + inner + right, 6.0)  # the legend and the note are as wide
    height = top + sum(heights) + down * (len(heights) - 1) + bottom
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=left / width,
        right=(left + inner) / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=across * len(widths) / sum(widths),
        hspace=down * len(heights) / sum(heights),
    )
    shape: dict[str, Any] = {"width_ratios": widths, "height_ratios": heights, "squeeze": False}
    grid = figure.subplots(len(heights), len(widths), **shape, **shared)
    for axes in grid.flat:
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        for name in percent:
            getattr(axes, f"{name}axis").set_major_formatter(PERCENT)
    figure.text(0.1 / width, 0.08 / height, note, va="bottom", fontsize=7.5)
    return figure, grid


def legend(figure: Figure, entries: Iterable[str | Artist]) -> None:
    """The names at the head of a figure, of `STYLES` or of what is drawn, in lines of its width."""
    named = {name: Line2D([], [], label=one.label, **look(one)) for name, one in STYLES.items()}
    handles = [named[one] if isinstance(one, str) else one for one in entries]
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=min(len(handles), int(figure.get_figwidth() / 1.45)),
        frameon=False,
        fontsize=8,
        handlelength=2.4,
        columnspacing=1.4,
    )


def bars(
    axes: Axes,
    at: Any,
    interval: Sequence[Any],
    style: Style,
    *,
    line: LineStyleType | None = None,
    flat: bool = False,
) -> None:
    """Points with intervals; an end that is NaN is drawn with no length.

    at: [points]. interval: estimates, lower and upper ends, each [points].
    line: instead of the style's, "" for points alone. flat: intervals along x.
    """
    values, low, high = interval
    reach = np.nan_to_num([values - low, high - values])
    drawn = {**look(style), "marker": style.marker or "D", "elinewidth": 0.9, "capsize": 2.2}
    drawn |= {} if line is None else {"linestyle": line}
    x, y, end = (values, at, "xerr") if flat else (at, values, "yerr")
    axes.errorbar(x, y, **drawn | {end: reach})


def level(axes: Axes, value: float, style: Style, band: tuple[float, float] | None = None) -> None:
    """What is the same everywhere: a level line, and a band where it has an interval."""
    axes.axhline(value, color=style.colour, linestyle=style.line, linewidth=1.1)
    if band is not None and np.isfinite(band).all():
        axes.axhspan(*band, color=style.colour, alpha=0.08, linewidth=0)


def interval_note(about: Mapping[str, Any]) -> str:
    """What the intervals of a figure stand on, as `comparison.json` says it: for its foot."""
    asked = f"{about['questions']:,} test question{'s' * (about['questions'] != 1)}"
    over = f"over questions and seeds ({asked}, {about['seeds']} seeds)."
    if about["seeds"] == 1:
        over = f"over questions ({asked}); one seed, so the noise\nof training is not in them."
    return f"Bars and bands: {100 * about['confidence']:g} % bootstrap intervals {over}"


def look(style: Style) -> dict[str, Any]:
    """A curve's properties, as matplotlib names them."""
    return {
        "color": style.colour,
        "linestyle": style.line,
        "linewidth": 1.2,
        "marker": style.marker,
        "markersize": 4.5,
        "markerfacecolor": style.fill,
    }
