"""Split the data's source into train, calibration and test; questions and labels apart."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.sources.datasets import read_source
from regrow.sources.splits import Split, check_disjoint, split
from regrow.sources.uris import not_pinned, resolved
from regrow.support.errors import UserError
from regrow.support.files import replacing
from regrow.support.params import read_params
from regrow.support.schema import Data
from regrow.tasks.questions import Question, write_labels, write_questions


def main(
    questions: Annotated[Path, typer.Option(help="Folder to write the questions to.")],
    labels: Annotated[Path, typer.Option(help="Folder to write the labels to.")],
) -> None:
    """Write {train,calibration,test}.jsonl into both folders.

    The labels' folder also gets `teacher-true.jsonl`, the train labels again, and
    `teacher-false.jsonl`, which is empty. The stage `teacher` depends on the one that
    `teacher.finetune` names, so that a teacher that is not fine-tuned depends on no label.
    """
    ours, theirs = questions.resolve(), labels.resolve()
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise UserError("--questions and --labels must be two folders, neither inside the other")
    splits = draw(read_params().data)
    # Both are written before either is renamed.
    with replacing(questions) as questions_beside, replacing(labels) as labels_beside:
        questions_beside.mkdir()
        labels_beside.mkdir()
        for name, part in splits.items():
            write_questions(questions_beside / f"{name}.jsonl", part.questions)
            write_labels(labels_beside / f"{name}.jsonl", part.questions, part.answers)
        train = splits["train"]
        write_labels(labels_beside / "teacher-true.jsonl", train.questions, train.answers)
        write_labels(labels_beside / "teacher-false.jsonl", [], [])


def draw(data: Data) -> dict[str, Split]:
    """Read the sources that `data` names and draw its splits."""
    questions, answers = read_pinned(data.source, data.sha256, "data.source")
    if data.test_source is None:
        return split(
            questions,
            answers,
            train=data.train,
            calibration=data.calibration,
            test=data.test,
            seed=data.seed,
        )
    held_out, held_out_answers = read_pinned(data.test_source, data.test_sha256, "data.test_source")
    check_disjoint(questions, held_out)
    splits = split(
        questions,
        answers,
        train=data.train,
        calibration=data.calibration,
        test=0,
        seed=data.seed,
    )
    drawn = split(
        held_out,
        held_out_answers,
        train=0,
        calibration=0,
        test=data.test,
        seed=data.seed,
        source="data.test_source",
    )
    return splits | {"test": drawn["test"]}


def read_pinned(uri: str, sha256: str | None, key: str) -> tuple[list[Question], list[int]]:
    """Read the data set at `uri`, which the parameter `key` names, and say if it is not pinned."""
    with resolved(uri, sha256, key=key) as source:
        if notice := not_pinned(source, key):
            print(notice)
        return read_source(source.path)
