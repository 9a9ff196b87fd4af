"""The parameters of a set of results in sentences."""

import re
from collections.abc import Mapping
from typing import Any

from regrow.report.files import Source
from regrow.report.parts import Cell, Section, Table, Verbatim
from regrow.report.words import CANNOT_SAY
from regrow.support.tables import entries

SCHEDULE = (
    "{S.epochs} epoch(s) or {S.steps} steps in batches of {S.batch_size}, AdamW, {S.schedule} "
    "schedule after warm-up over a fraction of {S.warmup} of the steps, weight decay "
    "{S.weight_decay}, gradients clipped to norm {S.max_grad_norm}"
)
ROWS = (
    ("Model", "{model.source} (SHA-256 {model.sha256})"),
    (
        "Teacher",
        "Fine-tuned on the labels: {teacher.finetune}; learning rate {teacher.learning_rate}, "
        "positions {teacher.positions}, " + SCHEDULE.replace("S.", "teacher.training.") + ", seed "
        "{teacher.seed}",
    ),
    ("Questions", "{data.source} (SHA-256 {data.sha256})"),
    ("Test questions", "{data.test_source} (SHA-256 {data.test_sha256})"),
    (
        "Splits",
        "{data.train} train, {data.calibration} calibration and {data.test} test questions, seed "
        "{data.seed}",
    ),
    ("Prompt", "{prompt.format}"),
    (
        "Pruning",
        "MLP neurons by {sweep.score}{prune.score}; the same number in each layer, rounded to a "
        "multiple of {prune.multiple_of}, seed {prune.seed}",
    ),
    ("Sparsities", "{sweep.sparsity}"),
    ("Train sizes", "{sweep.train_size}"),
    ("Seeds", "{sweep.seed}"),
    ("Both losses", "From the same pruned model: " + SCHEDULE.replace("S.", "training.")),
    (
        "Cross-entropy",
        "Learning rate {finetune.learning_rate}, positions {finetune.positions}, answers: "
        "{finetune.labels}",
    ),
    (
        "KL self-distillation",
        "Learning rate {distill.learning_rate}, divergence {distill.divergence}, temperature "
        "{distill.temperature}, positions {teacher_logits.positions}, likeliest tokens recorded: "
        "{teacher_logits.top_k} (null: the whole distribution)",
    ),
    (
        "Comparison",
        "By {compare.accuracy} accuracy; intervals at confidence {compare.confidence} from "
        "{compare.resamples} draws, seed {compare.seed}; margin {compare.margin}",
    ),
    ("Named before the run", "primary: {compare.primary}; secondary: {compare.secondary}"),
    ("Run on", "{compute.device}, {compute.dtype}, CPU threads: {compute.threads}"),
)
EITHER = {"sweep.score": "prune.score", "prune.score": "sweep.score"}
"""The score was no axis of the sweep in earlier results."""


def set_up(source: Source) -> Section:
    """The set-up in words, and `params.yaml` as it lies there."""
    rows = [[Cell(what), Cell(how)] for what, how in sentences(flat(source.params))]
    text = (source.folder / "params.yaml").read_text(encoding="utf-8")
    table = Table("What was run", ["What", "How"], rows, look="stack")
    return Section("set-up", "Set-up", [table, Verbatim("params.yaml", text)])


def sentences(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """(what, how) by rows; parameters that no sentence here names come last, as they are."""
    named: set[str] = set()
    scores = entries("prune/scores.py", "SCORES")

    def fill(match: re.Match[str]) -> str:
        key = match[1]
        # One value, or one for each score.
        found = [name for name in values if name == key or name.startswith(f"{key}.")]
        named.update(found)
        if not found:
            return "" if EITHER.get(key) in values or key == "prune.score" else CANNOT_SAY
        if key in EITHER:
            return "; ".join(
                f"{name} ({scores[name]})" if name in scores else name
                for name in values[key].split(", ")
            )
        return ", ".join(
            values[name] + name.removeprefix(key).replace(".", " under ", 1) for name in found
        )

    rows = [(what, re.sub(r"\{([\w.]+)\}", fill, how)) for what, how in ROWS]
    rest = [f"{key}: {value}" for key, value in values.items() if key not in named]
    return [*rows, *([("Further parameters", "; ".join(rest))] if rest else [])]


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested parameters by their dotted keys, in words: `null`, `true`, lists with commas."""
    if isinstance(values, Mapping) and (values or not prefix):
        return {
            inner: text
            for key, value in values.items()
            for inner, text in flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: _words(values)}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)
