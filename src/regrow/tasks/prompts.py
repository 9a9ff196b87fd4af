"""The OLMES prompt formats: what a model reads before a choice, and what stands for the choice.

Source: Gu et al. 2024, "OLMES: A Standard for Language Model Evaluations", arXiv 2406.08446,
without shots. `cloze` asks for the choice's own words; `letters` lists the choices and asks for
a letter.
"""

from string import ascii_uppercase
from typing import Literal

from regrow.support.errors import UserError
from regrow.tasks.questions import Question

Format = Literal["cloze", "letters"]


def context(question: Question, format: Format) -> str:
    """Return the text before the choice, the same for every choice; it ends in "Answer:".

    Raises `UserError` for `letters` with more choices than letters.
    """
    if format == "cloze":
        return f"Question: {question.stem}\nAnswer:"
    pairs = zip(_letters(question), question.choices, strict=True)
    listed = "".join(f" {letter}. {choice}\n" for letter, choice in pairs)
    return f"Question: {question.stem}\n{listed}Answer:"


def continuations(question: Question, format: Format) -> list[str]:
    """Return, for each choice in order, what follows the context; each begins with a space.

    Raises `UserError` for `letters` with more choices than letters.
    """
    answers = question.choices if format == "cloze" else _letters(question)
    return [f" {answer}" for answer in answers]


def _letters(question: Question) -> str:
    count = len(question.choices)
    if count > len(ascii_uppercase):
        raise UserError(
            f"question {question.id!r} has {count} choices, but the prompt format letters has only "
            f"A to Z; set prompt.format to cloze"
        )
    return ascii_uppercase[:count]
