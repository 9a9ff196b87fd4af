"""The figure of other tasks: accuracy and distance to the teacher, a line a set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from regrow.plot.accuracy import of_first_score
from regrow.plot.style import ALL_STYLES, settings

PANELS = {
    "accuracy": ("accuracy, %", ("teacher", "pruned", "finetune", "distill"), 100),
    "kl": ("KL from the teacher, nats a question", ("pruned", "finetune", "distill"), 1),
}


APART = 0.17  # between the methods of a line, in lines


def transfer_figure(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Figure:
    """A column a measure, a line a set; at the smallest sparsity and the largest train size."""
    with settings():
        return _figure(of_first_score(rows), about["confidence"])


def _figure(rows: Sequence[Mapping[str, Any]], confidence: float) -> Figure:
    sparsity = min(_number(row["sparsity"]) for row in rows)
    size = max(_number(row["train_size"]) for row in rows)
    shown = [row for row in rows if row["sparsity"] == sparsity and row["train_size"] == size]
    sets = list(dict.fromkeys(str(row["set"]) for row in shown))
    height = 0.62 * len(sets) + 1.75
    figure = Figure(figsize=(7.2, height))
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(1, len(PANELS), sharey=True)
    figure.subplots_adjust(
        left=0.2, right=0.98, top=1 - 0.55 / height, bottom=0.95 / height, wspace=0.12
    )
    for axes, (measure, (label, methods, scale)) in zip(grid, PANELS.items(), strict=True):
        for place, method in enumerate(methods):
            style = ALL_STYLES[method]
            found = [row for row in shown if (row["measure"], row["method"]) == (measure, method)]
            values, low, high = (
                scale * np.array([_number(row[name]) for row in found])
                for name in ("estimate", "low", "high")
            )
            axes.errorbar(
                values,
                np.arange(len(found)) + APART * (place - (len(methods) - 1) / 2),
                xerr=[np.nan_to_num(values - low), np.nan_to_num(high - values)],
                color=style.colour,
                linestyle="",
                marker=style.marker or "D",
                markersize=4.5,
                markerfacecolor=style.fill,
                elinewidth=0.9,
                capsize=2,
                label=style.label,
            )
        axes.set_xlabel(label)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    counts = {str(row["set"]): row["questions"] for row in shown}
    grid[0].set_yticks(range(len(sets)), [f"{name}\n(n = {counts[name]:,})" for name in sets])
    grid[0].set_ylim(len(sets) - 0.5, -0.5)
    grid[0].legend(
        loc="lower left",
        bbox_to_anchor=(-0.35, 1.0),
        ncols=4,
        frameon=False,
        fontsize=8,
        handlelength=1.2,
    )
    figure.text(
        0.02,
        0.08 / height,
        f"Sparsity {sparsity:g}, students trained on {size:,.0f} questions. "
        f"{100 * confidence:g} % bootstrap\nintervals over questions and, if several, seeds.",
        va="bottom",
        fontsize=7.5,
    )
    return figure


def _number(value: object) -> float:
    """A field as a number; NaN where it is empty."""
    return float("nan") if value is None else float(str(value))
