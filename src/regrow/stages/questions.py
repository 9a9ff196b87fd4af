"""Split the data's source into train, calibration and test; questions and labels apart."""

from pathlib import Path

from regrow.sources.reading import read_pinned
from regrow.sources.splits import Labelled, check_disjoint, split
from regrow.support.errors import UserError
from regrow.support.files import replacing
from regrow.support.params import read_params
from regrow.support.schema import Data
from regrow.tasks.questions import write_labels, write_questions


def main(questions: Path, labels: Path) -> None:
    """Write {train,calibration,test}.jsonl into both folders.

    The labels' folder also gets `teacher-true.jsonl` and `distill-gold.jsonl`, the train labels
    again, and `teacher-false.jsonl` and `distill-all.jsonl`, which are empty. The stage `teacher`
    depends on the one that `teacher.finetune` names, and `distill` on that of `distill.branches`:
    a teacher that is not fine-tuned and a distillation on all branches depend on no label.
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
        train, nothing = splits["train"], Labelled([], [])
        for_teacher = {"teacher-true": train, "teacher-false": nothing}
        for_distill = {"distill-gold": train, "distill-all": nothing}
        for name, part in (splits | for_teacher | for_distill).items():
            write_labels(labels_beside / f"{name}.jsonl", *part)


def draw(data: Data) -> dict[str, Labelled]:
    """Read the sources that `data` names and draw its splits.

    With `data.test_source`, the end of `data.source` gives `held_out` questions more to the test
    split; without, it gives the test split as a whole.
    """
    source = read_pinned(data.source, data.sha256, "data.source", data.columns)
    sizes = {"data.train": data.train, "data.calibration": data.calibration}
    ends = {"data.test": data.test, "data.held_out": data.held_out}
    if data.test_source is None:
        end = " + ".join(key for key, size in ends.items() if size)
        train, calibration, test = split(source, sizes | {end: sum(ends.values())}, data.seed)
        return {"train": train, "calibration": calibration, "test": test}
    key = "data.test_source"
    test_source = read_pinned(data.test_source, data.test_sha256, key, data.columns)
    check_disjoint(source, test_source)
    sizes["data.held_out"] = data.held_out
    train, calibration, held_out = split(source, sizes, data.seed)
    [test] = split(test_source, {"data.test": data.test}, data.seed, key)
    test = Labelled(test.questions + held_out.questions, test.answers + held_out.answers)
    return {"train": train, "calibration": calibration, "test": test}
