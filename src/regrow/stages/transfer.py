"""Draw the questions of other tasks on which every model is scored too (evaluate.transfer)."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.sources.splits import split
from regrow.stages.questions import read_pinned
from regrow.support.errors import UserError
from regrow.support.files import replacing, write_json
from regrow.support.params import read_params
from regrow.tasks.questions import write_labels, write_questions


def main(out: Annotated[Path, typer.Option(help="Folder to write the sets to.")]) -> None:
    """Write {questions,labels}/NAME.jsonl for every set, and their names in sets.json."""
    params = read_params()
    sets = params.evaluate.transfer
    with replacing(out) as beside:
        for folder in ("questions", "labels"):
            (beside / folder).mkdir(parents=True)
        for name, wanted in sets.items():
            key = f"evaluate.transfer.{name}"
            questions, answers = read_pinned(wanted.source, wanted.sha256, f"{key}.source")
            if wanted.questions > len(questions):
                raise UserError(
                    f"{key}.questions is {wanted.questions}, but its source holds only "
                    f"{len(questions)}; lower it"
                )
            drawn = split(
                questions,
                answers,
                train=0,
                calibration=0,
                test=wanted.questions,
                seed=params.data.seed,
            )["test"]
            write_questions(beside / "questions" / f"{name}.jsonl", drawn.questions)
            write_labels(beside / "labels" / f"{name}.jsonl", drawn.questions, drawn.answers)
        # Also there when there is no set, for a folder needs a file to be kept.
        write_json(beside / "sets.json", {"sets": sorted(sets)})
