"""Figures of the evidence: train size, reliability, risk and coverage, conformal sets, other tasks.

They draw the rows of the CSV files, as `compare` computed them.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from regrow.plot.accuracy import difference_figure
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
    METHODS,
    PERCENT,
    STUDENTS,
    bars,
    interval_note,
    legend,
    names,
    panels,
    settings,
)

ALPHA = 0.1  # of the conformal sets drawn; the CSV files hold the others too
MEASURES = {
    "accuracy": ("accuracy, %", PERCENT),
    "nll": ("NLL, nats", None),
    "ece": ("calibration error, %", PERCENT),
    "set_size": (f"LAC set size,\nchoices (alpha = {ALPHA})", None),
}
ELSEWHERE = {
    "accuracy": ("accuracy, %", ("teacher", "pruned", "finetune", "distill"), PERCENT),
    "kl": ("KL from the teacher, nats a question", ("pruned", "finetune", "distill"), None),
}


def evidence_figures(curves: Curves, about: Row) -> dict[str, Figure]:
    """Every figure that the sweep has points for, by its name.

    A curve needs two points: of train sizes, or of sparsities.

    Args:
        curves: the rows of every CSV file.
        about: what they stand on, as `comparison.json` says it.
    """
    note = interval_note(about["confidence"], about["questions"], about["seeds"])
    places = curves["measures/distill"]
    largest = max(values(places, "train_size"))
    shown = {
        name: where(rows, train_size=largest)
        for name, rows in curves.items()
        if name.partition("/")[0] in ("reliability", "risk", "conformal")
    }
    students = f"\nStudents trained on {largest:,} questions."
    figures = {"difference": difference_figure(curves, about)}
    with settings():
        if len(values(places, "train_size")) > 1:
            figures["train_size"] = _train_size(curves, note)
        figures["reliability"] = _reliability(shown, about, students)
        figures["risk"] = _risk(shown, note + students)
        if len(values(places, "sparsity")) > 1:
            figures["conformal"] = _conformal(shown, note + students)
    return figures


def transfer_figure(rows: Rows, about: Row) -> Figure:
    """Other tasks: a column a measure, a row a score, a line a set.

    At the smallest sparsity and the largest train size.
    """
    sparsity, size = min(values(rows, "sparsity")), max(values(rows, "train_size"))
    shown = where(rows, sparsity=sparsity, train_size=size)
    scores, sets = values(shown, "score"), values(shown, "set")
    note = (
        f"Sparsity {sparsity:g}, students trained on {size:,} questions. Bars: "
        f"{100 * about['confidence']:g} % bootstrap intervals over questions and seeds."
    )
    counts = {row["set"]: row["questions"] for row in shown}
    with settings():
        figure, grid = panels(
            [2.8] * len(ELSEWHERE), [0.6 * len(sets)] * len(scores), note, left=1.3, sharey=True
        )
        for line, score in zip(grid, scores, strict=True):
            for axes, (measure, (label, methods, form)) in zip(
                line, ELSEWHERE.items(), strict=True
            ):
                for place, method in enumerate(methods):
                    found = where(shown, score=score, measure=measure, method=method)
                    at = np.arange(len(found)) + 0.17 * (place - (len(methods) - 1) / 2)
                    parts = [column(found, name) for name in ("estimate", "low", "high")]
                    bars(axes, at, parts, METHODS[method], line="", flat=True)
                axes.grid(visible=False)
                axes.grid(axis="x", color="#dddddd", linewidth=0.6)
                axes.xaxis.set_major_formatter(form or FuncFormatter(lambda at, _: f"{at:g}"))
                axes.set_title(f"pruned by {score}", loc="left", fontsize=8)
                axes.set_xlabel(label if score == scores[-1] else "")
        grid[0, 0].set_yticks(
            range(len(sets)), [f"{name}\n(n = {counts[name]:,})" for name in sets]
        )
        grid[0, 0].set_ylim(len(sets) - 0.5, -0.5)
        legend(figure, names("teacher", "pruned", "finetune", "distill"))
    return figure


def _train_size(curves: Curves, note: str) -> Figure:
    """Accuracy and uncertainty over train size; a column a pruned model, a row a measure."""
    rows = {
        method: [
            {**one, **other}
            for one, other in zip(
                curves[f"accuracy/{method}"], curves[f"measures/{method}"], strict=True
            )
        ]
        for method in METHODS
    }
    pruned = {(row["score"], row["sparsity"]): row for row in rows["distill"]}
    sizes = values(rows["distill"], "train_size")
    figure, grid = panels([2.1] * len(pruned), [1.4] * len(MEASURES), note, left=0.85, sharey="row")
    for line, (measure, (label, form)) in zip(grid, MEASURES.items(), strict=True):
        for axes, (score, sparsity) in zip(line, pruned, strict=True):
            here = {"score": score, "sparsity": sparsity}
            for method in ("teacher", "pruned"):
                level_of(axes, where(rows[method], **here)[0], measure, method)
            for method in STUDENTS:
                curve(axes, where(rows[method], **here), "train_size", measure, method)
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.margins(x=0.15)
            if form:
                axes.yaxis.set_major_formatter(form)
        line[0].set_ylabel(label)
    for axes, row in zip(grid[0], pruned.values(), strict=True):
        axes.set_title(cell_name(row), fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("train questions")
    legend(figure, names(*METHODS))
    return figure


def _reliability(rows: Curves, about: Row, students: str) -> Figure:
    """Accuracy over confidence in bins of equal mass; a row a pruned model, a column a method."""
    methods = ("teacher", "pruned", "finetune", "distill")
    cells = {(row["score"], row["sparsity"]): row for row in rows["reliability/distill"]}
    mass = float(np.mean(column(rows["reliability/teacher"], "questions")))
    note = (
        f"Bins of equal mass, about {mass:.3g} of {about['questions']:,} test questions each; "
        f"bars: {100 * about['confidence']:g} % Wilson intervals.\nOn the diagonal, a model is "
        "right as often as it says; the mean gap to it, weighted by mass, is the calibration "
        f"error.{students}{' Means over seeds.' if about['seeds'] > 1 else ''}"
    )
    figure, grid = panels(
        [1.7] * len(methods),
        [1.7] * len(cells),
        note,
        left=0.85,
        top=0.35,
        sharex=True,
        sharey=True,
    )
    for line, ((score, sparsity), row) in zip(grid, cells.items(), strict=True):
        for axes, method in zip(line, methods, strict=True):
            points = where(rows[f"reliability/{method}"], score=score, sparsity=sparsity)
            axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
            curve(axes, points, "confidence", "accuracy", method, line="")
            axes.xaxis.set_major_formatter(PERCENT)
            axes.yaxis.set_major_formatter(PERCENT)
        line[0].set_ylabel(f"{row['score']}, sparsity {row['sparsity']:g}\naccuracy, %")
    grid[0, 0].set(xlim=(0, 1.02), ylim=(0, 1.02))
    for axes, method in zip(grid[0], methods, strict=True):
        axes.set_title(METHODS[method].label, fontsize=8, color=METHODS[method].colour)
    for axes in grid[-1]:
        axes.set_xlabel("confidence, %")
    return figure


def _risk(rows: Curves, note: str) -> Figure:
    """Error among the most confident answers over their share; a row a score."""
    found = rows["risk/distill"]
    scores, sparsities = values(found, "score"), values(found, "sparsity")
    figure, grid = panels(
        [2.1] * len(sparsities), [1.9] * len(scores), note, down=0.5, sharex=True, sharey=True
    )
    for line, score in zip(grid, scores, strict=True):
        for axes, sparsity in zip(line, sparsities, strict=True):
            for method, style in METHODS.items():
                points = where(rows[f"risk/{method}"], score=score, sparsity=sparsity)
                x, (risk, low, high) = column(points, "coverage"), ends(points, "risk")
                # A line through 20 points: its band is drawn whole, its marker at every fifth.
                axes.plot(
                    x,
                    risk,
                    color=style.colour,
                    linestyle=style.line,
                    linewidth=1.2,
                    marker=style.marker,
                    markevery=(3, 5),
                    markersize=4,
                    markerfacecolor=style.fill,
                )
                if method in STUDENTS:
                    axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
            axes.set_title(cell_name(points[0]), fontsize=8)
            axes.xaxis.set_major_formatter(PERCENT)
            axes.yaxis.set_major_formatter(PERCENT)
        line[0].set_ylabel("errors among the\nsurest answers, %")
    grid[0, 0].set_ylim(bottom=0)  # all panels share it
    for axes in grid[-1]:
        axes.set_xlabel("coverage, % of questions")
    legend(figure, names(*METHODS))
    return figure


def _conformal(rows: Curves, note: str) -> Figure:
    """Mean size and coverage of conformal sets over retention; a row a score and kind of set."""
    found = rows["conformal/distill"]
    lines = [(score, kind) for score in values(found, "score") for kind in values(found, "sets")]
    figure, grid = panels([2.9] * 2, [1.7] * len(lines), note, left=0.95, across=0.75, sharex=True)
    for line, (score, kind) in zip(grid, lines, strict=True):
        for axes, part in zip(line, ("size", "coverage"), strict=True):
            for method in METHODS:
                points = where(rows[f"conformal/{method}"], score=score, sets=kind, alpha=ALPHA)
                if method == "teacher":
                    level_of(axes, points[0], part, method)
                else:
                    curve(axes, points, "retention", part, method)
            axes.xaxis.set_major_formatter(PERCENT)
            axes.set_title(f"{kind.upper()} sets, pruned by {score}", loc="left", fontsize=8)
        line[1].axhline(1 - ALPHA, color="#999999", linewidth=0.8)
        line[1].yaxis.set_major_formatter(PERCENT)
        line[0].set_ylabel("mean set size, choices")
        line[1].set_ylabel(f"coverage, % (asked: {100 * (1 - ALPHA):g})")
    for axes in grid[-1]:
        axes.set_xlabel("parameters kept, % of the teacher's")
    legend(figure, names(*METHODS))
    return figure
