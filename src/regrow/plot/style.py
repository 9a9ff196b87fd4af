"""Figures, the same to the byte for the same numbers, whatever the reader's matplotlib settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
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
