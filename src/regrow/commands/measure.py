"""Measure the study's files on this machine: size, memory, speed and energy."""

from pathlib import Path
from typing import Any

from regrow.device.files import EXACT
from regrow.device.measure import UNITS, describe_machine, machine_name, repeat
from regrow.device.runtime import check_recorded, library
from regrow.report.files import in_form, read_json
from regrow.support.errors import UserError
from regrow.support.files import write_json

REPETITIONS = 5


def main(
    models: Path = Path("edge/models"),
    records: Path = Path("edge/metrics/files"),
    out: Path = Path("results/edge"),
    again: bool = False,
) -> None:
    """Measure one file of each layout, 1 and 2 threads, in turn; write --out/MACHINE.json.

    Files whose tensors are equal in number, size and type run at the same speed, so that of the
    students of one sparsity one is measured in each format. Of the files in F32, which no device
    needs, only the teacher's is measured.

    Args:
        models: the folder of GGUF files.
        records: the folder of their records.
        out: the folder of measurements.
        again: measure what is measured too.
    """
    library()
    layouts: dict[str, list[str]] = {}
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(records.rglob("*.json")):
        name = path.relative_to(records).with_suffix("").as_posix()
        found[name] = dict(read_json(path))
        if found[name]["format"] != EXACT or name == f"teacher/{EXACT}":
            layouts.setdefault(found[name]["layout"], []).append(name)
    if not found:
        raise UserError(f"{records} holds no record of a file; `make edge` makes them")
    described = describe_machine()
    path = out / f"{machine_name(described)}.json"
    with in_form(path):
        known = dict(read_json(path)["layouts"]) if path.exists() else {}
    todo = {}
    for layout, names in layouts.items():
        if again or layout not in known:
            check_recorded(models / f"{names[0]}.gguf", records / f"{names[0]}.json")
            todo[layout] = models / f"{names[0]}.gguf"
    if todo:
        print(f"{len(todo)} files, {REPETITIONS} times, 1 and 2 threads.", flush=True)
        for layout, figures in repeat(todo, (1, 2), REPETITIONS).items():
            name = layouts[layout][0]
            of_file = {key: found[name][key] for key in ("format", "bytes")}
            known[layout] = {"measured": name, **of_file, "threads": figures}
        settings = {"repetitions": REPETITIONS, "units": UNITS}
        write_json(path, {"machine": described, **settings, "layouts": known})
    print(path.as_posix())
