"""Results as they lie in a folder → one self-contained HTML page.

The page is a function of the files that it is made from: it holds no date, no path outside the
folder and nothing of the machine that writes it. What the results do not hold, it says it cannot
say. The template is `report.html.j2`; this module decides what the page says, the template how it
looks.

A set of results is a folder with `params.yaml`, `dvc.lock`, `metrics/` and `plots/`. The root of
the repository is one.
"""

import base64
import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from ruamel.yaml import YAML

from regrow.errors import UserError
from regrow.evidence import MEASURES
from regrow.figures import ALL_STYLES
from regrow.report_figures import Curve, Panel, training_svg
from regrow.stages.show import estimate, interval, notes

CANNOT_SAY = "cannot say"
METHODS = ("teacher", "pruned", "finetune", "distill")
HEADLINES = ("nll", "nll_scaled", "ece", "lac_size_0.1", "agreement", "recovery")
SCORES = ("brier", "aurc")  # without a unit, but no shares either: not shown in percent
GIVEN = {  # what these say of some models was not measured, but follows from what they are
    "agreement": {"teacher": "100"},
    "kl": {"teacher": "0"},
    "recovery": {"teacher": "100", "pruned": "0"},
}
LIBRARIES = (
    *("torch", "transformers", "tokenizers", "accelerate", "safetensors", "gguf"),
    *("numpy", "scipy", "pyarrow", "matplotlib", "pydantic", "dvc", "dvclive"),
)
FIGURES = {
    "accuracy": (
        "Test accuracy over the share of parameters kept; a panel for each train size.",
        "Curves of accuracy over the parameters kept, for KL self-distillation, cross-entropy and "
        "the pruned model, with the teacher and chance as levels.",
    ),
    "evidence/difference": (
        "Accuracy of KL minus cross-entropy in each cell; the dashed line is the margin.",
        "A forest plot: the difference in accuracy, KL minus cross-entropy, with its interval, a "
        "line for each sparsity and train size.",
    ),
    "evidence/train_size": (
        "Accuracy and uncertainty over the number of train questions; a column for each sparsity.",
        "Curves over train questions of accuracy, negative log-likelihood, calibration error and "
        "the size of conformal sets, for both losses, with teacher and pruned model as levels.",
    ),
    "evidence/reliability": (
        "Reliability: accuracy over confidence; a row for each sparsity, a column for each model.",
        "Reliability diagrams: accuracy over confidence in bins of equal mass beside the diagonal "
        "of perfect calibration, for the teacher, the pruned model and both losses.",
    ),
    "evidence/risk": (
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
    "evidence/transfer": (
        "Other tasks: accuracy, and distance to the teacher, of each model on each set.",
        "A dot plot: accuracy and KL from the teacher on other multiple-choice tasks, a line for "
        "each, for the teacher, the pruned model and both losses.",
    ),
    "evidence/conformal": (
        "Conformal sets: their mean size and their coverage over the share of parameters kept.",
        "Curves over the parameters kept of the mean size and the coverage of LAC and APS "
        "conformal sets, for all models.",
    ),
}
MISSING = "run `make repro` to make it, or name a folder of results that holds it"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One field of a table; `strong` where an interval of a difference does not hold 0."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first field of a row is its heading, and `head` has one for every field.

    words: its fields are words rather than numbers, and stand left.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    words: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim of the paper as the page shows it: every part is text."""

    says: str
    quantity: str
    estimate: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Figure:
    """An image as a data: URI, with the path that it lies under in the set of results."""

    path: str
    caption: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Results:
    """What the page says of one set of results.

    name: the folder's, and empty where the page holds one set. parameters: `params.yaml` as it
    lies there; values: the same, flat. warnings: sentences on files that do not belong together.
    """

    name: str
    model: str
    parameters: str
    values: Mapping[str, str]
    warnings: Sequence[str]
    set_up: Sequence[tuple[str, str]]
    claims: Mapping[str, Claim]
    accuracy: Table
    notes: str
    headlines: Sequence[Table]
    measures: Sequence[Table]
    paired: Table
    transfer: Sequence[Table]
    figures: Sequence[Figure]
    versions: Table
    outputs: Table
    code: Table

    @property
    def verdicts(self) -> str:
        """How many claims met which verdict, such as `5 supported, 3 inconclusive`."""
        found = [claim.verdict for claim in self.claims.values()]
        return ", ".join(
            f"{found.count(verdict)} {verdict}" for verdict in sorted(set(found), reverse=True)
        )


def read_results(folder: Path) -> list[Results]:
    """Read the set of results in `folder`, or those in its direct subfolders, by name.

    A file that is missing or that is not what a stage writes is a `UserError` that names it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one that holds results")
    if _is_set(folder):
        return [read_set(folder, name="")]
    # A hidden one is being written, or was left behind half written.
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = sorted(path for path in visible if path.is_dir() and _is_set(path))
    if not found:
        raise UserError(
            f"{folder} holds no results: neither it nor a folder in it has params.yaml and "
            "metrics/; run `make repro`, or name a folder of results"
        )
    return [read_set(path, path.name) for path in found]


def _is_set(folder: Path) -> bool:
    """Either will do, so that the other one is named when it is missing."""
    return (folder / "params.yaml").is_file() or (folder / "metrics").is_dir()


def render(results: Sequence[Results], controls: Sequence[Table] = ()) -> str:
    """The page. Everything that comes from files is escaped.

    controls: tables that compare the sets, from `read_control_tables`.
    """
    environment = Environment(
        loader=PackageLoader("regrow", ""),
        autoescape=True,  # by file ending, as is the default of others, `.j2` would not be
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        results=results,
        controls=controls,
        models=", ".join(dict.fromkeys(one.model for one in results)),
        differing=differing(results),
        claims=list(dict.fromkeys(name for one in results for name in one.claims)),
        cannot_say=CANNOT_SAY,
    )


def differing(results: Sequence[Results]) -> Table:
    """The parameters in which sets differ: a row a key, a column a set."""
    keys = dict.fromkeys(key for one in results for key in one.values)
    rows = []
    for key in keys:
        values = [one.values.get(key, "not set") for one in results]
        if len(set(values)) > 1:
            rows.append([Cell(key), *map(Cell, values)])
    return Table(
        "The parameters in which the sets differ",
        ["Parameter", *(one.name for one in results)],
        rows,
        note="" if rows else "None: all sets have the same parameters.",
        words=True,
    )


def read_set(folder: Path, name: str) -> Results:
    """Read one set of results; a file that is missing or broken is a `UserError` that names it."""
    text, params = _read_yaml(folder / "params.yaml")
    _, lock = _read_yaml(folder / "dvc.lock")
    metrics = folder / "metrics"
    comparison = _read_json(metrics / "comparison.json")
    with _in_form(metrics / "comparison.json"):
        places = {key: Place.of(cell) for key, cell in comparison["sweep"].items()}
        accuracy, below = accuracy_table(comparison), notes(dict(comparison))
    with _in_form(metrics / "claims.json"):
        claims = read_claims(_read_json(metrics / "claims.json"))
    with _in_form(metrics / "evidence" / "uncertainty.json"):
        uncertainty = _read_json(metrics / "evidence" / "uncertainty.json")
        measured = measure_tables(uncertainty, places)
    with _in_form(metrics / "evidence" / "paired.json"):
        paired = paired_table(_read_json(metrics / "evidence" / "paired.json"), places)
    elsewhere = metrics / "evidence" / "transfer.json"
    with _in_form(elsewhere):
        transfer = transfer_tables(_read_json(elsewhere)) if elsewhere.exists() else []
    with _in_form(folder / "dvc.lock"):
        stages = {
            stage: recorded
            for stage, recorded in lock["stages"].items()
            if _is_in_sweep(stage, params)
        }
        outputs, warnings = output_table(folder, stages)
        changed = changed_parameters(stages, params)
        code = code_table(stages)
    if changed:
        warnings.insert(
            0,
            "params.yaml is not what these results were made with; by dvc.lock it differs in "
            f"{', '.join(changed)}. Run make repro.",
        )
    return Results(
        name=name,
        model=_last_part(flat(params).get("model.source", CANNOT_SAY)),
        parameters=text,
        values=flat(params),
        warnings=warnings,
        set_up=set_up(flat(params), list(places.values())),
        claims=claims,
        accuracy=accuracy,
        notes=below,
        headlines=[measured[key] for key in HEADLINES if key in measured],
        measures=[table for key, table in measured.items() if key not in HEADLINES],
        paired=paired,
        transfer=transfer,
        figures=[
            *read_figures(folder / "plots", comparison),
            *training_figures(folder / "plots" / "training", places, params),
        ],
        versions=version_table(folder),
        outputs=outputs,
        code=code,
    )


@dataclass(frozen=True)
class Place:
    """Where in the grid a cell lies; `retention` is None where no file says it."""

    sparsity: float
    train_size: int
    retention: float | None

    @classmethod
    def of(cls, cell: Json) -> "Place":
        """From a cell of `metrics/comparison.json`."""
        return cls(cell["sparsity"], cell["train_size"], cell["retention"])

    @property
    def fields(self) -> list[Cell]:
        """The first fields of the cell's row, under `PLACE`."""
        kept = CANNOT_SAY if self.retention is None else f"{100 * self.retention:.1f} %"
        return [Cell(f"{self.sparsity:g}"), Cell(f"{self.train_size:,}"), Cell(kept)]


PLACE = ("Sparsity", "Train questions", "Parameters kept")


def label(method: str) -> str:
    """A method's name in words; of one that this module does not know, its key."""
    return ALL_STYLES[method].label if method in ALL_STYLES else method


def read_claims(judged: Json) -> dict[str, Claim]:
    """`metrics/claims.json` in words, by the claims' names."""
    return {
        name: Claim(
            says=claim["claim"],
            quantity=claim["quantity"],
            estimate=estimate(dict(claim)),
            verdict=claim["verdict"],
            why=claim["why"],
        )
        for name, claim in judged.items()
    }


def accuracy_table(comparison: Json) -> Table:
    """`metrics/comparison.json`: a row a cell, a column a method, and the difference."""
    cells = list(comparison["sweep"].values())
    return Table(
        "Test accuracy, %",
        [*PLACE, *map(label, METHODS), "KL - CE, points"],
        [
            [
                *Place.of(cell).fields,
                *(field(cell[method], "percent") for method in METHODS),
                field(cell["difference"], "percent", difference=True),
            ]
            for cell in cells
        ],
    )


def measure_tables(uncertainty: Json, places: Mapping[str, Place]) -> dict[str, Table]:
    """`metrics/evidence/uncertainty.json`: a table a measure, by the measure's key."""
    sweep = uncertainty["sweep"]
    return {
        measure: _measure_table(measure, sweep, places)
        for measure in dict.fromkeys(key for cell in sweep.values() for key in cell)
    }


def _measure_table(measure: str, sweep: Json, places: Mapping[str, Place]) -> Table:
    kind = MEASURES.get(measure)
    percent = kind is not None and not kind.unit and measure not in SCORES
    form = "percent" if percent else "choices" if kind and kind.unit == "choices" else "number"
    unit = "%" if percent else kind.unit if kind else ""
    words = kind.label if kind else measure
    better = f" ({kind.better} is better)" if kind and kind.better else ""
    given = GIVEN.get(measure, {})

    def fields(cell: Json) -> Iterator[Cell]:
        values = cell.get(measure, {})
        for method in METHODS:
            if method in given:
                yield Cell(f"{given[method]} by definition")
            else:
                yield field(values.get(method), form)
        yield field(values.get("difference"), form, difference=True)

    unit_of_gap = "points" if percent else unit
    return Table(
        f"{words[:1].upper()}{words[1:]}{f', {unit}' if unit else ''}{better}",
        [*PLACE, *map(label, METHODS), f"KL - CE{f', {unit_of_gap}' if unit_of_gap else ''}"],
        [[*_place(key, places).fields, *fields(cell)] for key, cell in sweep.items()],
    )


def paired_table(paired: Json, places: Mapping[str, Place]) -> Table:
    """`metrics/evidence/paired.json`: a row a cell."""
    kind = MEASURES.get(paired["measure"])
    rows = [
        [
            *_place(key, places).fields,
            field(cell["difference"], "percent", difference=True),
            Cell(_count(cell["only_distill_right"])),
            Cell(_count(cell["only_finetune_right"])),
            Cell(_p(cell["p"])),
            Cell(_p(cell["holm_p"])),
            Cell(cell["verdict"]),
            Cell(CANNOT_SAY if cell["detectable"] is None else f"{100 * cell['detectable']:.1f}"),
        ]
        for key, cell in paired["sweep"].items()
    ]
    return Table(
        f"KL against cross-entropy on the same questions: {kind.label if kind else ''}",
        [
            *PLACE,
            "KL - CE, points",
            "Only KL right",
            "Only CE right",
            "p",
            "p, Holm",
            "Verdict",
            "Detectable, points",
        ],
        rows,
        note=(
            "p: exact, two-sided, paired by question; Holm: adjusted for all cells of the grid. "
            f"Verdict at a margin of {100 * paired['margin']:g} points. Detectable: the smallest "
            "true difference that such a test finds in 4 of 5 repetitions."
        ),
    )


def transfer_tables(transfer: Json) -> list[Table]:
    """`metrics/evidence/transfer.json`: a table a measure, a row a set and cell."""
    changes = {"finetune_change": "CE - teacher", "distill_change": "KL - teacher"}
    forms = {"accuracy": ("Accuracy, %", "percent"), "kl": ("KL from the teacher, nats", "number")}
    tables = []
    for measure, (caption, form) in forms.items():
        first = next(iter(next(iter(transfer.values()))["sweep"].values()))[measure]
        methods = [method for method in METHODS if method in first]
        gaps = {key: words for key, words in changes.items() if key in first}
        rows = [
            [
                Cell(f"{name} (n = {of_set['questions']:,})"),
                *map(Cell, key.rsplit("-", 1)),
                *(field(cell[measure][method], form) for method in methods),
                *(
                    field(cell[measure][gap], form, difference=True)
                    for gap in ("difference", *gaps)
                ),
            ]
            for name, of_set in transfer.items()
            for key, cell in of_set["sweep"].items()
        ]
        head = ["Set", *PLACE[:2], *map(label, methods), "KL - CE", *gaps.values()]
        tables.append(Table(f"Other tasks: {caption}", head, rows))
    return tables


def read_control_tables(folder: Path) -> list[Table]:
    """`controls.json` of a folder of sets: the arms and the contrasts; none where there is none."""
    path = folder / "controls.json"
    if not path.exists():
        return []
    found = _read_json(path)
    with _in_form(path):
        arms = [
            [
                Cell(name),
                Cell(arm["study"]),
                Cell(f"{100 * arm['retention']:.1f} %"),
                field(arm["accuracy"], "percent"),
                field(arm["nll"], "choices"),
            ]
            for name, arm in found["arms"].items()
        ]
        contrasts = [
            [
                Cell(contrast["question"]),
                Cell(f"{contrast['arm']} - {contrast['other']}"),
                field(contrast["accuracy"], "percent", difference=True),
                field(contrast["nll"], "choices", difference=True),
                Cell(_p(contrast["p"])),
                Cell(_p(contrast["holm_p"])),
                Cell(contrast["verdict"]),
            ]
            for contrast in found["contrasts"]
        ]
        margin = f"{100 * found['margin']:g}"
    return [
        Table("Arms", ["Arm", "Set", "Parameters kept", "Accuracy, %", "NLL, nats"], arms),
        Table(
            "Contrasts, paired by question",
            [
                *("Question", "Difference", "Accuracy, points", "NLL, nats"),
                *("p", "p, Holm", "Verdict"),
            ],
            contrasts,
            note=(
                "p: exact, two-sided; Holm: adjusted for all contrasts. Verdict on accuracy at a "
                f"margin of {margin} points."
            ),
        ),
    ]


def field(value: Any, form: str, difference: bool = False) -> Cell:
    """An estimate with its interval; `cannot say` for null or what is not there.

    value: `{"estimate", "low", "high"}` or None. form: `percent` for fractions, shown in percent,
    `choices` for two decimals, `number` for three.
    """
    if value is None or value["estimate"] is None:
        return Cell(CANNOT_SAY)
    sign = "+" if difference else ""
    low, high = value["low"], value["high"]
    strong = difference and low is not None and high is not None and low * high > 0
    if form == "percent":
        return Cell(interval(value, sign), strong)
    digits = 2 if form == "choices" else 3
    ends = (
        "(no interval)"
        if low is None or high is None
        else f"[{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
    )
    return Cell(f"{value['estimate']:{sign}.{digits}f} {ends}", strong)


def _p(value: float | None) -> str:
    return CANNOT_SAY if value is None else "< 0.0001" if value < 0.0001 else f"{value:.3g}"


def _count(value: int | None) -> str:
    return CANNOT_SAY if value is None else f"{value:,}"


def _place(key: str, places: Mapping[str, Place]) -> Place:
    """The cell `S-N`, which the comparison may not hold."""
    if key in places:
        return places[key]
    sparsity, _, train_size = key.rpartition("-")
    return Place(float(sparsity), int(train_size), None)


def set_up(values: Mapping[str, str], places: Sequence[Place]) -> list[tuple[str, str]]:
    """The set-up in words: (what, how) by rows; `values` are the flat parameters.

    Parameters that no sentence here names come last, as they are.
    """
    named: set[str] = set()

    def the(key: str) -> str:
        named.add(key)
        return values.get(key, CANNOT_SAY)

    def source(key: str, sha256: str) -> str:
        digest = the(sha256)
        return the(key) + (f" (SHA-256 {digest})" if digest not in ("null", CANNOT_SAY) else "")

    def schedule(section: str) -> str:
        epochs = the(f"{section}.epochs")
        return (
            f"{epochs} epoch{'s' * (epochs != '1')} in batches of {the(f'{section}.batch_size')}, "
            f"AdamW, {the(f'{section}.schedule')} schedule after warm-up over a fraction of "
            f"{the(f'{section}.warmup')} of the steps, weight decay "
            f"{the(f'{section}.weight_decay')}, gradients clipped to norm "
            f"{the(f'{section}.max_grad_norm')}"
        )

    def positions(key: str) -> str:
        given = the(key)
        return {
            "answer": "at the positions of the answers",
            "all": "at all positions",
        }.get(given, f"positions: {given}")

    tuned = (
        f"learning rate {the('teacher.learning_rate')}, {positions('teacher.positions')}, "
        f"{schedule('teacher.training')}, seed {the('teacher.seed')}"
    )
    teacher = {
        "true": f"The model, fine-tuned on the train questions with their labels: {tuned}",
        "false": "The model as it is",
    }.get(the("teacher.finetune"), CANNOT_SAY)
    questions = source("data.source", "data.sha256")
    tests = source("data.test_source", "data.test_sha256")
    if tests not in ("null", CANNOT_SAY):
        questions += f"; test questions from {tests}"
    prompt = the("prompt.format")
    prompt += {
        "cloze": ": the choice's own words behind “Answer:” are scored",
        "letters": ": the choices are listed, and their letters behind “Answer:” are scored",
    }.get(prompt, "")
    score = {
        "l2": "the L2 norm of their weights",
        "random": "a random draw",
        "activation": "their activation norm times that of their output weights",
    }.get(the("prune.score"), the("prune.score"))
    kept = [place.retention for place in places if place.retention is not None]
    share = (
        f" ({100 * min(kept):.1f} to {100 * max(kept):.1f} % of all parameters kept)"
        if kept
        else ""
    )
    answers = {
        "labels": "the gold answers",
        CANNOT_SAY: "the gold answers",  # what there was before the parameter
        "teacher_choices": "the teacher's choices, without labels",
    }.get(the("finetune.labels"), the("finetune.labels"))
    recorded = the("teacher_logits.top_k")
    record = (
        "the teacher's whole distributions"
        if recorded == "null"
        else f"the teacher's {recorded} likeliest tokens, with the rest as one"
    )
    judged = {"raw": "accuracy", "per_character": "accuracy per character"}.get(
        the("compare.accuracy"), the("compare.accuracy")
    )
    rows = [
        ("Model", source("model.source", "model.sha256")),
        ("Teacher", teacher),
        ("Questions", questions),
        (
            "Splits",
            f"{the('data.train')} train, {the('data.calibration')} calibration and "
            f"{the('data.test')} test questions, seed {the('data.seed')}",
        ),
        ("Prompt", prompt),
        (
            "Pruning",
            f"MLP neurons by {score}, the same number in each layer, rounded to a multiple of "
            f"{the('prune.multiple_of')}, seed {the('prune.seed')}",
        ),
        ("Sparsities", the("sweep.sparsity") + share),
        ("Train sizes", the("sweep.train_size")),
        ("Seeds", the("sweep.seed")),
        ("Both losses", f"From the same pruned model: {schedule('training')}"),
        (
            "Cross-entropy",
            f"Learning rate {the('finetune.learning_rate')}, {positions('finetune.positions')}, "
            f"on {answers}",
        ),
        (
            "KL self-distillation",
            f"Learning rate {the('distill.learning_rate')}, temperature "
            f"{the('distill.temperature')}, {positions('teacher_logits.positions')}, from {record}",
        ),
        (
            "Comparison",
            f"By {judged}; intervals at confidence {the('compare.confidence')} from "
            f"{the('compare.resamples')} draws, seed {the('compare.seed')}; margin "
            f"{the('compare.margin')}",
        ),
        (
            "Run on",
            f"{the('compute.device')}, {the('compute.dtype')}, CPU threads: "
            f"{the('compute.threads')}",
        ),
    ]
    rest = [f"{key}: {value}" for key, value in values.items() if key not in named]
    return [*rows, *([("Further parameters", "; ".join(rest))] if rest else [])]


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested parameters by their dotted keys, in words: `null`, `true`, lists with commas."""
    if isinstance(values, Mapping):
        return {
            inner: text
            for key, value in values.items()
            for inner, text in flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: _words(values)}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _last_part(source: str) -> str:
    """A source's last part, as the name of a model: without revision and file ending."""
    name = source.rsplit("/", 1)[-1]
    return name.split("@")[0].removesuffix(".gguf")


def read_figures(plots: Path, comparison: Json) -> list[Figure]:
    """Every figure below `plots`, the known ones first; the SVG of one that is there twice.

    An image is never put into the page as markup: as an `img`, an SVG runs no script and loads
    nothing. `UserError` where the accuracies' figure is missing.
    """
    if not any((plots / f"accuracy.{kind}").is_file() for kind in ("svg", "png")):
        raise UserError(f"{plots / 'accuracy.svg'} is missing; {MISSING}")
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
    if stem in ("accuracy", "evidence/difference"):
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
    with _in_form(path):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        steps, losses = ([float(row[name]) for row in rows] for name in ("step", "loss"))
    return (steps, losses) if steps else None


def version_table(folder: Path) -> Table:
    """The versions that `constraints.txt` names: that of the set, or else of the project around it.

    What is installed where the page is written is not among them: it need not be what made the
    results, and the page would differ from machine to machine.
    """
    around = [folder, *folder.resolve().parents]
    place = next((one for one in around if (one / "constraints.txt").is_file()), None)
    pinned = {}
    if place is not None:
        for line in (place / "constraints.txt").read_text(encoding="utf-8").splitlines():
            name, equals, version = line.partition("==")
            if equals:
                pinned[name.strip().lower().replace("_", "-")] = version.split("#")[0].strip()
    origin = "Pinned in constraints.txt"
    if place is None:
        origin = "There is no constraints.txt"
    elif place != folder:
        origin += " of the project, which may be younger than these results"
    return Table(
        "Versions of libraries",
        ["Library", "Version"],
        [
            [Cell("Python"), Cell(CANNOT_SAY)],
            *([Cell(name), Cell(pinned.get(name, CANNOT_SAY))] for name in LIBRARIES),
        ],
        note=f"{origin}. No file of the results records the version of Python.",
        words=True,
    )


def output_table(folder: Path, stages: Json) -> tuple[Table, list[str]]:
    """What every stage wrote, by `dvc.lock`, and sentences on files here that are another's.

    Only results are looked at (`metrics/` and `plots/`), so that the page does not depend on
    whether data and models lie there too.
    """
    rows, warnings = [], []
    for stage, recorded in stages.items():
        for out in recorded.get("outs", []):
            state = _state(folder, out)
            if state == "differs":
                warnings.append(
                    f"{out['path']} is not the output that dvc.lock records of the stage {stage}. "
                    "Run make repro."
                )
            rows.append(
                [
                    Cell(stage),
                    Cell(str(out["path"])),
                    Cell(str(out.get("md5", CANNOT_SAY))),
                    Cell(_count(out.get("size"))),
                    Cell(state),
                ]
            )
    note = (
        "MD5, as DVC records it; “.dir” is the hash of a folder's listing. “Here”: whether the "
        "file beside this page's numbers is that output; data and models are not looked at."
    )
    head = ["Stage", "Output", "MD5", "Bytes", "Here"]
    return Table("Outputs, by dvc.lock", head, rows, note, words=True), warnings


def code_table(stages: Json) -> Table:
    """The code that the stages ran, by `dvc.lock`: a row a file and hash."""
    users: dict[tuple[str, str], list[str]] = {}
    for stage, recorded in stages.items():
        for dep in recorded.get("deps", []):
            if str(dep["path"]).startswith("src/"):
                key = (str(dep["path"]), str(dep.get("md5", CANNOT_SAY)))
                kind = stage.partition("@")[0]
                if kind not in users.setdefault(key, []):
                    users[key].append(kind)
    return Table(
        "Code, by dvc.lock",
        ["File", "MD5", "Stages"],
        [[Cell(path), Cell(md5), Cell(", ".join(of))] for (path, md5), of in sorted(users.items())],
        note="Code is named by hashes and not by a commit: any commit with these files is it.",
        words=True,
    )


def changed_parameters(stages: Json, params: Json) -> list[str]:
    """The parameters whose values in `params.yaml` are not those of `dvc.lock`, as dotted keys."""
    changed: dict[str, None] = {}
    for recorded in stages.values():
        for key, before in recorded.get("params", {}).get("params.yaml", {}).items():
            now: Any = params
            for part in str(key).split("."):
                now = now.get(part) if isinstance(now, Mapping) else None
            one, other = flat(before, str(key)), flat(now, str(key))
            changed |= {name: None for name in {**one, **other} if one.get(name) != other.get(name)}
    return sorted(changed)


def _is_in_sweep(stage: str, params: Json) -> bool:
    """False for an item of an earlier sweep, which DVC leaves in its lock file.

    `finetune@0.2-600-0` is an item of sparsity 0.2, 600 train questions and seed 0.
    """
    _, at, item = stage.partition("@")
    sweep = params.get("sweep")
    lists = [sweep.get(name) for name in SWEEP] if isinstance(sweep, Mapping) else []
    if not at or not lists or not all(isinstance(one, list) for one in lists):
        return True
    parts = [[str(value) for value in one or []] for one in lists]
    return item in parts[0] or item in map("-".join, product(*parts))


SWEEP = ("sparsity", "train_size", "seed")


def _state(folder: Path, out: Json) -> str:
    """Whether an output that `dvc.lock` names lies in `folder`: `the same`, `differs`, …"""
    path = PurePosixPath(str(out["path"]))
    if path.parts[0] not in ("metrics", "plots") or ".." in path.parts:
        return ""
    here = folder / path
    if not here.exists():
        return "not here"
    if out.get("hash") != "md5":
        return CANNOT_SAY
    return "the same" if _md5(here) == out["md5"] else "differs"


def _md5(path: Path) -> str:
    """The hash that DVC 3 gives a file, or a folder: that of the list of its files' hashes."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = {one.relative_to(path).as_posix(): one for one in path.rglob("*") if one.is_file()}
    listing = [{"md5": _md5(files[name]), "relpath": name} for name in sorted(files)]
    data = json.dumps(listing, sort_keys=True).encode()
    return f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir"


def _read_json(path: Path) -> Json:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path} is missing; {MISSING}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {MISSING}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; {MISSING}")
    return value


def _read_yaml(path: Path) -> tuple[str, Json]:
    """The text and the values of a YAML file.

    Not through the schema of `regrow.params`: results outlive it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = YAML(typ="safe", pure=True).load(text)
    except OSError:
        raise UserError(f"{path} is missing; {MISSING}") from None
    except Exception as error:  # the YAML reader's own, and whatever it trips over (see params.py)
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not YAML ({reason}); {MISSING}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no sections; {MISSING}")
    return text, values


@contextmanager
def _in_form(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file's values into a `UserError` that names the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not have the form that this version writes "
            f"({type(error).__name__}: {error}); {MISSING}"
        ) from None
