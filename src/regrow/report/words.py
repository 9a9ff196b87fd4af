"""The parameters of a set of results in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from regrow.report.tables import CANNOT_SAY, Place


def set_up(values: Mapping[str, str], places: Sequence[Place]) -> list[tuple[str, str]]:
    """The set-up in words: (what, how) by rows; `values` are the flat parameters.

    Parameters that no sentence here names come last, as they are.
    """
    named: set[str] = set()

    def the(key: str) -> str:
        named.add(key)
        return values.get(key, CANNOT_SAY)

    def source(key: str, sha256: str) -> str:
        digest = the(sha256)
        return the(key) + (f" (SHA-256 {digest})" if digest not in ("null", CANNOT_SAY) else "")

    def schedule(section: str) -> str:
        epochs = the(f"{section}.epochs")
        return (
            f"{epochs} epoch{'s' * (epochs != '1')} in batches of {the(f'{section}.batch_size')}, "
            f"AdamW, {the(f'{section}.schedule')} schedule after warm-up over a fraction of "
            f"{the(f'{section}.warmup')} of the steps, weight decay "
            f"{the(f'{section}.weight_decay')}, gradients clipped to norm "
            f"{the(f'{section}.max_grad_norm')}"
        )

    def positions(key: str) -> str:
        given = the(key)
        return {
            "answer": "at the positions of the answers",
            "all": "at all positions",
        }.get(given, f"positions: {given}")

    tuned = (
        f"learning rate {the('teacher.learning_rate')}, {positions('teacher.positions')}, "
        f"{schedule('teacher.training')}, seed {the('teacher.seed')}"
    )
    teacher = {
        "true": f"The model, fine-tuned on the train questions with their labels: {tuned}",
        "false": "The model as it is",
    }.get(the("teacher.finetune"), CANNOT_SAY)
    questions = source("data.source", "data.sha256")
    tests = source("data.test_source", "data.test_sha256")
    if tests not in ("null", CANNOT_SAY):
        questions += f"; test questions from {tests}"
    prompt = the("prompt.format")
    prompt += {
        "cloze": ": the choice's own words behind “Answer:” are scored",
        "letters": ": the choices are listed, and their letters behind “Answer:” are scored",
    }.get(prompt, "")
    score = {
        "l2": "the L2 norm of their weights",
        "random": "a random draw",
        "activation": "their activation norm times that of their output weights",
    }.get(the("prune.score"), the("prune.score"))
    kept = [place.retention for place in places if place.retention is not None]
    share = (
        f" ({100 * min(kept):.1f} to {100 * max(kept):.1f} % of all parameters kept)"
        if kept
        else ""
    )
    answers = {
        "labels": "the gold answers",
        CANNOT_SAY: "the gold answers",  # what there was before the parameter
        "teacher_choices": "the teacher's choices, without labels",
    }.get(the("finetune.labels"), the("finetune.labels"))
    recorded = the("teacher_logits.top_k")
    record = (
        "the teacher's whole distributions"
        if recorded == "null"
        else f"the teacher's {recorded} likeliest tokens, with the rest as one"
    )
    judged = {"raw": "accuracy", "per_character": "accuracy per character"}.get(
        the("compare.accuracy"), the("compare.accuracy")
    )
    rows = [
        ("Model", source("model.source", "model.sha256")),
        ("Teacher", teacher),
        ("Questions", questions),
        (
            "Splits",
            f"{the('data.train')} train, {the('data.calibration')} calibration and "
            f"{the('data.test')} test questions, seed {the('data.seed')}",
        ),
        ("Prompt", prompt),
        (
            "Pruning",
            f"MLP neurons by {score}, the same number in each layer, rounded to a multiple of "
            f"{the('prune.multiple_of')}, seed {the('prune.seed')}",
        ),
        ("Sparsities", the("sweep.sparsity") + share),
        ("Train sizes", the("sweep.train_size")),
        ("Seeds", the("sweep.seed")),
        ("Both losses", f"From the same pruned model: {schedule('training')}"),
        (
            "Cross-entropy",
            f"Learning rate {the('finetune.learning_rate')}, {positions('finetune.positions')}, "
            f"on {answers}",
        ),
        (
            "KL self-distillation",
            f"Learning rate {the('distill.learning_rate')}, temperature "
            f"{the('distill.temperature')}, {positions('teacher_logits.positions')}, from {record}",
        ),
        (
            "Comparison",
            f"By {judged}; intervals at confidence {the('compare.confidence')} from "
            f"{the('compare.resamples')} draws, seed {the('compare.seed')}; margin "
            f"{the('compare.margin')}",
        ),
        (
            "Run on",
            f"{the('compute.device')}, {the('compute.dtype')}, CPU threads: "
            f"{the('compute.threads')}",
        ),
    ]
    rest = [f"{key}: {value}" for key, value in values.items() if key not in named]
    return [*rows, *([("Further parameters", "; ".join(rest))] if rest else [])]


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested parameters by their dotted keys, in words: `null`, `true`, lists with commas."""
    if isinstance(values, Mapping):
        return {
            inner: text
            for key, value in values.items()
            for inner, text in flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: _words(values)}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)
