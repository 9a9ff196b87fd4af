"""Score a model's choices on the calibration and test questions, and on other tasks' sets."""

from pathlib import Path

from regrow.evaluate.accuracy import summary
from regrow.evaluate.predict import predict, read_part, read_transfer
from regrow.evaluate.predictions import SPLITS, write_predictions
from regrow.model.setup import open_model
from regrow.support import ranks
from regrow.support.files import write_json
from regrow.support.params import read_params
from regrow.support.resume import unfinished


def main(
    model: Path, questions: Path, labels: Path, transfer: Path, predictions: Path, metrics: Path
) -> None:
    """Write predictions (parquet) and plain numbers (JSON) over the files of these folders."""
    params = read_params()
    scored, tokenizer = open_model(model, params.compute, 0)
    parts = [read_part(questions, labels, split) for split in SPLITS]
    for path in sorted(transfer.glob("questions/*.jsonl")):
        parts.append(read_transfer(transfer, path.stem))
    inputs, made_with = [model, questions, labels, transfer], [params.compute, params.prompt.format]
    with unfinished(predictions, inputs, made_with, params.resume.interval) as state:
        found = predict(scored, tokenizer, parts, params.prompt.format, state)
        if ranks.first():
            write_predictions(predictions, found)
            write_json(metrics, summary(found))
