"""Judge the device's files: the frontier over bytes, and verdicts with intervals."""

from pathlib import Path

from regrow.device.files import EXACT, read_files
from regrow.device.frontier import frontier_json
from regrow.support.files import read_yaml, write_json
from regrow.support.params import read_params


def main(params: Path, edge: Path, runs: Path, predictions: Path, records: Path, out: Path) -> None:
    """Write accuracy, size and verdicts of every model in every format.

    Args:
        params: the study's params.yaml.
        edge: the pipeline's params.yaml, with the formats.
        runs: YAML file of the runs on the device.
        records: the folder of the files' records.
    """
    study = read_params(params)
    formats = read_yaml(edge, "write the formats there")
    common = [EXACT, *formats["formats"]]
    files, test = read_files(
        predictions,
        records,
        read_yaml(runs, "`make edge` makes it")["runs"],
        {"students": common, "teacher": [*common, *formats["teacher_formats"]]},
        study.sweep,
        study.compare,
    )
    write_json(out, frontier_json(files, test, study.compare))
