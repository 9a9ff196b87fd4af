"""The paper's claims, each with this study's estimate, interval and verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from regrow.compare.bootstrap import UNKNOWN, Interval, Sample, average, over_seeds
from regrow.compare.evidence import NOT_TESTABLE, CellEvidence, Evidence
from regrow.compare.measures import MEASURES
from regrow.compare.significance import questions_needed
from regrow.support.files import as_json

HALF = (0.45, 0.55)  # retentions that count as "about half of the parameters"
CLAIMED = (0.03, 0.05)  # the lead that the paper reports there
SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NO_INTERVAL = "There is no interval: cannot say."
NOTHING = "Nothing regrew: no student clearly beats the longest choice and its pruned model."
UNCERTAINTY = {
    "better_nll": "nll",
    "better_nll_scaled": "nll_scaled",
    "better_calibration": "ece",
    "smaller_sets": "lac_size_0.1",
}
"""Measures of the claims that KL gives better uncertainty; of each, less is better."""


@dataclass(frozen=True)
class Claim:
    """What the paper says, what was estimated here, and what follows.

    unit: `fraction`, `nats` or `choices`. verdict: `supported`, `contradicted` or `inconclusive`,
    as the interval lies on the claimed side of a line, on the other, or on both; of a claimed
    range, `inside`, `above`, `below` or `overlapping`; `not testable` where nothing regrew or the
    sweep does not go there. why: one to three sentences, which say what it would take.
    """

    says: str
    quantity: str
    unit: str
    interval: Interval = UNKNOWN
    verdict: str = NOT_TESTABLE
    why: str = NOTHING


def claims(evidence: Evidence, equal: str) -> dict[str, Claim]:
    """The claims of Sander et al. 2025 (arXiv 2505.18166) by name, judged on the test split.

    Each by the cells that count: those in which a student regrew something (`CellEvidence`).

    equal: what trainings on more questions have in common with those on fewer, `epochs` or `steps`.
    """
    largest = max(cell.place.train_size for cell in evidence.cells)
    counted = [cell for cell in evidence.cells if cell.regrew]
    at_largest = [cell for cell in counted if cell.place.train_size == largest]
    found = {"kl_matches_ce": _matches(evidence, counted)}
    scores = list(dict.fromkeys(cell.place.score for cell in evidence.cells))
    for score in scores:
        place = score, largest
        cells = [c for c in evidence.cells if (c.place.score, c.place.train_size) == place]
        name = "three_to_five_points" + f"_{score}" * (len(scores) > 1)
        found[name] = _three_to_five(cells)
    says = "KL's lead in accuracy grows with the train data"
    found["lead_grows_with_data"] = _data_scaling(evidence, says, "accuracy", 1, equal)
    says = "KL's uncertainty gets better with the train data, more than CE's"
    found["uncertainty_improves_with_data"] = _data_scaling(evidence, says, "nll_scaled", -1, equal)
    quantity = f"KL - CE at {largest:,} train questions, mean over cells"
    for name, measure in UNCERTAINTY.items():
        says = f"KL gives better uncertainty than CE: {MEASURES[measure].label}"
        gaps = [cell.difference(measure) for cell in at_largest]
        share = _calibrated(evidence, measure, at_largest)
        found[name] = _judged(evidence, says, quantity, measure, gaps, -1, calibrated=share)
    found["labels_not_needed"] = _without_labels(evidence, counted, found["kl_matches_ce"].verdict)
    return found


def claims_json(evidence: Evidence, equal: str = "epochs") -> dict[str, Any]:
    """`claims.json`: the claims by name; a number that cannot be had is null."""
    one_seed = " One seed: the noise of training is not in the interval."
    return {
        name: {
            "claim": claim.says,
            "quantity": claim.quantity,
            "unit": claim.unit,
            **as_json(claim.interval._asdict()),
            "verdict": claim.verdict,
            "why": claim.why
            + one_seed * (len(evidence.seeds) == 1 and not np.isnan(claim.interval.estimate)),
        }
        for name, claim in claims(evidence, equal).items()
    }


def _matches(evidence: Evidence, cells: Sequence[CellEvidence]) -> Claim:
    margin, alpha = evidence.settings.margin, 1 - evidence.settings.confidence
    says = "Under identical pruning, KL matches or exceeds CE in test accuracy"
    gaps = [cell.difference("accuracy") for cell in cells]
    quantity = "accuracy, KL - CE, mean over cells"
    claim = _judged(evidence, says, quantity, "accuracy", gaps, 1, line=-margin)
    if not cells:
        return claim
    clear = [cell.paired for cell in cells if cell.holm_p < alpha]
    better = sum(one.only_right > one.only_other for one in clear)
    worse = sum(one.only_right < one.only_other for one in clear)
    left_out = len(evidence.cells) - len(cells)
    aside = f"; in {left_out} more nothing regrew" if left_out else ""
    why = (
        f"KL is clearly better in {better} and clearly worse in {worse} of {len(cells)} "
        f"cell{'s' * (len(cells) > 1)} (exact paired test, Holm-adjusted p < {alpha:.2g}{aside}); "
        f"the margin is {100 * margin:g} points."
    )
    return replace(claim, why=f"{why} {claim.why}")


def _three_to_five(cells: Sequence[CellEvidence]) -> Claim:
    """Of one score's cells at the largest train size, the one nearest to half."""
    nearest = min(cells, key=lambda cell: abs(cell.retention - 0.5))
    kept = f"{100 * nearest.retention:.0f} %"
    says = "KL is 3 to 5 points better where about half of the parameters are left"
    if not HALF[0] <= nearest.retention <= HALF[1]:
        share = (1 - nearest.retention) / nearest.place.sparsity
        take = "pruning MLPs alone cannot reach half of this model"
        if share > 0.5:
            take = f"sparsity {0.5 / share:.2f} would keep half"
        why = (
            f"No model of the sweep keeps {100 * HALF[0]:.0f} to {100 * HALF[1]:.0f} % of the "
            f"teacher's parameters; the nearest keeps {kept}, and {take}."
        )
        quantity = "accuracy, KL - CE, at the retention nearest to 50 %"
        return Claim(says, quantity, "fraction", why=why)
    quantity = f"accuracy, KL - CE, at {kept} retention, pruned by {nearest.place.score}"
    if not nearest.regrew:
        return Claim(says, quantity, "fraction")
    return Claim(says, quantity, "fraction", nearest.lead, *position(nearest.lead))


def position(interval: Interval) -> tuple[str, str]:
    """Where an interval lies to the claimed 3 to 5 points, in one word and in a sentence."""
    _, low, high = interval
    if np.isnan(low):
        return NOT_TESTABLE, NO_INTERVAL
    if high < CLAIMED[0]:
        return "below", "The whole interval is smaller than the claimed 3 to 5 points."
    if low > CLAIMED[1]:
        return "above", "The whole interval is larger than the claimed 3 to 5 points."
    if CLAIMED[0] <= low and high <= CLAIMED[1]:
        return "inside", "The whole interval lies within the claimed 3 to 5 points."
    zero = "lies above 0" if low > 0 else "lies below 0" if high < 0 else "holds 0 too"
    return "overlapping", f"The interval holds claimed values and others, and {zero}."


def _data_scaling(evidence: Evidence, says: str, measure: str, sign: int, equal: str) -> Claim:
    """A difference of differences: KL - CE with the most train questions less that with the fewest.

    Over the scores and sparsities at which something regrew with both.
    """
    sizes = {cell.place.train_size for cell in evidence.cells}
    few, many = min(sizes), max(sizes)
    label, unit = MEASURES[measure].label, MEASURES[measure].unit
    if few == many:
        why = f"The sweep has one train size ({few:,}): add a second one to sweep.train_size."
        return Claim(says, "KL - CE, most train questions - fewest", unit, why=why)
    at = {cell.place: cell for cell in evidence.cells if cell.regrew}
    pairs = [
        (most, at[least])
        for place, most in at.items()
        if place.train_size == many and (least := replace(place, train_size=few)) in at
    ]
    quantity = f"{label}, KL - CE, at {many:,} - at {few:,} train questions and equal {equal}"
    gaps = [most.difference(measure) - least.difference(measure) for most, least in pairs]
    claim = _judged(evidence, says, quantity, measure, gaps, sign)
    if not pairs:
        return claim

    def change(loss: str) -> str:
        gaps = [most.methods[loss][measure] - least.methods[loss][measure] for most, least in pairs]
        return _signed(evidence.interval(measure, average(gaps), paired=True), unit)

    alone = f"by {change('distill')} under KL and by {change('finetune')} under CE"
    return replace(claim, why=f"{claim.why} It changes {alone}.")


def _without_labels(evidence: Evidence, cells: Sequence[CellEvidence], matches: str) -> Claim:
    """Supported if KL recovers accuracy, and as much as the loss that sees the labels does.

    matches: the verdict on whether KL matches CE.
    """
    says = "Labels are not needed: KL recovers what pruning lost without any"
    gaps = [cell.difference("accuracy", "pruned") for cell in cells]
    quantity = "accuracy, KL - pruned only, mean over cells"
    claim = _judged(evidence, says, quantity, "accuracy", gaps, 1)
    reached, why = claim.verdict, claim.why
    if reached == SUPPORTED and matches != SUPPORTED:
        reached = matches
        why += f" Whether it recovers as much as with labels is {matches} (KL against CE)."
    why += " KL itself sees no label; with teacher.finetune the teacher has seen them."
    return replace(claim, verdict=reached, why=why)


def _judged(
    evidence: Evidence,
    says: str,
    quantity: str,
    measure: str,
    gaps: Sequence[Sample],
    sign: int,
    line: float = 0.0,
    calibrated: float = 0.0,
) -> Claim:
    """A claim that the mean of the cells' `gaps` lies above `line` (sign 1) or below it (-1).

    calibrated: see `_calibrated`.
    """
    claim = Claim(says, quantity, MEASURES[measure].unit)
    if not gaps:
        return claim
    interval = evidence.interval(measure, average(gaps), paired=True)
    reached, at = INCONCLUSIVE, f"{100 * line:+g} points" if line else "0"
    if np.isnan(interval.low):
        why = NO_INTERVAL
    elif interval.low <= line <= interval.high:
        distance = abs(interval.estimate - line)
        why = f"The interval holds {at}. {_would_take(evidence, interval, distance, calibrated)}"
    else:
        as_claimed = (interval.low > line) == (sign > 0)
        reached = SUPPORTED if as_claimed else CONTRADICTED
        why = f"The whole interval lies on the {'claimed' if as_claimed else 'other'} side of {at}."
    return replace(claim, interval=interval, verdict=reached, why=why)


def _calibrated(evidence: Evidence, measure: str, cells: Sequence[CellEvidence]) -> float:
    """The share of the variance of KL - CE that comes from the calibration questions."""
    if not (cells and MEASURES[measure].calibrated and evidence.calibration):
        return 0.0

    def fixed(cell: CellEvidence, loss: str) -> Sample:
        models = [
            replace(model, held_draws=model.held_draws[:1])
            for model in evidence.runs(cell.place, loss)
        ]
        samples = [MEASURES[measure](model) for model in models]
        return over_seeds([one for one in samples if one is not None], evidence.draws)

    of_test = average([fixed(cell, "distill") - fixed(cell, "finetune") for cell in cells])
    of_both = average([cell.difference(measure) for cell in cells])
    return max(0.0, 1 - float(of_test[1:].var() / (of_both[1:].var() or 1)))


def _would_take(evidence: Evidence, interval: Interval, distance: float, calibrated: float) -> str:
    """What would settle the matter, if the estimate stays where it is."""
    held = (interval.high - interval.low) / 2 * calibrated**0.5
    kind, short = "test", ""
    needed = questions_needed(evidence.questions, interval, distance, held)
    if needed is None:
        kind, short = "calibration", ", however many test questions there are"
        needed = questions_needed(evidence.calibration, Interval(0.0, -held, held), distance)
    if needed is None or needed > 10_000_000:
        return "The estimate lies on the line, so no feasible number of questions would settle it."
    about = float(f"{needed:.2g}")
    return f"If the estimate stays, it takes about {about:,.0f} {kind} questions{short}."


def _signed(interval: Interval, unit: str) -> str:
    if np.isnan(interval.low):
        return "an unknown amount"
    scale, digits, words = (100, 1, "points") if unit == "fraction" else (1, 3, unit)
    number, low, high = (f"{scale * value:+.{digits}f}" for value in interval)
    return f"{number} [{low}, {high}] {words}"
