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
    ids, settings = [question.id for question in asked], params.teacher_logits
    inputs, made_with = [teacher, questions], [params.compute, params.prompt.format, settings]
    with unfinished(out, inputs, made_with, params.resume.interval) as state:
        scores = record(model, ids, trees, settings.positions, out, state)
    if not ranks.first():
        return
    choices_of = [continuations(question, params.prompt.format) for question in asked]
    lengths = [[len(text) - 1 for text in texts] for texts in choices_of]
    # As the primary metric ranks; letters are all of one length.
    answers = first_ranked(scores, lengths, "per_character")
    with replacing(choices) as beside:
        write_labels(beside, asked, answers.tolist())
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {len(asked)} questions, {size / len(asked):,.0f} bytes a question")
