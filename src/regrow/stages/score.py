"""Score the choices of every question in the runtime."""

from pathlib import Path

from regrow.device.runtime import check_recorded
from regrow.device.score import check_scores, predictions, score_file
from regrow.device.tokens import read_asked
from regrow.evaluate.accuracy import summary
from regrow.evaluate.predictions import read_predictions, write_predictions
from regrow.support.files import write_json


def main(
    model: Path,
    record: Path,
    questions: Path,
    study: Path,
    check: int,
    workers: int,
    out: Path,
    metrics: Path,
) -> None:
    """Write the model's predictions by llama.cpp.

    In F32, --check questions (0: all) are scored and compared with those of transformers, which
    stand for the rest: the same numbers but for rounding, and two fifths of the time of all
    formats.

    Args:
        questions: the questions in tokens.
        study: the study's own predictions of this model.
        workers: questions scored side by side.
    """
    form = check_recorded(model, record)["format"]
    asked, known = read_asked(questions), read_predictions(study)
    if form == "F32" and check:
        check_scores(score_file(model, asked[:check], workers), asked, known, model)
        by_id = dict(zip(known.ids, known.log_probs, strict=True))
        scores = [list(by_id[question.id]) for question in asked]
    else:
        scores = score_file(model, asked, workers)
    found = predictions(asked, scores, known)
    write_predictions(out, found)
    write_json(metrics, summary(found))
