"""The figures of a set of results as images that the page itself holds, with words for each."""

import base64
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regrow.report.curves import Curve, Panel, training_svg
from regrow.report.files import MISSING, Json, in_form
from regrow.report.tables import Place, label
from regrow.support.errors import UserError

FIGURES = {
    "compare/accuracy": (
        "Test accuracy over the share of parameters kept; a panel for each train size.",
        "Curves of accuracy over the parameters kept, for KL self-distillation, cross-entropy and "
        "the pruned model, with the teacher and chance as levels.",
    ),
    "compare/difference": (
        "Accuracy of KL minus cross-entropy in each cell; the dashed line is the margin.",
        "A forest plot: the difference in accuracy, KL minus cross-entropy, with its interval, a "
        "line for each sparsity and train size.",
    ),
    "compare/train_size": (
        "Accuracy and uncertainty over the number of train questions; a column for each sparsity.",
        "Curves over train questions of accuracy, negative log-likelihood, calibration error and "
        "the size of conformal sets, for both losses, with teacher and pruned model as levels.",
    ),
    "compare/reliability": (
        "Reliability: accuracy over confidence; a row for each sparsity, a column for each model.",
        "Reliability diagrams: accuracy over confidence in bins of equal mass beside the diagonal "
        "of perfect calibration, for the teacher, the pruned model and both losses.",
    ),
    "compare/risk": (
        "Risk and coverage: errors among the most confident answers, over their share.",
        "Risk-coverage curves: the share of errors among the most confident answers, over the "
        "share of answers given, a panel for each sparsity.",
    ),
    "importance": (
        "What pruning takes: weight norms by layer, the removed neurons' share of the activation, "
        "and three layers neuron by neuron.",
        "Weight norms of every layer with the range that is removed; below, the share of each "
        "layer's activation that goes; below, activation over weight norm in three layers, where "
        "the neuron of the lowest norm is among the most active of the first.",
    ),
    "compare/transfer": (
        "Other tasks: accuracy, and distance to the teacher, of each model on each set.",
        "A dot plot: accuracy and KL from the teacher on other multiple-choice tasks, a line for "
        "each, for the teacher, the pruned model and both losses.",
    ),
    "compare/conformal": (
        "Conformal sets: their mean size and their coverage over the share of parameters kept.",
        "Curves over the parameters kept of the mean size and the coverage of LAC and APS "
        "conformal sets, for all models.",
    ),
}


@dataclass(frozen=True)
class Figure:
    """An image as a data: URI, with the path that it lies under in the set of results."""

    path: str
    caption: str
    alt: str
    uri: str


def read_figures(plots: Path, comparison: Json) -> list[Figure]:
    """Every figure below `plots`, the known ones first; the SVG of one that is there twice.

    An image is never put into the page as markup: as an `img`, an SVG runs no script and loads
    nothing. `UserError` where the accuracies' figure is missing.
    """
    if not any((plots / f"compare/accuracy.{kind}").is_file() for kind in ("svg", "png")):
        raise UserError(f"{plots / 'compare/accuracy.svg'} is missing; {MISSING}")
    stems = {
        path.relative_to(plots).with_suffix("").as_posix()
        for kind in ("svg", "png")
        for path in plots.rglob(f"*.{kind}")
    }
    known = [stem for stem in FIGURES if stem in stems]
    return [_figure(plots, stem, comparison) for stem in [*known, *sorted(stems - FIGURES.keys())]]


def _figure(plots: Path, stem: str, comparison: Json) -> Figure:
    kind = "svg" if (plots / f"{stem}.svg").is_file() else "png"
    path = f"plots/{stem}.{kind}"
    caption, alt = FIGURES.get(stem, (f"{path}.", f"The figure {path}."))
    if stem in ("compare/accuracy", "compare/difference"):
        alt += _range_of_differences(comparison)
    data = (plots / f"{stem}.{kind}").read_bytes()
    return Figure(path, caption, alt, _uri(data, "svg+xml" if kind == "svg" else "png"))


def _range_of_differences(comparison: Json) -> str:
    found = [cell["difference"]["estimate"] for cell in comparison["sweep"].values()]
    known = [100 * value for value in found if value is not None]
    if not known:
        return " Where KL stands against cross-entropy cannot be said."
    return (
        f" KL minus cross-entropy lies between {min(known):+.1f} and {max(known):+.1f} points in "
        f"{len(known)} cell{'s' * (len(known) != 1)}; the tables hold the numbers."
    )


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def training_figures(training: Path, places: Mapping[str, Place], params: Json) -> list[Figure]:
    """The training losses of every student of the grid as one figure; none without their logs."""
    sweep = params.get("sweep")
    seeds = sweep.get("seed", []) if isinstance(sweep, Mapping) else []
    panels = []
    for key, place in places.items():
        curves = [
            Curve(method, *curve)
            for method, folder in (("finetune", "finetuned"), ("distill", "distilled"))
            for seed in seeds
            if (curve := _losses(training / folder / f"{key}-{seed}"))
        ]
        if curves:
            title = f"sparsity {place.sparsity:g}, {place.train_size:,} train"
            panels.append(Panel(title, curves))
    if not panels:
        return []
    several = f" One line for each of {len(seeds)} seeds." if len(seeds) > 1 else ""
    return [
        Figure(
            path="plots/training/",
            caption=(
                "Training loss over the steps of retraining, on a logarithmic scale. The two "
                f"losses are different quantities: only their shapes compare.{several}"
            ),
            alt=(
                "Training curves of both losses over the steps, a panel for each sparsity and "
                "train size: "
                + "; ".join(
                    f"{panel.title}: "
                    + ", ".join(
                        f"{label(curve.method)} from {curve.losses[0]:.2f} to "
                        f"{curve.losses[-1]:.2f}"
                        for curve in panel.curves
                    )
                    for panel in panels
                )
                + "."
            ),
            uri=_uri(training_svg(panels), "svg+xml"),
        )
    ]


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
