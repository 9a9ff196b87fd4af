"""Scoring choices, beside lm-evaluation-harness on the same model, questions and prompts.

Both get texts and give log-probabilities, so both timings hold the tokenizer; neither holds the
loading of the model. The harness's time is that of `HFLM.loglikelihood` on the requests that its
own task builds, without its bootstrap and its bookkeeping, at whichever batch size was fastest.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ceilings
from benchmarks.common import Bench, Files
from benchmarks.contest import Entry, NotMeasuredError, Outcome
from benchmarks.results import Measure, Note, Row, Target
from benchmarks.worker import Prepared

HARNESS = "lm-evaluation-harness"
TARGETS = {"cloze": 5.0, "letters": 1.3}
CHECKED = 8  # questions whose accuracies are compared


def rows(bench: Bench) -> Iterator[Row]:
    """Questions a second in both formats, and the forward pass's share of the ceiling."""
    files = bench.take("test", bench.questions)
    for prompt_format in TARGETS:
        settings = bench.settings(
            model=bench.teacher,
            questions=files.questions,
            labels=files.labels,
            format=prompt_format,
        )
        outcomes = bench.contest(
            {
                "ours": Entry("benchmarks.evaluate:ours", settings),
                "theirs": Entry("benchmarks.harness:theirs", settings),
                "ceiling": ceilings.entry(bench),
            }
        )
        yield _against_harness(prompt_format, files, outcomes)
        yield _share(prompt_format, outcomes)


def _against_harness(prompt_format: str, files: Files, outcomes: dict[str, Outcome]) -> Row:
    group, name = "evaluate", f"evaluate, {prompt_format}"
    target = Target.least(TARGETS[prompt_format], f">= {TARGETS[prompt_format]:g}x")
    top = ceilings.ceiling(outcomes["ceiling"]).median
    mine = _measure("regrow", outcomes["ours"], files.count, top)
    facts = outcomes["theirs"].facts
    try:
        batch = facts.get("batch_size")
        yours = _measure(f"{HARNESS}, batch {batch}", outcomes["theirs"], files.count, top)
    except NotMeasuredError as fault:
        return Row(group=group, name=name, ours=mine, target=target, not_measured=str(fault))
    notes: dict[str, Note] = {
        "questions": files.count,
        "batch_sizes_tried": facts["batch_sizes"],
        "seconds_at_batch_sizes": facts["seconds"],
        "questions_checked": facts["checked"],
        "accuracies_equal": facts["accuracies"] == outcomes["ours"].facts["accuracies"],
    }
    notes |= agreement(outcomes["ours"].runs[-1], outcomes["theirs"].runs[-1])
    return Row(
        group=group,
        name=name,
        ours=mine,
        against=yours,
        ratio="ours / against",
        target=target,
        notes=notes,
    )


def _share(prompt_format: str, outcomes: dict[str, Outcome]) -> Row:
    """Scoring alone, without the tokenizer, against the ceiling of the same rounds."""
    work = outcomes["ours"].facts["operations"] / 1e9
    values = [work / seconds for seconds in outcomes["ours"].series("scoring_seconds")]
    return Row(
        group="evaluate",
        name=f"forward, {prompt_format}: useful operations",
        ours=Measure(what="regrow", unit="GFLOP/s", values=values),
        against=ceilings.ceiling(outcomes["ceiling"]),
        ratio="ours / against",
        percent=True,
        target=Target.least(0.75, ">= 75 %"),
        notes={"padding": outcomes["ours"].facts["padding"]},
    )


def _measure(what: str, outcome: Outcome, questions: int, ceiling: float) -> Measure:
    """Questions a second, with the useful operations' share of the ceiling (the task's own)."""
    rates = [questions / seconds for seconds in outcome.series("seconds")]
    measure = Measure(what=what, unit="questions/s", values=rates)
    operations = outcome.facts["operations"] / questions / 1e9
    return measure.model_copy(
        update={
            "of_ceiling": measure.median * operations / ceiling,
            "peak_bytes": outcome.peak_bytes,
        }
    )


def agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Note]:
    """How many questions get the same choice from both, and how far log-probabilities differ."""
    raw = sum(
        best(mine) == best(yours)
        for mine, yours in zip(ours["log_probs"], theirs["log_probs"], strict=True)
    )
    per_character = sum(
        best([value / length for value, length in zip(mine, lengths, strict=True)])
        == best([value / length for value, length in zip(yours, lengths, strict=True)])
        for mine, yours, lengths in zip(
            ours["log_probs"], theirs["log_probs"], ours["characters"], strict=True
        )
    )
    furthest = max(
        abs(value - other)
        for mine, yours in zip(ours["log_probs"], theirs["log_probs"], strict=True)
        for value, other in zip(mine, yours, strict=True)
    )
    return {
        "equal_choices": raw,
        "equal_choices_per_character": per_character,
        "largest_difference_of_log_probabilities": furthest,
    }


def best(values: Sequence[float]) -> int:
    """The place of the highest value."""
    return max(range(len(values)), key=lambda place: values[place])


def ours(settings: dict[str, Any]) -> Prepared:
    """This project's scoring, from texts to log-probabilities."""
    from regrow.evaluate.accuracy import right
    from regrow.evaluate.predictions import Predictions
    from regrow.model.folders import count_parameters, load_model, load_tokenizer
    from regrow.model.runtime import fix_runtime
    from regrow.model.scoring import BATCH_TOKENS, score_choices
    from regrow.model.trees import build_trees, by_tokens, pack
    from regrow.plan.shapes import costs, trees_forward
    from regrow.support.schema import Params
    from regrow.tasks.prompts import continuations
    from regrow.tasks.questions import read_labels, read_questions

    params = Params.model_validate(settings["params"])
    fix_runtime(params.compute, 0)
    model = load_model(Path(settings["model"]), params.compute.dtype, params.compute.device)
    tokenizer = load_tokenizer(Path(settings["model"]))
    asked = read_questions(Path(settings["questions"]))
    answers = read_labels(Path(settings["labels"]), asked)
    characters = [
        [len(text) - 1 for text in continuations(question, settings["format"])]
        for question in asked
    ]

    def run() -> dict[str, Any]:
        started = time.perf_counter()
        trees = build_trees(tokenizer, asked, settings["format"])
        built = time.perf_counter()
        log_probs = score_choices(model, trees)
        ended = time.perf_counter()
        return {
            "seconds": ended - started,
            "scoring_seconds": ended - built,
            "log_probs": log_probs,
            "characters": characters,
        }

    trees = build_trees(tokenizer, asked, settings["format"])
    checked = trees[:CHECKED]
    found = Predictions(
        ids=[question.id for question in asked[:CHECKED]],
        splits=["test"] * len(checked),
        answers=answers[:CHECKED],
        log_probs=score_choices(model, checked),
        tokens=[[len(branch) for branch in tree.branches] for tree in checked],
        characters=characters[:CHECKED],
        parameters=count_parameters(model),
        mlp_parameters=1,
    )
    packed = [
        pack([trees[index] for index in members]) for members in by_tokens(trees, BATCH_TOKENS)
    ]
    room = sum(batch.input_ids.numel() for batch in packed)
    facts = {
        "operations": trees_forward(costs(model), trees, "answer"),
        "padding": 1 - sum(tree.nodes for tree in trees) / room,
        "accuracies": [int(right(found, kind).sum()) for kind in ("raw", "per_character")],
    }
    return facts, run
