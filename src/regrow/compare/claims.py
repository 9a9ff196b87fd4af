"""The paper's claims, each with this study's estimate, interval and verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from regrow.compare.bootstrap import Interval, Sample, average
from regrow.compare.evidence import CellEvidence, Evidence
from regrow.compare.significance import holm, questions_needed, verdict
from regrow.support.files import rounded

HALF = (0.45, 0.55)  # retentions that count as "about half of the parameters"
SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"


@dataclass(frozen=True)
class Claim:
    """What the paper says, what was estimated here, and what follows.

    unit: `fraction`, `nats` or `choices`. why: one or two sentences, which for an
    inconclusive verdict say what it would take.
    """

    says: str
    quantity: str
    unit: str
    interval: Interval | None
    verdict: str
    why: str


def claims(evidence: Evidence) -> dict[str, Claim]:
    """The claims of Sander et al. 2025 (arXiv 2505.18166) by name, judged on the test split."""
    largest = max(cell.train_size for cell in evidence.cells)
    at_largest = [cell for cell in evidence.cells if cell.train_size == largest]
    matches = _matches(evidence)
    return {
        "kl_matches_ce": matches,
        "three_to_five_points": _three_to_five(evidence, at_largest),
        "uncertainty_improves_with_data": _improves(evidence),
        "better_nll": _better_than_ce(evidence, at_largest, "nll", "the gold choice's NLL", "nats"),
        "better_nll_scaled": _better_than_ce(
            evidence,
            at_largest,
            "nll_scaled",
            "the gold choice's NLL after temperature scaling",
            "nats",
        ),
        "better_calibration": _better_than_ce(
            evidence, at_largest, "ece", "the calibration error", "fraction"
        ),
        "smaller_sets": _better_than_ce(
            evidence, at_largest, "lac_size_0.1", "the LAC set size at alpha = 0.1", "choices"
        ),
        "labels_not_needed": _without_labels(evidence, matches),
    }


def claims_json(evidence: Evidence) -> dict[str, object]:
    """`metrics/claims.json`: the claims by name; a number that cannot be had is null."""
    found: dict[str, object] = {}
    for name, claim in claims(evidence).items():
        interval = claim.interval
        caveat = (
            " One seed: the noise of training is not in the interval."
            if interval is not None and evidence.seeds == 1
            else ""
        )
        ends = (
            (None, None, None)
            if interval is None
            else (interval.estimate, interval.low, interval.high)
        )
        found[name] = {
            "claim": claim.says,
            "quantity": claim.quantity,
            "unit": claim.unit,
            **{
                key: None if value is None else rounded(value)
                for key, value in zip(("estimate", "low", "high"), ends, strict=True)
            },
            "verdict": claim.verdict,
            "why": claim.why + caveat,
        }
    return found


def _matches(evidence: Evidence) -> Claim:
    settings, measure = evidence.settings, evidence.primary
    interval = _interval(evidence, measure, [cell.difference(measure) for cell in evidence.cells])
    adjusted = holm([cell.paired.p for cell in evidence.cells])
    alpha = 1 - settings.confidence
    clear = [
        cell.paired.only_right - cell.paired.only_other
        for cell, p in zip(evidence.cells, adjusted, strict=True)
        if p is not None and p < alpha
    ]
    better, worse = sum(gap > 0 for gap in clear), sum(gap < 0 for gap in clear)
    inferior = sum(
        verdict(evidence.interval(measure, cell.difference(measure), True), settings.margin)
        == "inferior"
        for cell in evidence.cells
    )
    found = verdict(interval, settings.margin)
    cells = _plural(len(evidence.cells), "cell")
    points = f"{100 * settings.margin:g} points"
    why = (
        f"KL is clearly better in {better} and clearly worse in {worse} of {cells} "
        f"(exact paired test, Holm-adjusted p < {alpha:.2g}); the margin is {points}."
    )
    if found in ("superior", "non-inferior") and not inferior:
        reached = SUPPORTED
    elif found == "inferior" or inferior:
        reached = CONTRADICTED
        if inferior:
            why += f" In {_plural(inferior, 'cell')} KL is worse by more than the margin."
    else:
        reached = INCONCLUSIVE
        why += " " + _would_take(evidence, interval, settings.margin)
    return Claim(
        says="Under identical pruning, KL matches or exceeds CE in test accuracy",
        quantity="accuracy, KL - CE, mean over the grid",
        unit="fraction",
        interval=interval,
        verdict=reached,
        why=why,
    )


def _three_to_five(evidence: Evidence, cells: Sequence[CellEvidence]) -> Claim:
    says = "KL is 3 to 5 points better where about half of the parameters are left"
    quantity = "accuracy, KL - CE, at the retention nearest to 50 %"
    nearest = min(cells, key=lambda cell: abs(cell.retention - 0.5))
    if not HALF[0] <= nearest.retention <= HALF[1]:
        share = (1 - nearest.retention) / nearest.sparsity
        wanted = 0.5 / share if share else 1.0
        take = (
            f"sparsity {wanted:.2f} would keep half"
            if wanted < 1
            else "pruning MLPs alone cannot reach half of this model"
        )
        why = (
            f"No model of the sweep keeps {100 * HALF[0]:.0f} to {100 * HALF[1]:.0f} % of the "
            f"teacher's parameters; the nearest keeps {100 * nearest.retention:.0f} %, and {take}."
        )
        return Claim(says, quantity, "fraction", None, INCONCLUSIVE, why)
    measure = evidence.primary
    interval = evidence.interval(measure, nearest.difference(measure), paired=True)
    quantity = f"accuracy, KL - CE, at {100 * nearest.retention:.0f} % retention"
    if interval is None or interval.low is None or interval.high is None:
        reached, why = INCONCLUSIVE, "There is no interval: cannot say."
    elif interval.high < 0.03 or interval.low > 0.05:
        side = "smaller" if interval.high < 0.03 else "larger"
        reached, why = CONTRADICTED, f"The whole interval is {side} than the claimed 3 to 5 points."
    elif interval.low > 0:
        reached, why = SUPPORTED, "The interval lies above 0 and meets the claimed 3 to 5 points."
    else:
        reached = INCONCLUSIVE
        why = "The interval holds both no difference and a claimed one. " + _would_take(
            evidence, interval, 0.0
        )
    return Claim(says, quantity, "fraction", interval, reached, why)


def _improves(evidence: Evidence) -> Claim:
    says = "KL's uncertainty gets better as the train data grow"
    sizes = sorted({cell.train_size for cell in evidence.cells})
    few, many = sizes[0], sizes[-1]
    if few == many:
        quantity = "NLL of KL, most train questions - fewest"
        why = f"The sweep has one train size ({few:,}): add a second one to sweep.train_size."
        return Claim(says, quantity, "nats", None, INCONCLUSIVE, why)
    at = {
        size: {cell.sparsity: cell for cell in evidence.cells if cell.train_size == size}
        for size in (few, many)
    }
    gaps = [
        cell.methods["distill"]["nll"] - at[few][sparsity].methods["distill"]["nll"]
        for sparsity, cell in at[many].items()
    ]
    quantity = f"NLL of KL, {many:,} - {few:,} train questions, mean over sparsities"
    return _lower_is_better(evidence, says, quantity, "nll", "nats", gaps)


def _better_than_ce(
    evidence: Evidence, cells: Sequence[CellEvidence], measure: str, words: str, unit: str
) -> Claim:
    return _lower_is_better(
        evidence,
        says=f"KL gives better uncertainty than CE: {words}",
        quantity=f"KL - CE at {cells[0].train_size:,} train questions, mean over sparsities",
        measure=measure,
        unit=unit,
        gaps=[cell.difference(measure) for cell in cells],
    )


def _lower_is_better(
    evidence: Evidence, says: str, quantity: str, measure: str, unit: str, gaps: Sequence[Sample]
) -> Claim:
    return _judged(
        evidence,
        says,
        quantity,
        unit,
        _interval(evidence, measure, gaps),
        sign=-1,
    )


def _without_labels(evidence: Evidence, matches: Claim) -> Claim:
    """Supported if KL recovers accuracy, and as much as the loss that sees the labels does."""
    measure = evidence.primary
    gains = [
        cell.methods["distill"][measure] - cell.methods["pruned"][measure]
        for cell in evidence.cells
    ]
    claim = _judged(
        evidence,
        says="Labels are not needed: KL recovers what pruning lost without any",
        quantity="accuracy, KL - pruned only, mean over the grid",
        unit="fraction",
        interval=_interval(evidence, measure, gains),
        sign=1,
    )
    why = claim.why
    reached = claim.verdict
    if reached == SUPPORTED and matches.verdict != SUPPORTED:
        reached = INCONCLUSIVE
        why += f" Whether it recovers as much as with labels is {matches.verdict} (KL against CE)."
    why += " KL itself sees no label; with teacher.finetune the teacher has seen them."
    return replace(claim, verdict=reached, why=why)


def _judged(
    evidence: Evidence,
    says: str,
    quantity: str,
    unit: str,
    interval: Interval | None,
    sign: int,
) -> Claim:
    """A claim that a quantity is above 0 (sign 1) or below it (sign -1), read off the interval."""
    if interval is None or interval.low is None or interval.high is None:
        return Claim(says, quantity, unit, interval, INCONCLUSIVE, "No interval: cannot say.")
    if interval.low * interval.high > 0:
        as_claimed = interval.low * sign > 0
        reached = SUPPORTED if as_claimed else CONTRADICTED
        side = "claimed" if as_claimed else "other"
        why = f"The whole interval lies on the {side} side of 0."
    else:
        reached = INCONCLUSIVE
        why = "The interval holds 0. " + _would_take(evidence, interval, 0.0)
    return Claim(says, quantity, unit, interval, reached, why)


def _interval(evidence: Evidence, measure: str, samples: Sequence[Sample]) -> Interval | None:
    return evidence.interval(measure, average(samples), paired=True)


def _would_take(evidence: Evidence, interval: Interval | None, margin: float) -> str:
    """What would settle the matter, if the estimate stays where it is."""
    if interval is None or interval.low is None or interval.high is None:
        return "There is no interval: cannot say."
    distance = interval.estimate + margin if margin else abs(interval.estimate)
    if margin and distance <= 0:
        distance = -distance  # to show that it is worse by more than the margin
    needed = questions_needed(evidence.questions, interval, distance)
    if needed is None or needed > 10_000_000:
        return "The estimate lies on the line, so no feasible number of questions would settle it."
    return f"If the estimate stays, it takes about {_two_digits(needed):,} test questions."


def _two_digits(number: int) -> int:
    return int(float(f"{number:.2g}"))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
