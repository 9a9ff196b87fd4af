"""The device's frontier and verdicts, where a set of results has them."""

from regrow.device.choice import HEAD, VERDICTS, read_rows, row_fields, verdict_fields
from regrow.report.files import Source, in_form, read_json
from regrow.report.images import figure
from regrow.report.parts import Cell, Note, Part, Section, Table


def on_the_device(source: Source) -> Section | None:
    """What `judge` wrote below edge/, with the speeds of each machine that measured, by one thread.

    None for results without it.
    """
    path = source.folder / "edge" / "metrics" / "frontier.json"
    if not path.exists():
        return None
    found = read_json(path)
    machines = sorted((source.folder / "results" / "edge").glob("*.json"))
    parts: list[Part] = []
    for measured in [read_json(machine) for machine in machines] or [{}]:
        with in_form(path):
            rows = [list(map(Cell, row_fields(row))) for row in read_rows(found, measured, 1)]
            on = f" on {measured['machine']['processor']}" if measured else ""
        note = (
            "One thread of llama.cpp; noisy: repetitions differ by more than 15 % of the median."
            if measured
            else "Speeds are not measured: run make measure."
        )
        parts.append(Table(f"Models on the device{on}, best first", HEAD, rows, note))
    with in_form(path):
        verdicts = [list(map(Cell, verdict_fields(one))) for one in found["verdicts"]]
    parts.append(Table("Verdicts, Holm over all of them", VERDICTS, verdicts, look="words"))
    drawn = source.folder / "edge" / "plots" / "frontier.svg"
    if drawn.exists():
        parts.append(figure(drawn, source))
    if found["without_teacher"]:
        names = ", ".join(found["without_teacher"])
        parts.append(Note(f"No format of the teacher is of the bytes of {names}."))
    parts.append(Note(f"{found['questions']:,} test questions; docs/edge.md says how it was done."))
    return Section("device", "On the device", parts)
