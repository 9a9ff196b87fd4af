"""Print and draw the frontier: accuracy over bytes and over decoding speed."""

from pathlib import Path

from regrow.device.choice import read_rows
from regrow.device.measure import describe_machine, machine_name
from regrow.report.console import print_tables
from regrow.report.files import in_form, read_json
from regrow.report.parts import Table
from regrow.report.tables import DEVICE, VERDICTS, file_fields, verdict_fields


def main(
    metrics: Path = Path("edge/metrics/frontier.json"),
    measured: Path | None = None,
    threads: int = 1,
    plots: Path = Path("edge/plots"),
    markdown: bool = False,
) -> None:
    """Print every file, best first, and what the verdicts are; write the figure.

    Args:
        metrics: what `judge` wrote.
        measured: a machine's measurements, else those of this one.
        threads: of the measurements: 1 or 2.
        plots: the folder of the figure.
        markdown: print Markdown tables.
    """
    from regrow.device.figure import frontier_figure
    from regrow.plot.style import save

    found = read_json(metrics)
    path = measured or Path("results/edge") / f"{machine_name(describe_machine())}.json"
    speeds = read_json(path) if measured or path.exists() else {}
    with in_form(metrics):
        rows = read_rows(found, speeds, threads)
        tables = [
            Table("Models on the device", DEVICE, [file_fields(row) for row in rows]),
            Table("Verdicts", VERDICTS, [verdict_fields(one) for one in found["verdicts"]]),
        ]
        level = f"{100 * found['confidence']:g} %"
        levels = {name: found[name] for name in ("longest_choice", "chance")}
    said = "speeds are not measured here: make measure"
    if speeds:
        said = f"{threads} thread{'s' * (threads > 1)}, {speeds['machine']['processor']}"
    note = f"Bars: {level} bootstrap intervals over {found['questions']:,} test questions. {said}."
    save(frontier_figure(rows, levels, note), plots / "frontier")
    print_tables(tables, markdown)
    print(note)
    if found["without_teacher"]:
        print(f"No format of the teacher is of the bytes of {', '.join(found['without_teacher'])}.")
    print((plots / "frontier.png").as_posix())
