"""Results as they lie in a folder → one self-contained HTML page.

The page is a function of the files that it is made from: it holds no date, no path outside the
folder and nothing of the machine that writes it. What the results do not hold, it says it cannot
say. The template is `page.html.j2`; this module decides what the page says, the template how it
looks.

A set of results is a folder with `params.yaml`, `dvc.lock`, `metrics/` and `plots/`. The root of
the repository is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from regrow.commands.show import estimate, notes
from regrow.report.files import MISSING, Json, in_form, read_json
from regrow.report.images import Figure, read_figures, training_figures
from regrow.report.provenance import (
    changed_parameters,
    code_table,
    is_in_sweep,
    output_table,
    version_table,
)
from regrow.report.tables import (
    CANNOT_SAY,
    Cell,
    Place,
    Table,
    accuracy_table,
    measure_tables,
    paired_table,
    transfer_tables,
)
from regrow.report.words import flat, set_up
from regrow.support.errors import UserError
from regrow.support.files import read_yaml

HEADLINES = ("nll", "nll_scaled", "ece", "lac_size_0.1", "agreement", "recovery")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper as the page shows it: every part is text."""

    says: str
    quantity: str
    estimate: str
    verdict: str
    why: str


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
        loader=PackageLoader("regrow.report", ""),
        autoescape=True,  # by file ending, as is the default of others, `.j2` would not be
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
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
    params = read_yaml(folder / "params.yaml", MISSING)
    lock = read_yaml(folder / "dvc.lock", MISSING)
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    metrics = folder / "metrics" / "compare"
    comparison = read_json(metrics / "comparison.json")
    with in_form(metrics / "comparison.json"):
        places = {key: Place.of(cell) for key, cell in comparison["sweep"].items()}
        accuracy, below = accuracy_table(comparison), notes(dict(comparison))
    with in_form(metrics / "claims.json"):
        claims = read_claims(read_json(metrics / "claims.json"))
    with in_form(metrics / "measures.json"):
        measures = read_json(metrics / "measures.json")
        measured = measure_tables(measures, places)
    with in_form(metrics / "paired.json"):
        paired = paired_table(read_json(metrics / "paired.json"), comparison, places)
    elsewhere = metrics / "transfer.json"
    with in_form(elsewhere):
        transfer = transfer_tables(read_json(elsewhere)) if elsewhere.exists() else []
    with in_form(folder / "dvc.lock"):
        stages = {
            stage: recorded
            for stage, recorded in lock["stages"].items()
            if is_in_sweep(stage, params)
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


def _last_part(source: str) -> str:
    """A source's last part, as the name of a model: without revision and file ending."""
    name = source.rsplit("/", 1)[-1]
    return name.split("@")[0].removesuffix(".gguf")
