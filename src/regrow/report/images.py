"""The figures of a set of results as images that the page itself holds, with words for each."""

import base64
import csv
from collections.abc import Iterator
from pathlib import Path

from regrow.report.curves import Curve, Panel, training_svg
from regrow.report.files import MISSING, Source, in_form
from regrow.report.parts import Figure, Section
from regrow.report.words import LABELS
from regrow.support.errors import UserError

FIGURES = {  # by name, in the order of the page
    "accuracy": "Test accuracy over the share of parameters kept, for both losses and the pruned "
    "model, with the teacher, the longest choice and chance as levels, and below it the paired "
    "difference; a column for each importance score.",
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


def figures(source: Source) -> Section:
    """Every figure below `plots`, the known ones first, and the training losses.

    Where one is there as SVG and PNG, the SVG. An image is never put into the page as markup: as
    an `img`, an SVG runs no script and loads nothing. `UserError` where the accuracies' figure is
    missing.
    """
    plots = source.folder / "plots"
    paths = {
        path.with_suffix(""): path for kind in ("png", "svg") for path in plots.rglob(f"*.{kind}")
    }
    order = list(FIGURES)
    ranked = sorted(
        paths.values(), key=lambda p: (order.index(p.stem) if p.stem in order else len(order), p)
    )
    if not ranked or ranked[0].stem != "accuracy":
        raise UserError(f"{plots / 'compare/accuracy.svg'} is missing; {MISSING}")
    return Section(
        "figures", "Figures", [*(figure(path, source) for path in ranked), *_training(source)]
    )


def figure(path: Path, source: Source) -> Figure:
    name = path.relative_to(source.folder).as_posix()
    caption = FIGURES.get(path.stem, f"The figure {name}, which this version does not know.")
    alt = caption + _range_of_differences(source) * (path.stem in ("accuracy", "difference"))
    return Figure(name, caption, alt, _uri(path.read_bytes(), path.suffix))


def _range_of_differences(source: Source) -> str:
    with source.read("comparison") as comparison:
        found = [cell["difference"]["estimate"] for cell in comparison["sweep"].values()]
    known = [100 * value for value in found if value is not None]
    if not known:
        return " Where KL stands against cross-entropy cannot be said."
    return (
        f" KL minus cross-entropy lies between {min(known):+.1f} and {max(known):+.1f} points in "
        f"{len(known)} cell{'s' * (len(known) != 1)}; the tables hold the numbers."
    )


def _uri(data: bytes, suffix: str) -> str:
    kind = "svg+xml" if suffix == ".svg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _training(source: Source) -> Iterator[Figure]:
    """The training losses of every student of the grid as one figure; none without their logs."""
    logs = source.folder / "plots" / "training"
    folders = {"finetune": ("finetune", "finetuned"), "distill": ("distill", "distilled")}
    seeds = (source.params.get("sweep") or {}).get("seed") or []
    panels = []
    for key, place in source.places.items():
        curves = [
            Curve(method, *curve)
            for method, names in folders.items()
            for name in names  # today's, and that of earlier versions
            for seed in seeds
            if (curve := _losses(logs / name / f"{key}-{seed}"))
        ]
        if curves:
            title = f"{place.score}, {place.sparsity:g}, {place.train_size:,} train"
            panels.append(Panel(title, curves))
    if not panels:
        return
    several = f" One line for each of {len(seeds)} seeds." if len(seeds) > 1 else ""
    said = "; ".join(
        f"{panel.title}: "
        + ", ".join(
            f"{LABELS[curve.method]} from {curve.losses[0]:.2f} to {curve.losses[-1]:.2f}"
            for curve in panel.curves
        )
        for panel in panels
    )
    yield Figure(
        path="plots/training/",
        caption="Training loss over the steps of retraining, on a logarithmic scale. The two "
        f"losses are different quantities: only their shapes compare.{several}",
        alt=f"Training curves of both losses over the steps, a panel for each cell: {said}.",
        uri=_uri(training_svg(panels), ".svg"),
    )


def _losses(log: Path) -> tuple[list[float], list[float]] | None:
    """Steps and losses from a log that DVCLive wrote; None where it holds none."""
    path = log / "plots" / "metrics" / "loss.tsv"
    if not path.is_file():
        return None
    with in_form(path):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        steps, losses = ([float(row[name]) for row in rows] for name in ("step", "loss"))
    return (steps, losses) if steps else None
