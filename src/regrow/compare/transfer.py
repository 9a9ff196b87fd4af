"""What retraining costs elsewhere: accuracy and distance to the teacher on other tasks' sets."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from regrow.compare.bootstrap import Interval
from regrow.compare.curves import Row
from regrow.compare.evidence import CellEvidence, Evidence, gather
from regrow.compare.study import LOSSES, Study, cells_of
from regrow.evaluate.predictions import TRANSFER
from regrow.support.files import as_json
from regrow.support.schema import Compare, Sweep

UNION = "all sets"  # no set can have this name, for names of sets hold no space
FIRST_STREAM = 2  # of the draws; 0 and 1 are those of the test and the calibration questions
Transfer = dict[str, dict[str, Any]]
"""By set: `questions`, `chance`, and by cell, measure and method the ends of an interval."""


def transfer_json(study: Study, sweep: Sweep, settings: Compare) -> Transfer:
    """`transfer.json`: by set, cell and measure, each method, distill - finetune, and what was
    forgotten, distill - teacher and finetune - teacher.

    `kl` is from the teacher's distribution over the choices, in nats; the set `UNION` is all sets.
    """
    splits = sorted({one for one in study["teacher"].splits if one.startswith(TRANSFER)})
    groups = {split.removeprefix(TRANSFER): [split] for split in splits}
    if len(groups) > 1:
        groups[UNION] = splits
    found: Transfer = {}
    for stream, (name, members) in enumerate(groups.items(), start=FIRST_STREAM):
        evidence = gather(study, sweep, settings, ("accuracy", "kl"), members, stream)
        found[name] = {
            "questions": evidence.questions,
            "chance": as_json(evidence.chance),
            "sweep": {str(cell.place): as_json(_cell(evidence, cell)) for cell in evidence.cells},
        }
    return found


def transfer_rows(transfer: Transfer, sweep: Sweep) -> list[Row]:
    """The same as lines of a CSV file: a line a set, cell, measure and method or difference."""
    return [
        {"set": name, **asdict(cell), "measure": measure, "method": method}
        | {**ends, "questions": of_set["questions"]}
        for name, of_set in transfer.items()
        for cell in cells_of(sweep)
        for measure, methods in of_set["sweep"][str(cell)].items()
        for method, ends in methods.items()
    ]


def _cell(evidence: Evidence, cell: CellEvidence) -> dict[str, Mapping[str, Interval]]:
    accuracies = {method: samples["accuracy"] for method, samples in cell.methods.items()}
    changes = {
        f"{loss}_change": evidence.interval(
            "accuracy", accuracies[loss] - accuracies["teacher"], paired=True
        )
        for loss in LOSSES
    }
    return {**cell.intervals, "accuracy": {**cell.intervals["accuracy"], **changes}}
