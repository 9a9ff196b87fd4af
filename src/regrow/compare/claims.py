"""The paper's claims, each with this study's estimate, interval and verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from regrow.compare.bootstrap import Interval, Sample, as_json, average, over_seeds
from regrow.compare.evidence import CellEvidence, Evidence
from regrow.compare.measures import MEASURES
from regrow.compare.significance import questions_needed
from regrow.compare.tables import NOT_TESTABLE

HALF = (0.45, 0.55)  # retentions that count as "about half of the parameters"
CLAIMED = (0.03, 0.05)  # the lead that the paper reports there
SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOTHING = "Nothing regrew: no student clearly beats the longest choice and its pruned model."


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
    interval: Interval | None
    verdict: str
    why: str


def claims(evidence: Evidence, equal: str) -> dict[str, Claim]:
    """The claims of Sander et al. 2025 (arXiv 2505.18166) by name, judged on the test split.

    Each by the cells that count: those in which a student regrew something (`CellEvidence`).

    equal: what trainings on more questions have in common with those on fewer, `epochs` or `steps`.
    """
    largest = max(cell.place.train_size for cell in evidence.cells)
    counted = [cell for cell in evidence.cells if cell.regrew]
    at_largest = [cell for cell in counted if cell.place.train_size == largest]
    matches = _matches(evidence, counted)
    found = {"kl_matches_ce": matches}
    scores = list(dict.fromkeys(cell.place.score for cell in evidence.cells))
    for score in scores:
        name = "three_to_five_points" + f"_{score}" * (len(scores) > 1)
        found[name] = _three_to_five(
            evidence,
            [c for c in evidence.cells if (c.place.score, c.place.train_size) == (score, largest)],
        )
    for name, measure, words, sign in (
        ("lead_grows_with_data", "accuracy", "KL's lead in accuracy grows with the train data", 1),
        (
            "uncertainty_improves_with_data",
            "nll_scaled",
            "KL's uncertainty gets better with the train data, more than CE's",
            -1,
        ),
    ):
        found[name] = _data_scaling(evidence, counted, measure, words, sign, equal)
    for name, measure in (
        ("better_nll", "nll"),
        ("better_nll_scaled", "nll_scaled"),
        ("better_calibration", "ece"),
        ("smaller_sets", "lac_size_0.1"),
    ):
        found[name] = _judged(
            evidence,
            f"KL gives better uncertainty than CE: {MEASURES[measure].label}",
            f"KL - CE at {largest:,} train questions, mean over cells",
            measure,
            at_largest,
            sign=-1,
        )
    found["labels_not_needed"] = _without_labels(evidence, counted, matches)
    return found


def claims_json(evidence: Evidence, equal: str = "epochs") -> dict[str, Any]:
    """`claims.json`: the claims by name; a number that cannot be had is null."""
    found: dict[str, Any] = {}
    for name, claim in claims(evidence, equal).items():
        caveat = (
            " One seed: the noise of training is not in the interval."
            if claim.interval is not None and len(evidence.seeds) == 1
            else ""
        )
        found[name] = {
            "claim": claim.says,
            "quantity": claim.quantity,
            "unit": claim.unit,
            **(as_json(claim.interval) or dict.fromkeys(("estimate", "low", "high"))),
            "verdict": claim.verdict,
            "why": claim.why + caveat,
        }
    return found


def _matches(evidence: Evidence, cells: Sequence[CellEvidence]) -> Claim:
    settings = evidence.settings
    claim = _judged(
        evidence,
        "Under identical pruning, KL matches or exceeds CE in test accuracy",
        "accuracy, KL - CE, mean over cells",
        "accuracy",
        cells,
        sign=1,
        line=-settings.margin,
    )
    if not cells:
        return claim
    alpha = 1 - settings.confidence
    clear = [
        cell.paired.only_right - cell.paired.only_other
        for cell in cells
        if cell.holm_p is not None and cell.holm_p < alpha
    ]
    better, worse = sum(gap > 0 for gap in clear), sum(gap < 0 for gap in clear)
    left_out = len(evidence.cells) - len(cells)
    aside = f"; in {left_out} more nothing regrew" if left_out else ""
    why = (
        f"KL is clearly better in {better} and clearly worse in {worse} of "
        f"{_plural(len(cells), 'cell')} (exact paired test, Holm-adjusted p < {alpha:.2g}{aside}); "
        f"the margin is {100 * settings.margin:g} points."
    )
    return replace(claim, why=f"{why} {claim.why}")


def _three_to_five(evidence: Evidence, cells: Sequence[CellEvidence]) -> Claim:
    """Of one score's cells at the largest train size, the one nearest to half."""
    nearest = min(cells, key=lambda cell: abs(cell.retention - 0.5))
    kept = f"{100 * nearest.retention:.0f} %"
    claim = Claim(
        says="KL is 3 to 5 points better where about half of the parameters are left",
        quantity=f"accuracy, KL - CE, at {kept} retention, pruned by {nearest.place.score}",
        unit="fraction",
        interval=None,
        verdict=NOT_TESTABLE,
        why=NOTHING,
    )
    if not HALF[0] <= nearest.retention <= HALF[1]:
        share = (1 - nearest.retention) / nearest.place.sparsity
        wanted = 0.5 / share if share else 1.0
        take = (
            f"sparsity {wanted:.2f} would keep half"
            if wanted < 1
            else "pruning MLPs alone cannot reach half of this model"
        )
        return replace(
            claim,
            quantity="accuracy, KL - CE, at the retention nearest to 50 %",
            why=f"No model of the sweep keeps {100 * HALF[0]:.0f} to {100 * HALF[1]:.0f} % of the "
            f"teacher's parameters; the nearest keeps {kept}, and {take}.",
        )
    if not nearest.regrew:
        return claim
    interval = evidence.interval("accuracy", nearest.difference("accuracy"), paired=True)
    if interval is None or interval.low is None or interval.high is None:
        return replace(claim, interval=interval, why="There is no interval: cannot say.")
    where, why = position(interval.low, interval.high)
    return replace(claim, interval=interval, verdict=where, why=why)


def position(low: float, high: float) -> tuple[str, str]:
    """Where an interval lies to the claimed 3 to 5 points, in one word and in a sentence."""
    if high < CLAIMED[0]:
        return "below", "The whole interval is smaller than the claimed 3 to 5 points."
    if low > CLAIMED[1]:
        return "above", "The whole interval is larger than the claimed 3 to 5 points."
    if CLAIMED[0] <= low and high <= CLAIMED[1]:
        return "inside", "The whole interval lies within the claimed 3 to 5 points."
    zero = "lies above 0" if low > 0 else "lies below 0" if high < 0 else "holds 0 too"
    return "overlapping", f"The interval holds claimed values and others, and {zero}."


def _data_scaling(
    evidence: Evidence,
    cells: Sequence[CellEvidence],
    measure: str,
    says: str,
    sign: int,
    equal: str,
) -> Claim:
    """A difference of differences: KL - CE with the most train questions less that with the fewest.

    Over the scores and sparsities at which something regrew with both.
    """
    sizes = sorted({cell.place.train_size for cell in evidence.cells})
    few, many = sizes[0], sizes[-1]
    unit = MEASURES[measure].unit
    if few == many:
        why = f"The sweep has one train size ({few:,}): add a second one to sweep.train_size."
        quantity = "KL - CE, most train questions - fewest"
        return Claim(says, quantity, unit, None, NOT_TESTABLE, why)
    at = {cell.place: cell for cell in cells}
    pairs = [
        (cell, at[place])
        for cell in cells
        if cell.place.train_size == many and (place := replace(cell.place, train_size=few)) in at
    ]

    def gap(loss: str) -> Interval | None:
        changes = [
            most.methods[loss][measure] - least.methods[loss][measure] for most, least in pairs
        ]
        return evidence.interval(measure, average(changes), paired=True)

    quantity = (
        f"{MEASURES[measure].label}, KL - CE, at {many:,} - at {few:,} train questions and equal "
        f"{equal}"
    )
    if not pairs:
        return Claim(says, quantity, unit, None, NOT_TESTABLE, NOTHING)
    lead = average([most.difference(measure) - least.difference(measure) for most, least in pairs])
    interval = evidence.interval(measure, lead, paired=True)
    claim = _verdict(evidence, Claim(says, quantity, unit, interval, "", ""), sign, 0.0)
    alone = " and ".join(
        f"by {_signed(gap(loss), unit)} under {name}"
        for loss, name in (("distill", "KL"), ("finetune", "CE"))
    )
    return replace(claim, why=f"{claim.why} It changes {alone}.")


def _without_labels(evidence: Evidence, cells: Sequence[CellEvidence], matches: Claim) -> Claim:
    """Supported if KL recovers accuracy, and as much as the loss that sees the labels does."""
    claim = _judged(
        evidence,
        "Labels are not needed: KL recovers what pruning lost without any",
        "accuracy, KL - pruned only, mean over cells",
        "accuracy",
        cells,
        sign=1,
        other="pruned",
    )
    reached, why = claim.verdict, claim.why
    if reached == SUPPORTED and matches.verdict != SUPPORTED:
        reached = matches.verdict
        why += f" Whether it recovers as much as with labels is {matches.verdict} (KL against CE)."
    why += " KL itself sees no label; with teacher.finetune the teacher has seen them."
    return replace(claim, verdict=reached, why=why)


def _judged(
    evidence: Evidence,
    says: str,
    quantity: str,
    measure: str,
    cells: Sequence[CellEvidence],
    sign: int,
    line: float = 0.0,
    other: str = "finetune",
) -> Claim:
    """A claim that KL - `other`, mean over cells, lies above `line` (sign 1) or below it (-1)."""
    unit = MEASURES[measure].unit
    if not cells:
        return Claim(says, quantity, unit, None, NOT_TESTABLE, NOTHING)
    found = average(
        [cell.methods["distill"][measure] - cell.methods[other][measure] for cell in cells]
    )
    calibrated = 0.0
    if MEASURES[measure].calibrated and evidence.calibration:
        fixed = average(
            [
                _fixed(evidence, cell, "distill", measure) - _fixed(evidence, cell, other, measure)
                for cell in cells
            ]
        )
        calibrated = max(0.0, 1 - float(fixed.draws.var() / (found.draws.var() or 1)))
    claim = Claim(says, quantity, unit, evidence.interval(measure, found, paired=True), "", "")
    return _verdict(evidence, claim, sign, line, calibrated)


def _verdict(
    evidence: Evidence, claim: Claim, sign: int, line: float, calibrated: float = 0.0
) -> Claim:
    """The claim with what its interval says; both sides by the same rule.

    calibrated: the share of the variance that comes from the calibration questions.
    """
    interval = claim.interval
    if interval is None or interval.low is None or interval.high is None:
        return replace(claim, verdict=INCONCLUSIVE, why="There is no interval: cannot say.")
    at = f"{100 * line:+g} points" if line else "0"
    if interval.low > line or interval.high < line:
        as_claimed = (interval.low > line) == (sign > 0)
        reached = SUPPORTED if as_claimed else CONTRADICTED
        side = "claimed" if as_claimed else "other"
        return replace(
            claim, verdict=reached, why=f"The whole interval lies on the {side} side of {at}."
        )
    take = _would_take(evidence, interval, abs(interval.estimate - line), calibrated)
    return replace(claim, verdict=INCONCLUSIVE, why=f"The interval holds {at}. {take}")


def _fixed(evidence: Evidence, cell: CellEvidence, method: str, measure: str) -> Sample:
    """A measure with the calibration questions as they are."""
    samples = []
    for model in evidence.runs(cell, method):
        found = MEASURES[measure](replace(model, held_draws=None))
        assert found is not None
        samples.append(found)
    return over_seeds(samples, evidence.draws)


def _would_take(evidence: Evidence, interval: Interval, distance: float, calibrated: float) -> str:
    """What would settle the matter, if the estimate stays where it is."""
    assert interval.low is not None and interval.high is not None
    held = (interval.high - interval.low) / 2 * calibrated**0.5
    kind, needed = "test", questions_needed(evidence.questions, interval, distance, held)
    if needed is None:
        alone = Interval(0.0, -held, held)
        kind, needed = "calibration", questions_needed(evidence.calibration, alone, distance)
    if needed is None or needed > 10_000_000:
        return "The estimate lies on the line, so no feasible number of questions would settle it."
    short = "" if kind == "test" else ", however many test questions there are"
    return f"If the estimate stays, it takes about {_two_digits(needed):,} {kind} questions{short}."


def _signed(interval: Interval | None, unit: str) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return "an unknown amount"
    scale, digits, words = (100, 1, "points") if unit == "fraction" else (1, 3, unit)
    number, low, high = (
        f"{scale * value:+.{digits}f}" for value in (interval.estimate, interval.low, interval.high)
    )
    return f"{number} [{low}, {high}] {words}"


def _two_digits(number: int) -> int:
    return int(float(f"{number:.2g}"))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
