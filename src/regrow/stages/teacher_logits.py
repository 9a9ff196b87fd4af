"""Record the teacher's distributions over the train questions, and its choices."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.distill.writer import record
from regrow.evaluate.ranking import first_ranked
from regrow.model.folders import load_model, load_tokenizer
from regrow.model.runtime import fix_runtime
from regrow.model.trees import build_trees
from regrow.support.files import replacing
from regrow.support.params import read_params
from regrow.support.resume import unfinished
from regrow.tasks.prompts import continuations
from regrow.tasks.questions import read_questions, write_labels


def main(
    teacher: Annotated[Path, typer.Option(help="the teacher's folder")],
    questions: Annotated[Path, typer.Option(help="train questions; no labels")],
    out: Annotated[Path, typer.Option(help="the record's folder")],
    choices: Annotated[Path, typer.Option(help="file for what the teacher answers, as labels")],
) -> None:
    """Record the teacher's distributions over the train questions, and its choices."""
    params = read_params()
    fix_runtime(params.compute, 0)
    model = load_model(teacher, params.compute.dtype, params.compute.device)
    asked = read_questions(questions)
    trees = build_trees(load_tokenizer(teacher), asked, params.prompt.format)
    made_with = [params.compute, params.prompt.format, params.teacher_logits]
    interval = params.resume.interval
    with unfinished(out, [teacher, questions], made_with, interval) as state:
        scores = record(
            model,
            [question.id for question in asked],
            trees,
            params.teacher_logits.positions,
            params.teacher_logits.top_k,
            params.teacher_logits.temperatures,
            out,
            state,
        )
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
