"""The figures of a set of results as images that the page itself holds, with words for each."""

import base64
import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from matplotlib.artist import setp

from regrow.plot.style import STUDENTS, legend, look, panels, settings
from regrow.report.files import MISSING, Json, Source, in_form
from regrow.report.parts import Figure
from regrow.report.words import LABELS
from regrow.support.errors import UserError

FIGURES = {  # by name, in the order of the page
    "accuracy": "Test accuracy over the share of parameters kept (of one sparsity alone: over the "
    "number of train questions), for both losses and the pruned model, with the teacher, the "
    "longest choice and chance as levels, and below it the paired difference; a column for each "
    "importance score.",
    "difference": "Accuracy of KL minus cross-entropy with its paired interval, a line for each "
    "cell; the dashed line is the margin.",
    "train_size": "Accuracy and uncertainty over the number of train questions, for both losses; "
    "a column for each pruned model.",
    "reliability": "Reliability: accuracy over confidence in bins of equal mass beside the "
    "diagonal; a row for each pruned model, a column for each method.",
    "risk": "Risk and coverage: errors among the most confident answers, over their share; a panel "
    "for each pruned model.",
    "importance": "What pruning takes from each layer: the neurons' weight norms, and under each "
    "score the share of the layer's activation that goes and the neurons of one layer.",
    "frontier": "Accuracy of every model in every format over its bytes, and over the tokens "
    "that a machine decodes in a second; rings mark what no other file beats.",
    "transfer": "Other tasks: accuracy, and distance to the teacher, of each model on each set.",
    "conformal": "Conformal sets, LAC and APS: their mean size and their coverage over the share "
    "of parameters kept, for all models.",
}
COLUMNS = 4  # of the training losses' panels
LOGS = {"finetune": ("finetune", "finetuned"), "distill": ("distill", "distilled")}
"""Each method's folder below plots/training, behind it that of earlier versions."""


class Curve(NamedTuple):
    """The loss at each logged step of one run; `method` is `finetune` or `distill`."""

    method: str
    steps: Sequence[float]
    losses: Sequence[float]


def figures(source: Source, comparison: Json) -> Iterator[Figure]:
    """Every figure below `plots`, the known ones first, and the training losses.

    Where one is there as SVG and PNG, the SVG; as an `img`, it runs no script and loads nothing.
    `UserError` where the accuracies' figure is missing.
    """
    plots, order = source.folder / "plots", [*FIGURES, ""]
    found = {
        path.with_suffix(""): path for kind in ("png", "svg") for path in plots.rglob(f"*.{kind}")
    }
    stems = {path: path.stem if path.stem in FIGURES else "" for path in found.values()}
    if "accuracy" not in stems.values():
        raise UserError(f"{plots / 'compare/accuracy.svg'} is missing; {MISSING}")
    for path in sorted(stems, key=lambda path: (order.index(stems[path]), path)):
        more = _range(comparison) if path.stem in ("accuracy", "difference") else ""
        yield figure(path, source, more)
    yield from _training(source)


def figure(path: Path, source: Source, more: str = "") -> Figure:
    """The figure in a file; `more` is what its caption leaves to those who do not see it."""
    name = path.relative_to(source.folder).as_posix()
    caption = FIGURES.get(path.stem, f"The figure {name}, which this version does not know.")
    return Figure(name, caption, caption + more, _uri(path.read_bytes(), path.suffix))


def _range(comparison: Json) -> str:
    found = [100 * cell["difference"]["estimate"] for cell in comparison["sweep"].values()]
    return (
        f" KL minus cross-entropy lies between {min(found):+.1f} and {max(found):+.1f} points in "
        f"{len(found)} cell{'s' * (len(found) != 1)}; the tables hold the numbers."
    )


def _uri(data: bytes, suffix: str) -> str:
    kind = "svg+xml" if suffix == ".svg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _training(source: Source) -> Iterator[Figure]:
    """The training losses of every student of the grid as one figure; none without their logs."""
    seeds = (source.read("params").get("sweep") or {}).get("seed") or []
    cells: dict[str, list[Curve]] = {}
    for key, place in source.places.items():
        curves = [
            curve
            for method, names in LOGS.items()
            for name, seed in product(names, seeds)
            for curve in _losses(method, source.folder / f"plots/training/{name}/{key}-{seed}")
        ]
        if curves:
            cells[f"{', '.join(place.fields[:3])} train"] = curves
    if not cells:
        return
    several = f" One line for each of {len(seeds)} seeds." if len(seeds) > 1 else ""
    said = "; ".join(
        f"{title}: "
        + ", ".join(
            f"{LABELS[method]} from {losses[0]:.2f} to {losses[-1]:.2f}"
            for method, _, losses in curves
        )
        for title, curves in cells.items()
    )
    yield Figure(
        path="plots/training/",
        caption="Training loss over the steps of retraining, on a logarithmic scale. The two "
        f"losses are different quantities: only their shapes compare.{several}",
        alt=f"Training curves of both losses over the steps, a panel for each cell: {said}.",
        uri=_uri(training_svg(cells), ".svg"),
    )


def _losses(method: str, log: Path) -> Iterator[Curve]:
    """The curve in a log that DVCLive wrote, if it holds one."""
    path = log / "plots" / "metrics" / "loss.tsv"
    if not path.is_file():
        return
    with in_form(path), path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
        steps, losses = ([float(row[name]) for row in rows] for name in ("step", "loss"))
    if steps:
        yield Curve(method, steps, losses)


@settings()
def training_svg(cells: Mapping[str, Sequence[Curve]]) -> bytes:
    """A panel for each title, with shared axes, as SVG; the same bytes for the same numbers."""
    columns = min(COLUMNS, len(cells))
    heights = [1.4] * math.ceil(len(cells) / columns)
    figure, grid = panels([1.9] * columns, heights, across=0.2, sharex=True, sharey=True)
    for axes in grid.flat[len(cells) :]:
        axes.remove()
    for index, (axes, title) in enumerate(zip(grid.flat, cells, strict=False)):
        for method, steps, losses in cells[title]:
            alone = {"linewidth": 0.8, "marker": "o" if len(steps) == 1 else "", "markersize": 3}
            axes.plot(steps, losses, **look(STUDENTS[method]) | alone)
        axes.set_title(title, fontsize=8)
        if index + columns >= len(cells):
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
    setp(grid[:, 0], ylabel="loss, nats")
    curves = [curve for cell in cells.values() for curve in cell]
    # A loss of 0, as of a KL that nothing is left of, has no logarithm.
    if all(min(curve.losses) > 0 for curve in curves):
        grid[0, 0].set_yscale("log")
    legend(figure, [name for name in STUDENTS if name in {curve.method for curve in curves}])
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()
