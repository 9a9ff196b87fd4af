"""TRL's GKD trainer as a contestant, on every question with each of its choices."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.training import RATE, counted
from benchmarks.worker import Prepared

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def theirs(settings: dict[str, Any]) -> Prepared:
    """TRL's GKD trainer: forward KL (beta 0), off-policy (lmbda 0), the teacher run at every step.

    It gets every question with each of its choices as a text of its own, tokenised before, in the
    order of this project's batches and as many questions a step; float32, no checkpointing of
    activations, the same optimizer. Its loss is the mean over the positions of all texts, with
    the whole distributions of the teacher. In this project's a context counts once and not once a
    choice. On the same texts both are equal, which is checked here.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer  # type: ignore[import-not-found]

    from regrow.model.folders import load_model, load_tokenizer
    from regrow.model.trees import build_trees, keep_branch
    from regrow.retrain.order import question_order
    from regrow.support.schema import Params
    from regrow.tasks.questions import read_questions

    params = Params.model_validate(settings["params"])
    torch.set_num_threads(params.compute.threads)
    load = (params.compute.dtype, params.compute.device)
    student = load_model(Path(settings["student"]), *load)
    teacher = load_model(Path(settings["teacher"]), *load)
    tokenizer = load_tokenizer(Path(settings["student"]))
    asked = read_questions(Path(settings["questions"]))
    trees = build_trees(tokenizer, asked, params.prompt.format)
    positions = params.teacher_logits.positions
    order = question_order(len(trees), len(trees), 1, 0)
    chains = [
        keep_branch(trees[place], branch)
        for place in order
        for branch in range(len(trees[place].branches))
    ]
    texts = [_text(chain, positions) for chain in chains]
    batch = params.training.batch_size
    step = sum(len(trees[place].branches) for place in order[:batch])
    padding = tokenizer.pad_token_id or 0

    class Marks(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    def trainer(rows: list[dict[str, list[int]]], size: int, accumulated: int) -> tuple[Any, Marks]:
        marks = Marks()
        config = GKDConfig(
            output_dir=f"{settings['scratch']}/trl",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type={"constant": "constant_with_warmup"}.get(
                params.training.schedule, params.training.schedule
            ),
            warmup_steps=params.training.warmup,
            weight_decay=params.training.weight_decay,
            max_grad_norm=params.training.max_grad_norm,
            optim="adamw_torch_fused",
            train_sampling_strategy="sequential",
            lmbda=0.0,
            beta=0.0,
            temperature=params.distill.temperature,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=params.compute.device == "cpu",
            dataloader_pin_memory=params.compute.device != "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        made = GKDTrainer(
            model=student,
            teacher_model=teacher,
            args=config,
            data_collator=lambda texts: _collate(texts, padding),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[marks],
        )
        return made, marks

    def timed(rows: list[dict[str, list[int]]], size: int, accumulated: int) -> float:
        made, marks = trainer(rows, size, accumulated)
        started = time.perf_counter()
        made.train()
        times = [started, *marks.times]
        first, last = counted(len(times))
        done = min(last * step, len(rows)) - first * step
        return done / (times[last] - times[first])

    whole, _ = trainer(texts[:step], step, 1)
    with torch.no_grad():
        loss = float(whole.compute_loss(student, _collate(texts[:step], padding)))
    sizes = [step // parts for parts in (1, 2, 5) if step % parts == 0]
    few = texts[: 2 * step]
    seconds = [1 / timed(few, size, step // size) for size in sizes]
    best = sizes[seconds.index(min(seconds))]

    def run() -> dict[str, Any]:
        return {"examples": timed(texts, best, step // best)}

    facts = {
        "batch_size": best,
        "accumulated": step // best,
        "batch_sizes": sizes,
        "seconds": seconds,  # an example
        "loss": loss,
        "loss_of_regrow": _loss(student, teacher, chains[:step], positions, params, settings),
    }
    return facts, run


def _text(chain: Any, positions: str) -> dict[str, list[int]]:
    """A context with one choice, and which of its tokens the loss is to predict."""
    tokens = [*chain.context, *chain.branches[0]]
    hidden = len(chain.context) if positions == "answer" else 0
    return {"input_ids": tokens, "labels": [-100] * hidden + tokens[hidden:]}


def _collate(texts: Sequence[dict[str, list[int]]], padding: int) -> dict[str, Any]:
    import torch

    longest = max(len(text["input_ids"]) for text in texts)

    def padded(name: str, value: int) -> torch.Tensor:
        return torch.tensor([text[name] + [value] * (longest - len(text[name])) for text in texts])

    lengths = [len(text["input_ids"]) for text in texts]
    mask = [[1] * length + [0] * (longest - length) for length in lengths]
    return {
        "input_ids": padded("input_ids", padding),
        "labels": padded("labels", -100),
        "attention_mask": torch.tensor(mask),
    }


def _loss(
    student: Any,
    teacher: Any,
    chains: Sequence[Any],
    positions: Any,
    params: Any,
    settings: dict[str, Any],
) -> float:
    """This project's KL against a whole record of the same texts, a mean over their positions."""
    import numpy as np
    import torch

    from regrow.distill.divergence import forward_kl
    from regrow.distill.reader import Record
    from regrow.distill.writer import record
    from regrow.model.forward import output_layer, row_logits
    from regrow.model.trees import flat_rows, pack
    from regrow.support.resume import Unfinished

    folder = Path(settings["scratch"]) / "loss"
    (folder / "state").mkdir(parents=True)
    ids = [str(number) for number in range(len(chains))]
    temperature = params.distill.temperature
    state = Unfinished(folder / "state", math.inf)
    record(teacher, ids, chains, positions, folder / "record", state)
    batch = pack(chains)
    picked = flat_rows(batch, chains, positions)
    with torch.no_grad():
        logits = row_logits(student.eval(), batch, picked)
        kept = Record(folder / "record", lambda: output_layer(teacher))
        rows = np.concatenate([kept.rows(identity) for identity in ids])
        targets = kept.targets(rows, temperature)
        return float(forward_kl(logits, targets)) / len(picked)
