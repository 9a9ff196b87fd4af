"""The loop that both losses share, on one process or many.

Fine-tuning and distillation differ in the `Task` they are given, and in nothing else: the loop,
the questions, their order, the batches, the steps and the schedule are the same. So are they for
any number of ranks: the batch of a step is the study's, however it is cut into ranks and
micro-batches.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch.nn.parallel import DistributedDataParallel

from regrow.model.forward import read_rows
from regrow.model.parts import summed_in_parts
from regrow.model.trees import Positions, Tree, flat_rows, pack
from regrow.retrain.checkpoint import MOMENTS, Logged, load_checkpoint, save_checkpoint
from regrow.support import ranks
from regrow.support.errors import UserError
from regrow.support.resume import Unfinished
from regrow.support.schema import Compute, Training

# Rows whose logits are in memory at once: enough for matrix products to run at full speed.
PART_ROWS = 128
METRICS = ("loss", "grad_norm", "learning_rate")


class DivergedError(UserError):
    """A training whose loss or gradient is no number: its rate is too high."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a batch of questions is trained on."""

    trees: Sequence[Tree]  # one a question
    positions: Positions  # which nodes of a tree the loss reads, see `Tree.rows`
    # From the logits [n, vocabulary] of these rows, and the questions' places in the order given,
    # to the loss summed over the rows.
    loss: Callable[[torch.Tensor, Sequence[int]], torch.Tensor]

    def rows(self, places: Sequence[int]) -> int:
        """How many rows the loss of some questions reads."""
        return sum(len(self.trees[place].rows(self.positions)) for place in places)


def train(
    model: Any,
    task: Task,
    order: Sequence[int],
    learning_rate: float,
    settings: Training,
    compute: Compute,
    seed: int,
    log: Path,
    state: Unfinished,
    earlier: Sequence[tuple[float, float, float]] = (),
) -> Logged:
    """Train `model` in place, from where an interrupted training of the same state stopped.

    Args:
        model: a causal language model of transformers, sharded where `compute.shard` says so.
        order: places of the questions, as `question_order` gives them.
        learning_rate: the highest rate, reached after the warm-up.
        seed: for dropout, should the model have any.
        log: a folder for DVCLive's files: loss and learning rate by step.
        state: keeps the last checkpoint.
        earlier: what was logged of steps that came before these, and stands before them in `log`.

    Returns:
        Loss, gradient norm and learning rate of every step, the earlier ones first.

    Raises:
        UserError: the loss is not a number, a checkpoint cannot be written, or the ranks cannot
            share a tied matrix evenly.
    """
    if compute.shard:
        _check_tied(model)
    size = settings.batch_size
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    optimizer = _adamw(model, settings.weight_decay)
    logged = load_checkpoint(model, optimizer, state)
    write_log: Callable[[int, Sequence[float]], None] | None = None
    engine = model
    if ranks.world() > 1 and not compute.shard:
        engine = DistributedDataParallel(model, forward_sync_buffers=False)
    if compute.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    engine.train()
    done = len(logged)
    for number in track(range(1, len(steps) + 1), "Training", disable=not ranks.first()):
        if number <= done:
            continue
        rate = learning_rate * _share_of_rate(number - 1, len(steps), settings)
        # For dropout: each step and rank draws anew, also behind an interruption.
        drawn = np.random.SeedSequence([seed, len(earlier) + number, ranks.rank()])
        torch.manual_seed(int(drawn.generate_state(1)[0]))
        loss = _backward(engine, task, steps[number - 1], compute.micro_batch)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        values = (loss, norm.item(), rate)
        _check_finite(values, number, len(steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        # Begun behind the first step, for DVCLive takes a second to load.
        if ranks.first():
            write_log = write_log or _log(log, [*earlier, *logged])
            write_log(len(earlier) + number, values)
        logged.append(values)
        # The clock of one rank decides: ranks that differ would wait for each other for ever.
        if number < len(steps) and ranks.told(state.due()):
            save_checkpoint(model, optimizer, logged, state)
    if compute.checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    return [*earlier, *logged]


def _check_tied(model: Any) -> None:
    """Refuse a tied matrix in uneven parts, which FSDP2 updates in one of its two places alone.

    See https://github.com/pytorch/pytorch/issues/176076.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if model.all_tied_weights_keys and rows % ranks.world():
        raise UserError(
            f"compute.shard is true, but {ranks.world()} processes cannot share the {rows} rows of "
            "this model's tied embedding evenly; take a compute.processes that divides them, or "
            "compute.shard: false"
        )


def _adamw(model: Any, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) that lets norms and biases not decay.

    Its states are there from the start: made in the first step, as AdamW would, they would lie
    between what the step has freed, and the next one would find no room that is large enough.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            **{name: torch.zeros_like(parameter) for name in MOMENTS},
        }
    return optimizer


def _share_of_rate(step: int, steps: int, settings: Training) -> float:
    """The share of the highest rate at a step, counted from 0: linear warm-up, then the schedule.

    As transformers' schedules of these names (`constant` is its `constant_with_warmup`).
    """
    warm = math.ceil(steps * settings.warmup)
    if step < warm:
        return step / warm
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "linear":
        return (steps - step) / (steps - warm)
    return 0.5 * (1.0 + math.cos(math.pi * ((step - warm) / (steps - warm))))


def _backward(engine: Any, task: Task, places: Sequence[int], micro_batch: int | None) -> float:
    """Add the gradient of a step's mean loss over its rows; return that loss.

    Engines average gradients over ranks: times their number, a rank's sum over the rows of the
    step is its part of the mean.
    """
    rows, world = task.rows(places), ranks.world()
    parts = list(_micro_batches(places, micro_batch))
    total: Any = 0.0
    for number, part in enumerate(parts, 1):
        # DDP sums over ranks once a step; FSDP2 after each part, so that none holds all gradients.
        waits = number < len(parts) and isinstance(engine, DistributedDataParallel)
        with engine.no_sync() if waits else nullcontext():
            loss = summed_loss(engine, task, part or places[:1])
            if not part:  # all ranks run every part, also one that has no question in it
                loss = loss * 0.0
            torch.autograd.backward(loss * world / rows)
        total = total + loss.detach()
    if world > 1:
        torch.distributed.all_reduce(total)
    return float((total / rows).item())


def _micro_batches(places: Sequence[int], size: int | None) -> Iterator[Sequence[int]]:
    """This rank's questions of a step in parts of `size`; as many parts on every rank."""
    longest = -(-len(places) // ranks.world())
    mine = places[ranks.rank() :: ranks.world()]
    for start in range(0, longest, size or longest):
        yield mine[start : start + (size or longest)]


def summed_loss(engine: Any, task: Task, places: Sequence[int]) -> torch.Tensor:
    """The task's loss of some questions, summed over the rows that it reads."""
    trees = [task.trees[place] for place in places]
    batch = pack(trees)

    def loss(part: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        return task.loss(logits, part)

    losses = [(task.rows(part), partial(loss, part)) for part in _parts(task, places)]
    return read_rows(
        engine,
        batch,
        flat_rows(batch, trees, task.positions),
        lambda states, output: summed_in_parts(states, output, losses),
    )


def _parts(task: Task, places: Sequence[int]) -> list[list[int]]:
    """Questions of at most `PART_ROWS` rows together, or a longer one alone."""
    parts: list[list[int]] = []
    rows = PART_ROWS
    for place in places:
        more = task.rows([place])
        if rows + more > PART_ROWS:
            parts.append([])
            rows = 0
        parts[-1].append(place)
        rows += more
    return parts


def _check_finite(values: Sequence[float], number: int, steps: int) -> None:
    """Stop before a step that is no number: what is saved had a finite loss and gradient."""
    for value, words in zip(values[:2], ("loss", "gradient's norm"), strict=True):
        if not math.isfinite(value):
            raise DivergedError(
                f"the {words} is {value} at step {number} of {steps}, at a learning rate of "
                f"{values[2]:.3g}; lower the learning rate"
            )


def _log(folder: Path, logged: Logged) -> Callable[[int, Sequence[float]], None]:
    """Write a step's metrics to files that `dvc plots` draws; first those of `logged` again.

    `Live.end` is not called: all files are written by then, and it leaves a thread behind that
    waits for DVC Studio. Nor is `Live.make_summary`: what it writes beside the curves is no curve,
    of which `dvc plots` warns.
    """
    from dvclive.live import Live

    live: Any = Live(
        str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False
    )

    def write(step: int, values: Sequence[float]) -> None:
        live.step = step
        for name, value in zip(METRICS, values, strict=True):
            live.log_metric(name, value)

    for step, values in enumerate(logged, 1):
        write(step, values)
    return write


logging.getLogger("dvclive").setLevel(logging.ERROR)
