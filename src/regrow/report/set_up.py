"""The parameters of a set of results in sentences."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from regrow.report.files import Json, Source
from regrow.report.parts import Fold, Part, Table
from regrow.report.words import CANNOT_SAY
from regrow.support.params import by_key
from regrow.support.tables import entries

SCHEDULE = (
    "{S.epochs} epoch(s) or {S.steps} steps in batches of {S.batch_size}, AdamW, {S.schedule} "
    "schedule after warm-up over a fraction of {S.warmup} of the steps, weight decay "
    "{S.weight_decay}, gradients clipped to norm {S.max_grad_norm}"
)
ROWS = {
    "Model": "{model.source} (SHA-256 {model.sha256})",
    "Teacher": "Fine-tuned on the labels: {teacher.finetune}; learning rate "
    "{teacher.learning_rate}, positions {teacher.positions}, "
    + SCHEDULE.replace("S.", "teacher.training.")
    + ", seed {teacher.seed}",
    "Questions": "{data.source} (SHA-256 {data.sha256})",
    "Test questions": "{data.test_source} (SHA-256 {data.test_sha256})",
    "Splits": "{data.train} train, {data.calibration} calibration and {data.test} test questions, "
    "seed {data.seed}",
    "Prompt": "{prompt.format}",
    "Pruning": "MLP neurons by {sweep.score}; the same number in each layer, rounded to a multiple "
    "of {prune.multiple_of}, seed {prune.seed}",
    "Sparsities": "{sweep.sparsity}",
    "Train sizes": "{sweep.train_size}",
    "Seeds": "{sweep.seed}",
    "Both losses": "From the same pruned model: " + SCHEDULE.replace("S.", "training."),
    "Cross-entropy": "Learning rate {finetune.learning_rate}, positions {finetune.positions}, "
    "answers: {finetune.labels}",
    "KL self-distillation": "Learning rate {distill.learning_rate}, divergence "
    "{distill.divergence}, temperature {distill.temperature}, positions "
    "{teacher_logits.positions}",
    "Comparison": "By {compare.accuracy} accuracy; intervals at confidence {compare.confidence} "
    "from {compare.resamples} draws, seed {compare.seed}; margin {compare.margin}",
    "Named before the run": "primary: {compare.primary}; secondary: {compare.secondary}",
    "Run on": "{compute.device}, {compute.dtype}, CPU threads: {compute.threads}",
}


def set_up(source: Source, params: Json) -> Iterator[Part]:
    """The set-up in words, and `params.yaml` as it lies there."""
    rows = list(sentences(flat(params)).items())
    yield Table("What was run", ["What", "How"], rows, look="stack")
    yield Fold("params.yaml", text=source.path("params").read_text(encoding="utf-8"))


def sentences(values: Mapping[str, str]) -> dict[str, str]:
    """What by how, as in `ROWS`; parameters that no sentence there names come last, as they are."""
    known, named = dict(values), set[str]()
    scores = entries("prune/scores.py", "SCORES")
    # The score was no axis of the sweep in earlier results.
    if score := known.pop("prune.score", None):
        known.setdefault("sweep.score", score)
    if "sweep.score" in known:
        names = known["sweep.score"].split(", ")
        known["sweep.score"] = "; ".join(
            f"{name} ({scores[name]})" if name in scores else name for name in names
        )

    def fill(match: re.Match[str]) -> str:
        # One value, or one for each score.
        found = [name for name in known if f"{name}.".startswith(f"{match[1]}.")]
        named.update(found)
        said = (known[key] + key.removeprefix(match[1]).replace(".", " under ", 1) for key in found)
        return ", ".join(said) or CANNOT_SAY

    rows = {what: re.sub(r"\{([\w.]+)\}", fill, how) for what, how in ROWS.items()}
    further = "; ".join(f"{key}: {value}" for key, value in known.items() if key not in named)
    return {**rows, **({"Further parameters": further} if further else {})}


def flat(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested parameters by their dotted keys, in words: `null`, `true`, lists with commas."""
    return {key: _words(value) for key, value in by_key(values)}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, default=str).removesuffix(".0")
