"""What each rank of `test_ranks` runs: a list of cases, so that processes start once for many."""

import json
import math
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from conftest import PARAMS
from regrow.distill.divergence import distillation_task
from regrow.distill.reader import Record
from regrow.evaluate.predict import Part, predict
from regrow.evaluate.predictions import write_predictions
from regrow.model.folders import save_model
from regrow.model.forward import read_output_layer
from regrow.model.setup import open_model
from regrow.model.trees import build_trees
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.order import question_order
from regrow.retrain.trainer import train
from regrow.support import ranks
from regrow.support.resume import Unfinished
from regrow.support.schema import Compute, Training
from tiny_models import QUESTIONS

SETTINGS = Training(
    batch_size=5,
    epochs=1,
    steps=None,
    warmup=0.25,
    schedule="linear",
    weight_decay=0.1,
    max_grad_norm=1.0,
)
ANSWERS = [place % len(question.choices) for place, question in enumerate(QUESTIONS)]
# Steps of 5, 5 and 1 questions: with four ranks, some have none in the last step.
ORDER = question_order(7, 7, 2, 0)[:11]


def run(case: dict[str, Any], folder: Path) -> None:
    """Train (or evaluate) as a case says, and keep what came out."""
    compute = Compute(**(PARAMS["compute"] | {"processes": ranks.world()} | case["compute"]))
    model, tokenizer = open_model(folder / "models" / case["model"], compute, 0)
    assert isinstance(model, FSDPModule) == (compute.shard and ranks.world() > 1)
    if ranks.world() > 1:
        assert torch.distributed.get_world_size() == ranks.world() == compute.processes
    out = folder / "out" / case["name"]
    trees = build_trees(tokenizer, QUESTIONS, "cloze")
    if case["loss"] == "evaluate":
        part = Part("test", QUESTIONS, ANSWERS)
        found = predict(model, tokenizer, [part], "cloze")
        if ranks.first():
            write_predictions(out / "predictions.parquet", found)
        return
    if case["loss"] == "ce":
        task = finetuning_task(trees, ANSWERS, "all")
    else:
        teacher = folder / "models" / "teacher"
        record = Record(folder / "record", partial(read_output_layer, teacher, "float32", "cpu"))
        ids = [question.id for question in QUESTIONS]
        task = distillation_task(trees, ids, record, 1.0, "forward_kl")
    state = Unfinished(out / "state", math.inf)
    train(model, task, ORDER, 1e-3, SETTINGS, compute, 0, out / "log", state)
    save_model(model, tokenizer, out / "model")
    ranks.wait()
    if ranks.first():
        shutil.rmtree(out / "state", ignore_errors=True)


def main(folder: Path) -> None:
    """Run the cases of a file on all ranks."""
    cases = json.loads((folder / f"cases-{ranks.world()}.json").read_text(encoding="utf-8"))
    for case in cases:
        run(case, folder)
    ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
