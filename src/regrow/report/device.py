"""The device's frontier and verdicts, where a set of results has them."""

from collections.abc import Iterator

from regrow.report.files import Json, Source, read_json
from regrow.report.images import figure
from regrow.report.parts import Part, Table

NOISE = "One thread of llama.cpp; noisy: repetitions differ by more than 15 % of the median."
UNMEASURED = "Speeds are not measured: run make measure."


def on_the_device(source: Source, found: Json) -> Iterator[Part]:
    """What `judge` wrote below edge/, with the speeds of each machine that measured."""
    # It stands on rooms that load SciPy, which other results do without.
    from regrow.device.choice import HEAD, VERDICTS, read_rows, row_fields, verdict_fields

    machines = sorted((source.folder / "results" / "edge").glob("*.json"))
    for measured in [read_json(machine) for machine in machines] or [{}]:
        on = f" on {measured['machine']['processor']}" if measured else ""
        rows = [row_fields(row) for row in read_rows(found, measured, 1)]
        note = NOISE if measured else UNMEASURED
        yield Table(f"Models on the device{on}, best first", HEAD, rows, note)
    verdicts = [verdict_fields(one) for one in found["verdicts"]]
    yield Table("Verdicts, Holm over all of them", VERDICTS, verdicts, look="words")
    drawn = source.folder / "edge" / "plots" / "frontier.svg"
    if drawn.exists():
        yield figure(drawn, source)
    if found["without_teacher"]:
        names = ", ".join(found["without_teacher"])
        yield f"No format of the teacher is of the bytes of {names}."
    yield f"{found['questions']:,} test questions; docs/edge.md says how it was done."
