"""Record the teacher's distributions over the train questions, and its choices."""

from pathlib import Path

from regrow.distill.writer import record
from regrow.evaluate.ranking import first_ranked
from regrow.model.setup import open_model, read_trees
from regrow.support import ranks
from regrow.support.files import replacing
from regrow.support.params import read_params
from regrow.support.resume import unfinished
from regrow.tasks.prompts import continuations
from regrow.tasks.questions import write_labels


def main(teacher: Path, questions: Path, out: Path, choices: Path) -> None:
    """Write the record to --out, and what the teacher answers, as labels are, to --choices."""
    params = read_params()
    model, tokenizer = open_model(teacher, params.compute, 0)
    asked, trees = read_trees(questions, tokenizer, params.prompt.format)
    made_with = [params.compute, params.prompt.format, params.teacher_logits]
    interval = params.resume.interval
    with unfinished(out, [teacher, questions], made_with, interval) as state:
        scores = record(
            model,
            [question.id for question in asked],
            trees,
            params.teacher_logits.positions,
            out,
            state,
        )
    if not ranks.first():
        return
    lengths = [
        [len(text) - 1 for text in continuations(question, params.prompt.format)]
        for question in asked
    ]
    # As the primary metric ranks; letters are all of one length.
    answers = first_ranked(scores, lengths, "per_character")
    with replacing(choices) as beside:
        write_labels(beside, asked, answers.tolist())
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {len(asked)} questions, {size / len(asked):,.0f} bytes a question")
