"""Choose a model for a device: those on the frontier that fit, best first."""

import math
from pathlib import Path

import typer

from regrow.device.choice import doubts, fitting, read_rows
from regrow.device.measure import describe_machine, machine_name
from regrow.report.files import in_form, read_json
from regrow.report.tables import DEVICE, file_fields


def main(
    max_mb: float = math.inf,
    min_decode: float = 0,
    max_memory: float = math.inf,
    threads: int = 1,
    metrics: Path = Path("edge/metrics/frontier.json"),
    measured: Path | None = None,
) -> None:
    """Print what fits, with what is uncertain of it; exit with 1 when nothing does.

    Args:
        max_mb: largest file, 10^6 bytes.
        min_decode: tokens a second, one by one.
        max_memory: peak resident memory, MB.
        threads: of the measurements: 1 or 2.
        metrics: what `judge` wrote.
        measured: a machine's measurements, else those of this one.
    """
    found = read_json(metrics)
    path = measured or Path("results/edge") / f"{machine_name(describe_machine())}.json"
    speeds = read_json(path) if measured or path.exists() else {}
    if not speeds and (min_decode > 0 or max_memory < math.inf):
        print(f"{path} does not exist: nothing is measured on this machine; run make measure.")
    with in_form(metrics):
        rows = read_rows(found, speeds, threads)
        fit = fitting(rows, max_mb, min_decode, max_memory)
    if not fit:
        smallest = min(rows, key=lambda row: row.megabytes)
        print(f"Nothing fits; the smallest file is {smallest.name} ({smallest.megabytes:.1f} MB).")
        raise typer.Exit(1)
    for row in fit:
        fields = zip(DEVICE, file_fields(row), strict=True)
        print("  ".join(f"{head}: {text}" for head, text in fields))
        for doubt in doubts(row, fit[0], min_decode):
            print(f"    {doubt}")
    if fit[0].accuracy["low"] <= found["longest_choice"]:
        print("None of them is clearly better than choosing the longest answer.")
