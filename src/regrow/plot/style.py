"""Figures, the same to the byte for the same numbers, whatever the reader's matplotlib settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
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


@dataclass(frozen=True)
class Style:
    """How a curve looks: told apart by marker and line style too, not by colour alone."""

    label: str
    colour: str  # Okabe and Ito 2008, "Color Universal Design"
    marker: str
    line: LineStyleType
    fill: str
    shift: float  # of the markers along x, in widths of the panel, so that bars do not overlap


STYLES = {
    "distill": Style("KL self-distillation", "#0072B2", "o", "-", "#0072B2", 0.007),
    "finetune": Style("cross-entropy", "#D55E00", "s", "--", "white", -0.007),
    "pruned": Style("pruned only", "#666666", "^", ":", "#666666", 0.0),
}


TEACHER = Style("teacher", "black", "", "-.", "black", 0.0)
CHANCE = Style("chance", "#666666", "", (0, (1, 3)), "#666666", 0.0)
ALL_STYLES = {**STYLES, "teacher": TEACHER, "chance": CHANCE}
NORMALISATIONS = {"raw": "accuracy", "per_character": "accuracy per character"}


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib's own defaults and `SETTINGS`, in place of the reader's configuration."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg, without dates or versions; give their paths."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    with settings():
        for path in paths:
            keys = ["Software"] if path.suffix == ".png" else ["Date", "Creator"]
            metadata = dict.fromkeys(keys)
            with replacing(path) as beside:
                figure.savefig(beside, format=path.suffix[1:], dpi=DPI, metadata=metadata)
    return paths


def panels(
    widths: Sequence[float],
    heights: Sequence[float],
    note: str = "",
    *,
    left: float = 0.75,
    top: float = 0.7,
    across: float = 0.3,
    down: float = 0.45,
    **shared: Any,
) -> tuple[Figure, Any]:
    """A grid of panels, a legend's room above them and a note below.

    Args:
        widths, heights: of each column and of each row, in inches, as all lengths here.
        note: what the figure's foot says, in lines.
        left, top: what is left free beside and above the panels.
        across, down: gaps between them.
        shared: `sharex` and `sharey`, as `Figure.subplots` takes them.

    Returns:
        The figure and its axes, [rows, columns].
    """
    bottom = 0.55 + 0.165 * len(note.splitlines())
    inner = sum(widths) + across * (len(widths) - 1)
    width = max(left + inner + 0.2, 6.0)  # the legend and the note are as wide
    height = top + sum(heights) + down * (len(heights) - 1) + bottom
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(heights),
        len(widths),
        squeeze=False,
        width_ratios=widths,
        height_ratios=heights,
        gridspec_kw={
            "left": left / width,
            "right": (left + inner) / width,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": across * len(widths) / sum(widths),
            "hspace": down * len(heights) / sum(heights),
        },
        **shared,
    )
    for axes in grid.flat:
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.text(0.1 / width, 0.08 / height, note, va="bottom", fontsize=7.5)
    return figure, grid


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """One line of names at the head of a figure."""
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handlelength=2.4,
        columnspacing=1.4,
    )


def spread(wanted: dict[str, float], gap: float) -> dict[str, float]:
    """Heights near the wanted ones that keep their order and stand at least `gap` apart."""
    names = sorted(wanted, key=lambda name: wanted[name])
    # Pool neighbours that are too close, and centre each pool on the mean of what it wants.
    pools: list[list[str]] = []

    def centre(pool: list[str]) -> float:
        return sum(wanted[name] for name in pool) / len(pool)

    def half(pool: list[str]) -> float:
        return gap * len(pool) / 2

    for name in names:
        pools.append([name])
        while len(pools) > 1 and (
            centre(pools[-1]) - half(pools[-1]) < centre(pools[-2]) + half(pools[-2])
        ):
            pools[-2:] = [pools[-2] + pools[-1]]
    return {
        name: centre(pool) + gap * (place - (len(pool) - 1) / 2)
        for pool in pools
        for place, name in enumerate(pool)
    }


def interval_note(
    confidence: float, questions: int, seeds: int, what: str = "Bars and bands"
) -> str:
    """What the intervals of a figure, drawn as `what`, stand on: for its foot."""
    level = f"{100 * confidence:g} %"
    asked = f"{questions:,} test question{'s' * (questions != 1)}"
    if seeds == 1:
        over = f"over questions ({asked});\none seed, so the noise of training is not in them."
    else:
        over = f"over questions and seeds\n({asked}, {seeds} seeds)."
    return f"{what}: {level} bootstrap intervals {over}"
