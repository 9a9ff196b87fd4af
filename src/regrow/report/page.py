"""Results as they lie in a folder → one self-contained HTML page.

The page is a function of the files that it is made from: it holds no date, no path outside the
folder and nothing of the machine that writes it. This room decides what it says, `page.html.j2`
how it looks. A set of results is a folder with `params.yaml`, `dvc.lock`, `metrics/` and `plots/`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from regrow.report import tables
from regrow.report.files import Json, Source, in_form, read_json
from regrow.report.images import figures
from regrow.report.parts import Field, Part, Section, Table
from regrow.report.provenance import provenance, warnings
from regrow.report.set_up import flat, set_up
from regrow.report.words import CANNOT_SAY, estimate
from regrow.support.errors import UserError

SECTIONS: Sequence[tuple[str, str, str, Callable[[Source, Json], Iterable[Part]]]] = (
    ("summary", "Summary", "summary", tables.summary),
    ("claims", "Claims and verdicts", "claims", tables.claims),
    ("accuracy", "Accuracy", "comparison", tables.accuracy),
    ("paired", "Paired tests", "paired", tables.tests),
    ("uncertainty", "Uncertainty", "measures", tables.uncertainty),
    ("transfer", "What it costs elsewhere", "transfer", tables.elsewhere),
    ("device", "On the device", "frontier", tables.on_the_device),
    ("figures", "Figures", "comparison", figures),
    ("set-up", "Set-up", "params", set_up),
    ("versions", "Versions and hashes", "lock", provenance),
)
"""The page, top to bottom: target of links, title, file that it is of, function."""
OPTIONAL = ("summary", "transfer", "frontier")  # files without which their section is left out


class Results(NamedTuple):
    """What the page says of one set of results.

    name: the folder's, and empty where the page holds one set. values: the flat parameters.
    warnings: sentences on files that do not belong together. claims: as `claims.json` has them.
    """

    name: str
    model: str
    values: Mapping[str, str]
    warnings: Sequence[str]
    claims: Json
    sections: Sequence[Section]


def read_results(folder: Path) -> list[Results]:
    """Read the set of results in `folder`, or those in its direct subfolders, by name."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one that holds results")
    if _is_set(folder):
        return [read_set(folder, name="")]
    # A hidden one is being written, or was left behind half written.
    found = [path for path in sorted(folder.glob("[!.]*")) if path.is_dir() and _is_set(path)]
    if not found:
        raise UserError(
            f"{folder} holds no results: neither it nor a folder in it has params.yaml and "
            "metrics/; run `make repro`, or name a folder of results"
        )
    return [read_set(path, path.name) for path in found]


def read_set(folder: Path, name: str) -> Results:
    """Read one set of results; a file that is missing or broken is a `UserError` that names it."""
    source, sections = Source(folder), []
    values = flat(source.read("params"))
    for id_, title, file, parts in SECTIONS:
        if file not in OPTIONAL or source.path(file).exists():
            found = source.read(file)
            with in_form(source.path(file)):
                sections.append(Section(id_, title, list(parts(source, found))))
    # A source's last part is the model's name: without revision and file ending.
    model = values.get("model.source", CANNOT_SAY).rpartition("/")[2].partition("@")[0]
    model = model.removesuffix(".gguf")
    return Results(name, model, values, warnings(source), source.read("claims"), sections)


def read_control_tables(folder: Path) -> list[Table]:
    """The tables of `controls.json` in a folder of sets; none where there is none."""
    path = folder / "controls.json"
    with in_form(path):
        return tables.control_tables(read_json(path)) if path.exists() else []


def render(results: Sequence[Results], across_sets: Sequence[Table] = ()) -> str:
    """The page, with tables that compare the sets. Everything that comes from files is escaped."""
    environment = Environment(
        loader=PackageLoader("regrow.report", ""),
        autoescape=True,  # by file ending, as is the default of others, `.j2` would not be
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    across = []
    if len(results) > 1:
        across.append(Section("overview", "All sets", [_overview(results), _differing(results)]))
        if across_sets:
            across.append(Section("controls", "Controls", across_sets))
    return environment.get_template("page.html.j2").render(
        results=results,
        across=across,
        models=", ".join(dict.fromkeys(one.model for one in results)),
        cannot_say=CANNOT_SAY,
    )


def _differing(results: Sequence[Results]) -> Table:
    """The parameters in which sets differ: a row a key, a column a set."""
    keys = dict.fromkeys(key for one in results for key in one.values)
    rows = [[key, *(one.values.get(key, "not set") for one in results)] for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    note = "" if rows else "None: all sets have the same parameters."
    head = ["Parameter", *(one.name for one in results)]
    return Table("The parameters in which the sets differ", head, rows, note, "words")


def _overview(results: Sequence[Results]) -> Table:
    """A row a claim, a column a set."""

    def said(claim: Json | None) -> str | Field:
        return Field(estimate(claim), verdict=claim["verdict"]) if claim else CANNOT_SAY

    says = {name: claim["claim"] for one in results for name, claim in one.claims.items()}
    rows = [[text, *(said(one.claims.get(name)) for one in results)] for name, text in says.items()]
    head = ["The paper's claim", *(one.name for one in results)]
    return Table("Verdicts and estimates of all sets", head, rows, look="words")


def _is_set(folder: Path) -> bool:
    # Either will do, so that the other one is named when it is missing.
    return (folder / "params.yaml").is_file() or (folder / "metrics").is_dir()
