"""The trainer that both losses share.

Fine-tuning and distillation differ in the `Task` they are given, and in nothing else: the trainer,
the questions, their order, the batches, the steps and the schedule are the same.
"""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dvclive.live import Live
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from regrow.model.forward import row_logits
from regrow.model.trees import Batch, Positions, Tree, flat_rows, pack
from regrow.support.errors import UserError, file_fault
from regrow.support.files import flush
from regrow.support.resume import Unfinished, fingerprints
from regrow.support.schema import Training

# The file that a checkpoint gets when all others are on the disk; it holds their hashes.
WHOLE = "whole"
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True, slots=True)
class Task:
    """What a batch of questions is trained on.

    Attributes:
        trees: a tree a question.
        positions: which nodes of a tree the loss reads, see `Tree.rows`.
        loss: from the logits [n, vocabulary] of these rows, and the questions' places in the
            order given, to the loss summed over the rows.
    """

    trees: Sequence[Tree]
    positions: Positions
    loss: Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


def train(
    model: Any,
    task: Task,
    order: Sequence[int],
    learning_rate: float,
    settings: Training,
    seed: int,
    log: Path,
    state: Unfinished,
) -> None:
    """Train `model` in place, from where an interrupted training of the same state stopped.

    Args:
        model: a causal language model of transformers.
        task: what to train on.
        order: places of the questions, as `question_order` gives them.
        learning_rate: the highest rate, reached after the warm-up.
        settings: batch size, schedule and clipping.
        seed: for dropout, should the model have any.
        log: a folder for DVCLive's files: loss and learning rate by step.
        state: keeps the last checkpoint.

    Raises:
        UserError: the loss is not a number.
    """
    arguments = TrainingArguments(
        output_dir=str(state.folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=1,
        learning_rate=learning_rate,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        seed=seed,
        use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=model.device.type != "cpu",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
    )
    callbacks = [LogToDVCLive(log), SaveWhenDue(state)]
    trainer = TaskTrainer(task, order, model=model, args=arguments, callbacks=callbacks)
    checkpoint = last_checkpoint(state.folder)
    if checkpoint is not None and (damaged := damage(checkpoint)) is not None:
        state.discard(damaged)
        checkpoint = None
    if checkpoint is not None:
        print(f"An interrupted training goes on from its {checkpoint.name}.", flush=True)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    model.eval()


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of `folder` to go on from; what was not saved whole is removed."""
    latest: Path | None = None
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:])):
        if not (path / WHOLE).is_file():
            shutil.rmtree(path)
            continue
        if latest is not None:  # stopped just before it was removed
            shutil.rmtree(latest)
        latest = path
    return latest


def damage(checkpoint: Path) -> Path | None:
    """A file of a checkpoint that is not as it was saved, if there is one."""
    try:
        saved = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except ValueError:
        return checkpoint / WHOLE
    found = fingerprints(checkpoint)
    del found[WHOLE]
    if saved == found:
        return None
    names = saved.keys() | found.keys() if isinstance(saved, dict) else {WHOLE}
    return checkpoint / min(
        name for name in names if name == WHOLE or saved.get(name) != found.get(name)
    )


def collate(task: Task, places: Sequence[int]) -> dict[str, Any]:
    """Pack the trees of the questions at `places`; rows [n] int64 are those the loss reads."""
    trees = [task.trees[place] for place in places]
    batch = pack(trees)
    rows = flat_rows(batch, trees, task.positions)
    return {"places": list(places), "batch": batch, "rows": rows}


class TaskTrainer(Trainer):
    """`transformers.Trainer`, with this project's batches, order and losses."""

    def __init__(self, task: Task, order: Sequence[int], **settings: Any) -> None:
        super().__init__(
            train_dataset=list(order),
            data_collator=lambda places: collate(task, places),
            **settings,
        )
        self.task = task
        self.order = order

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        # The order is part of the study (both losses share it), so it is made by
        # `question_order` and not by the trainer.
        return SequentialSampler(self.order)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # transformers writes a checkpoint where it is to be found, file by file. This one counts
        # once it is on the disk as a whole, and only then the one before it goes.
        folder = Path(str(self.args.output_dir))
        earlier = last_checkpoint(folder)
        written = folder / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            flush(written)
            beside = written / f"{WHOLE}.partial"
            beside.write_text(json.dumps(fingerprints(written)), encoding="utf-8")
            flush(beside)
            beside.replace(written / WHOLE)
            flush(written)
        except Exception as error:
            shutil.rmtree(written, ignore_errors=True)
            if said := file_fault(error, written):
                raise UserError(said) from error
            raise
        if earlier is not None and earlier != written:
            shutil.rmtree(earlier)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """The task's loss, averaged over the rows of the batch."""
        batch: Batch = inputs["batch"]
        rows: torch.Tensor = inputs["rows"]
        logits = row_logits(model, batch, rows)
        return self.task.loss(logits, inputs["places"]) / len(rows)


class SaveWhenDue(TrainerCallback):
    """Ask for a checkpoint after a step, when so many seconds have passed as the state says."""

    def __init__(self, state: Unfinished) -> None:
        self.unfinished = state

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save, unless the training is over anyway."""
        if self.unfinished.due() and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, *_: Any, **__: Any) -> None:
        """The next interval begins."""
        self.unfinished.saved()


class LogToDVCLive(TrainerCallback):
    """Loss, gradient norm and learning rate by step, in files that `dvc plots` draws.

    DVCLive's own callback also logs run times and the machine's paths, which differ from run to
    run and would make two equal runs look different. `Live.end` is not called: all files are
    written by then, and it leaves a thread behind that waits for DVC Studio. Nor is
    `Live.make_summary`: what it writes beside the curves is no curve, of which `dvc plots` warns.
    """

    METRICS = ("loss", "grad_norm", "learning_rate")

    def __init__(self, folder: Path) -> None:
        self.live: Any = Live(
            str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write again what an interrupted training had logged by its checkpoint."""
        for logs in state.log_history:
            self._log(int(logs["step"]), logs)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write one step's metrics; stop at once on a loss or gradient that is not a number.

        The trainer logs a step before it saves it: what is saved had a finite loss, and a finite
        gradient led to it.
        """
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        for name, words in (("loss", "loss"), ("grad_norm", "gradient's norm")):
            if not np.isfinite(logs[name]):
                raise UserError(
                    f"the {words} is {logs[name]} at step {state.global_step} of "
                    f"{state.max_steps}, at a learning rate of {logs['learning_rate']:.3g}; lower "
                    "the learning rate"
                )
        self._log(state.global_step, logs)

    def _log(self, step: int, logs: dict[str, float]) -> None:
        self.live.step = step
        for name in self.METRICS:
            self.live.log_metric(name, logs[name])


logging.getLogger("dvclive").setLevel(logging.ERROR)
