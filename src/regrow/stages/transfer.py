"""Draw the questions of other tasks on which every model is scored too (evaluate.transfer)."""

from pathlib import Path

from regrow.sources.reading import read_pinned
from regrow.sources.splits import split
from regrow.support.files import replacing, write_json
from regrow.support.params import read_params
from regrow.tasks.questions import write_labels, write_questions


def main(out: Path) -> None:
    """Write {questions,labels}/NAME.jsonl for every set, and their names in sets.json."""
    params = read_params()
    sets = params.evaluate.transfer
    with replacing(out) as beside:
        for folder in ("questions", "labels"):
            (beside / folder).mkdir(parents=True)
        for name, wanted in sets.items():
            key = f"evaluate.transfer.{name}"
            source = read_pinned(wanted.source, wanted.sha256, f"{key}.source", wanted.columns)
            size = {f"{key}.questions": wanted.questions}
            [drawn] = split(source, size, params.data.seed, f"{key}.source")
            write_questions(beside / "questions" / f"{name}.jsonl", drawn.questions)
            write_labels(beside / "labels" / f"{name}.jsonl", drawn.questions, drawn.answers)
        # Also there when there is no set, for a folder needs a file to be kept.
        write_json(beside / "sets.json", {"sets": sorted(sets)})
