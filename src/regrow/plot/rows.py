"""The rows of CSV files as arrays and curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from regrow.plot.style import METHODS, bars, level

Row = Mapping[str, Any]
Rows = Sequence[Row]
Curves = Mapping[str, Rows]
"""Rows by the file's name, such as `accuracy`."""


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
    style = METHODS[method]
    ordered = sorted(rows, key=lambda row: float(row[x]))
    at = column(ordered, x)
    if x == "train_size":  # a logarithmic axis
        at = at * (at.max() / at.min() * 1.5) ** (1.5 * style.shift)
    elif x == "retention":
        at = at + style.shift * (1 - at.min() or 0.1)
    bars(axes, at, ends(ordered, y), style, line=line)


def level_of(axes: Axes, row: Row, y: str, method: str) -> None:
    """A model that is the same in a whole panel; a band for the teacher."""
    value, low, high = (float(part[0]) for part in ends([row], y))
    level(axes, value, METHODS[method], (low, high) if method == "teacher" else None)


def cell_name(row: Row) -> str:
    """What tells a pruned model from others, in words."""
    kept = f"{100 * row['retention']:.0f} % kept"
    return f"{row['score']}, sparsity {row['sparsity']:g} ({kept})"
