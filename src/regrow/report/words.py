"""Numbers in words, for the report and for `python -m regrow show`."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]
CANNOT_SAY = "cannot say"
NOTHING_REGREW = "nothing regrew"
LABELS = {
    "teacher": "teacher",
    "pruned": "pruned only",
    "finetune": "cross-entropy",
    "distill": "KL distillation",
}
CLAIMS = ("The paper's claim", "Estimate here", "Verdict", "Why, and what it would take")
DIGITS = {"fraction": 1, "points": 1, "choices": 2}  # after the point; of other units, three


def quantity(value: Json | None, unit: str, sign: str = "") -> str:
    """`41.2 [37.0, 45.5]`: an estimate with its interval in its unit, a `fraction` in percent.

    `cannot say` for null or what is not there; where no interval can be had it says so.
    """
    if value is None or value["estimate"] is None:
        return CANNOT_SAY
    scale, form = 100 if unit == "fraction" else 1, f"{sign}.{DIGITS.get(unit, 3)}f"
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return f"{scale * value['estimate']:{form}} (no interval)"
    return f"{scale * value['estimate']:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def interval(share: Json, sign: str = "") -> str:
    """A share in percent, or a difference of shares in points, with its interval."""
    return quantity(share, "fraction", sign)


def estimate(claim: Json) -> str:
    """The claim's number in its unit, with its interval: fractions in percentage points."""
    said = quantity(claim, claim["unit"] if claim["unit"] == "fraction" else "choices", "+")
    unit = "points" if claim["unit"] == "fraction" else claim["unit"]
    return said if said == CANNOT_SAY else f"{said} {unit}"


def claim_fields(claim: Json) -> tuple[str, str, str, str]:
    """A claim under `CLAIMS`."""
    quantity = f"{claim['quantity']}: {estimate(claim)}"
    return claim["claim"], quantity, claim["verdict"], claim["why"]


def p_value(value: float | None) -> str:
    """Three digits of a p-value."""
    return CANNOT_SAY if value is None else "< 0.0001" if value < 0.0001 else f"{value:.3g}"


def notes(comparison: Json) -> str:
    """What the numbers of a comparison stand on."""
    rule = {"raw": "raw", "per_character": "per character"}[comparison["accuracy"]]
    over = f"questions and {comparison['seeds']} seeds"
    if comparison["seeds"] == 1:
        over = "questions (one seed: the noise of training is not in them)"
    return (
        f"Accuracy {rule} on {comparison['questions']:,} test questions; chance "
        f"{100 * comparison['chance']:.1f} %, longest choice "
        f"{100 * comparison['longest_choice']:.1f} %. "
        f"[{100 * comparison['confidence']:g} % bootstrap intervals] over {over}."
    )
