"""One study's predictions → every measure of every method, with the draws that make intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regrow.compare.bootstrap import (
    Array,
    Interval,
    Resamples,
    Sample,
    interval_of,
    mean_sample,
    over_seeds,
    resample,
)
from regrow.compare.significance import Paired, detectable, holm, paired_test, verdict
from regrow.compare.study import METHODS, Study, check_study, student_run
from regrow.compare.uncertainty import (
    SCORES,
    Counts,
    brier,
    calibration_error,
    confidence,
    conformal_scores,
    conformal_sets,
    conformal_thresholds,
    entropy,
    fitted_temperature,
    gold_scores,
    kl_from,
    likeliest_right,
    ratio,
    scaled,
    selective_risk,
)
from regrow.evaluate.accuracy import chosen, gold_nll, right
from regrow.evaluate.predictions import Predictions
from regrow.support.files import rounded
from regrow.support.schema import Compare, Sweep

BINS = 15  # of the calibration error, as in Guo et al. 2017, ICML
ALPHAS = (0.05, 0.1, 0.2)
COVERED = 0.8  # selective accuracy is that of this share of the answers, the most confident ones


@dataclass(frozen=True)
class Measure:
    """What a number is: its name in words, its unit, and whether more of it is better.

    bounds: of one question's value, where the measure is a mean over questions of such values.
    """

    label: str
    unit: str
    better: str  # "higher", "lower", or "" where neither is
    bounds: tuple[float, float] | None = None
    centred: bool = False


MEASURES: dict[str, Measure] = {
    "accuracy_per_character": Measure("accuracy per character", "", "higher", (0, 1)),
    "accuracy_raw": Measure("accuracy", "", "higher", (0, 1)),
    "nll": Measure("NLL of the gold choice", "nats", "lower"),
    "brier": Measure("Brier score", "", "lower", (0, 2)),
    "ece": Measure("expected calibration error", "", "lower", centred=True),
    "nll_scaled": Measure("NLL after temperature scaling", "nats", "lower"),
    "ece_scaled": Measure(
        "expected calibration error after temperature scaling", "", "lower", centred=True
    ),
    "entropy_right": Measure("entropy on right answers", "nats", ""),
    "entropy_wrong": Measure("entropy on wrong answers", "nats", ""),
    "selective_accuracy": Measure("accuracy on the surest 80 %", "", "higher"),
    "aurc": Measure("area under the risk-coverage curve", "", "lower"),
    **{
        f"{score}_{part}_{alpha}": Measure(
            f"{score.upper()} {words} at alpha = {alpha}", unit, better
        )
        for score in SCORES
        for alpha in ALPHAS
        for part, words, unit, better in (
            ("coverage", "coverage", "", ""),
            ("size", "set size", "choices", "lower"),
        )
    },
    "agreement": Measure("agreement with the teacher's choice", "", "higher", (0, 1)),
    "kl": Measure("KL from the teacher's distribution", "nats", "lower"),
    "recovery": Measure("share of the lost accuracy recovered", "", "higher"),
}


Samples = Mapping[str, Sample]
"""A sample by measure."""


@dataclass(frozen=True)
class CellEvidence:
    """One sparsity and train size: the samples of each of `METHODS`, and the paired test."""

    sparsity: float
    train_size: int
    retention: float
    methods: Mapping[str, Samples]
    paired: Paired

    def difference(self, measure: str) -> Sample:
        """Distill minus finetune, paired by question and seed."""
        return self.methods["distill"][measure] - self.methods["finetune"][measure]


@dataclass(frozen=True)
class Evidence:
    """All cells, by train size and then sparsity, and what they stand on."""

    questions: int
    calibration: int
    seeds: int
    primary: str  # the measure that the study compares: one of the two accuracies
    settings: Compare
    cells: list[CellEvidence]

    def interval(self, measure: str, sample: Sample, paired: bool = False) -> Interval | None:
        """The interval of a sample of `measure`; `paired` for a difference of two."""
        kind = MEASURES[measure]
        bounds = kind.bounds
        if bounds and paired:
            bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
        return interval_of(sample, self.settings.confidence, kind.centred, bounds, self.questions)


def gather(study: Study, sweep: Sweep, settings: Compare) -> Evidence:
    """Every measure of every model on the test split, on the same draws of questions and seeds.

    Conformal sets are calibrated on the calibration split, whose questions are resampled too.
    Several seeds' measures are averaged, each seed's model taken for itself.
    """
    check_study(study)
    teacher = study["teacher"]
    test, held = teacher.of_split("test"), teacher.of_split("calibration")
    seeds = len(sweep.seed)
    draws = resample(len(test), seeds, settings.resamples, settings.seed)
    held_draws = resample(len(held), 1, settings.resamples, settings.seed, stream=1)
    primary = f"accuracy_{settings.accuracy}"

    def samples(names: Sequence[str]) -> dict[str, Sample]:
        each = [model_samples(study[name], teacher, draws, held_draws, settings) for name in names]
        return {measure: over_seeds([one[measure] for one in each], draws) for measure in each[0]}

    of_teacher = samples(["teacher"])
    cells = []
    pruned = {sparsity: samples([f"pruned/{sparsity}"]) for sparsity in sweep.sparsity}
    for train_size in sorted(sweep.train_size):
        for sparsity in sorted(sweep.sparsity):
            runs = {
                method: [student_run(folder, sparsity, train_size, seed) for seed in sweep.seed]
                for method, folder in (("finetune", "finetuned"), ("distill", "distilled"))
            }
            methods = {
                "teacher": of_teacher,
                "pruned": pruned[sparsity],
                **{method: samples(names) for method, names in runs.items()},
            }
            for method in runs:
                methods[method]["recovery"] = recovery(
                    methods[method][primary],
                    methods["pruned"][primary],
                    methods["teacher"][primary],
                    settings.confidence,
                )
            hits = {
                method: np.stack(
                    [right(study[name].of_split("test"), settings.accuracy) for name in names]
                )
                for method, names in runs.items()
            }
            cells.append(
                CellEvidence(
                    sparsity=sparsity,
                    train_size=train_size,
                    retention=study[f"pruned/{sparsity}"].parameters / teacher.parameters,
                    methods=methods,
                    paired=paired_test(hits["distill"], hits["finetune"]),
                )
            )
    return Evidence(len(test), len(held), seeds, primary, settings, cells)


def model_samples(
    run: Predictions,
    teacher: Predictions,
    draws: Resamples,
    held_draws: Resamples,
    settings: Compare,
) -> dict[str, Sample]:
    """Every measure of one model, except recovery, which takes three."""
    test, held = run.of_split("test"), run.of_split("calibration")
    reference = teacher.of_split("test")
    levels, hits, spread = confidence(test), likeliest_right(test), entropy(test)
    counts = draws.questions
    same = np.where(
        chosen(test, settings.accuracy) == chosen(reference, settings.accuracy), 1.0, 0.0
    )

    def mean(values: Array) -> Sample:
        return mean_sample(values[None], draws)

    once = selective_risk(levels, hits, COVERED)
    drawn = selective_risk(levels, hits, COVERED, counts)
    return {
        "accuracy_per_character": mean(right(test, "per_character")),
        "accuracy_raw": mean(right(test, "raw")),
        "nll": mean(gold_nll(test)),
        "brier": mean(brier(test)),
        "ece": Sample(
            float(calibration_error(levels, hits, BINS)[0]),
            calibration_error(levels, hits, BINS, counts),
        ),
        **_scaled_samples(test, held, draws),
        "entropy_right": Sample(float(ratio(spread, hits)[0]), ratio(spread, hits, counts)),
        "entropy_wrong": Sample(float(ratio(spread, 1 - hits)[0]), ratio(spread, 1 - hits, counts)),
        "selective_accuracy": Sample(1 - float(once[1][0]), 1 - drawn[1]),
        "aurc": Sample(float(once[0][0]), drawn[0]),
        **_conformal_samples(test, held, draws, held_draws.questions),
        "agreement": mean(same),
        "kl": mean(kl_from(reference, test)),
    }


def recovery(model: Sample, pruned: Sample, teacher: Sample, level: float) -> Sample:
    """(model - pruned) / (teacher - pruned): 0 where nothing, 1 where all was recovered.

    A ratio has no useful interval where its denominator may be zero (Fieller 1954, Journal of the
    Royal Statistical Society B 16): there is none unless the interval of what pruning cost lies
    above 0 at confidence `level`, and no estimate unless pruning cost something.
    """
    lost = teacher - pruned
    cost = interval_of(lost, level)
    draws = np.full_like(lost.draws, np.nan)
    if cost is None or lost.estimate <= 0:
        return Sample(np.nan, draws)
    estimate = (model.estimate - pruned.estimate) / lost.estimate
    if cost.low is not None and cost.low > 0:
        safe = lost.draws > 0
        draws[safe] = (model.draws - pruned.draws)[safe] / lost.draws[safe]
    return Sample(estimate, draws)


def uncertainty_json(evidence: Evidence) -> dict[str, object]:
    """`metrics/uncertainty.json`: by cell `S-N` and measure, each method and distill - finetune.

    A number or an interval's end that the data cannot give is null.
    """
    return {
        "questions": evidence.questions,
        "calibration_questions": evidence.calibration,
        "seeds": evidence.seeds,
        "confidence": evidence.settings.confidence,
        "bins": BINS,
        "sweep": {
            f"{cell.sparsity}-{cell.train_size}": {
                measure: {
                    **{
                        method: as_json(evidence.interval(measure, cell.methods[method][measure]))
                        for method in METHODS
                        if measure in cell.methods[method]
                    },
                    "difference": as_json(
                        evidence.interval(measure, cell.difference(measure), paired=True)
                    ),
                }
                for measure in MEASURES
            }
            for cell in evidence.cells
        },
    }


def paired_json(evidence: Evidence) -> dict[str, object]:
    """`metrics/paired.json`: for each cell, is KL better than CE, and could the test have told?

    p-values are exact and two-sided, `holm_p` is adjusted for all cells of the grid; what cannot
    be said is null, and `verdict` says so.
    """
    settings = evidence.settings
    adjusted = holm([cell.paired.p for cell in evidence.cells])
    cells = {}
    for cell, holm_p in zip(evidence.cells, adjusted, strict=True):
        difference = cell.difference(evidence.primary)
        interval = evidence.interval(evidence.primary, difference, paired=True)
        least = detectable(difference, settings.confidence)
        found = verdict(interval, settings.margin)
        if found == "superior" and (holm_p is None or holm_p >= 1 - settings.confidence):
            found = "non-inferior"  # better for itself, but not among so many cells
        cells[f"{cell.sparsity}-{cell.train_size}"] = {
            "difference": as_json(interval),
            "only_distill_right": cell.paired.only_right,
            "only_finetune_right": cell.paired.only_other,
            "p": None if cell.paired.p is None else rounded(cell.paired.p),
            "holm_p": None if holm_p is None else rounded(holm_p),
            "verdict": found,
            "detectable": None if least is None else rounded(least),
        }
    return {
        "questions": evidence.questions,
        "seeds": evidence.seeds,
        "measure": evidence.primary,
        "margin": settings.margin,
        "sweep": cells,
    }


def models_json(evidence: Evidence) -> dict[str, dict[str, object]]:
    """`metrics/evidence/models/*.json`: each model's headline numbers, for `dvc metrics show`.

    Flat and under the same names for every model, so that they line up as one table; an interval
    is a text beside its number. The seeds of a method are one model here.
    """
    models = {}
    for cell in evidence.cells:
        size = f"{cell.sparsity}-{cell.train_size}"
        for method, name in (
            ("teacher", "teacher"),
            ("pruned", f"pruned/{cell.sparsity}"),
            ("finetune", f"finetuned/{size}"),
            ("distill", f"distilled/{size}"),
        ):
            samples = dict(cell.methods[method])
            if method == "teacher":  # what it says of itself says nothing
                del samples["agreement"], samples["kl"]
            models[name] = _headline(evidence, samples)
    return models


def as_json(interval: Interval | None) -> dict[str, float | None] | None:
    """The interval with rounded numbers; null for what cannot be had."""
    if interval is None:
        return None
    return {
        name: None if value is None else rounded(value)
        for name, value in (
            ("estimate", interval.estimate),
            ("low", interval.low),
            ("high", interval.high),
        )
    }


def _headline(evidence: Evidence, samples: Samples) -> dict[str, object]:
    names = {
        "accuracy": evidence.primary,
        "nll": "nll",
        "brier": "brier",
        "ece": "ece",
        "aurc": "aurc",
        "set_size": "lac_size_0.1",
        "agreement": "agreement",
        "kl": "kl",
        "recovery": "recovery",
    }
    numbers: dict[str, object] = {}
    for name, measure in names.items():
        interval = evidence.interval(measure, samples[measure]) if measure in samples else None
        if interval is None:
            continue
        numbers[name] = rounded(interval.estimate)
        numbers[f"{name}_interval"] = (
            "cannot say"
            if interval.low is None or interval.high is None
            else f"{interval.low:.3f} to {interval.high:.3f}"
        )
    return numbers


def _scaled_samples(test: Predictions, held: Predictions, draws: Resamples) -> dict[str, Sample]:
    """NLL and calibration error at the temperature that fits the calibration split best.

    The temperature is fitted once: its own noise, that of one number, is not in the draws.
    """
    if not len(held):
        missing = _missing(draws)
        return {"nll_scaled": missing, "ece_scaled": missing}
    fitted = scaled(test, fitted_temperature(held))
    levels, hits = confidence(fitted), likeliest_right(fitted)
    return {
        "nll_scaled": mean_sample(gold_nll(fitted)[None], draws),
        "ece_scaled": Sample(
            float(calibration_error(levels, hits, BINS)[0]),
            calibration_error(levels, hits, BINS, draws.questions),
        ),
    }


def _missing(draws: Resamples) -> Sample:
    return Sample(np.nan, np.full(len(draws.questions), np.nan))


def _conformal_samples(
    test: Predictions, held: Predictions, draws: Resamples, held_counts: Counts
) -> dict[str, Sample]:
    """Coverage and mean size of conformal sets; NaN where no question is held for calibration."""
    samples = {}
    for score in SCORES:
        scores = conformal_scores(test, score)
        gold = gold_scores(test, scores)
        kept = gold_scores(held, conformal_scores(held, score)) if len(held) else None
        for alpha in ALPHAS:
            if kept is None:
                covered = size = _missing(draws)
            else:
                once = conformal_sets(scores, gold, conformal_thresholds(kept, alpha))
                drawn = conformal_sets(
                    scores, gold, conformal_thresholds(kept, alpha, held_counts), draws.questions
                )
                covered, size = (
                    Sample(float(estimate[0]), values)
                    for estimate, values in zip(once, drawn, strict=True)
                )
            samples[f"{score}_coverage_{alpha}"] = covered
            samples[f"{score}_size_{alpha}"] = size
    return samples
