"""Numbers in words, for the report and for `python -m regrow show`."""

from collections.abc import Mapping, Sequence
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


def interval(value: Json, sign: str = "") -> str:
    """`41.2 [37.0, 45.5]`: fractions in percent; where no interval can be had it says so."""
    return _spelled({name: _times_100(value[name]) for name in value}, sign, 1)


def quantity(value: Json | None, unit: str, sign: str = "") -> str:
    """An estimate with its interval in its unit; `cannot say` for null or what is not there.

    unit: `fraction`, shown in percent, `choices`, to two decimals, or another, to three.
    """
    if value is None or value["estimate"] is None:
        return CANNOT_SAY
    if unit == "fraction":
        return interval(value, sign)
    return _spelled(value, sign, 2 if unit == "choices" else 3)


def estimate(claim: Json) -> str:
    """The claim's number in its unit, with its interval: fractions in percentage points."""
    if claim["estimate"] is None:
        return CANNOT_SAY
    if claim["unit"] == "fraction":
        return f"{interval(claim, '+')} points"
    return f"{_spelled(claim, '+', 2)} {claim['unit']}"


def p_value(value: float | None) -> str:
    """Three digits of a p-value."""
    return CANNOT_SAY if value is None else "< 0.0001" if value < 0.0001 else f"{value:.3g}"


def notes(comparison: Json) -> str:
    """What the numbers of a comparison stand on."""
    rule = {"raw": "raw", "per_character": "per character"}[comparison["accuracy"]]
    seeds = comparison["seeds"]
    over = (
        "questions (one seed: the noise of training is not in them)"
        if seeds == 1
        else f"questions and {seeds} seeds"
    )
    return (
        f"Accuracy {rule} on {comparison['questions']:,} test questions; chance "
        f"{100 * comparison['chance']:.1f} %, longest choice "
        f"{100 * comparison['longest_choice']:.1f} %. "
        f"[{100 * comparison['confidence']:g} % bootstrap intervals] over {over}."
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times_100(value: Any) -> Any:
    return 100 * value if isinstance(value, float | int) else value


def _spelled(value: Json, sign: str, digits: int) -> str:
    low, high = value["low"], value["high"]
    form = f"{sign}.{digits}f"
    ends = "(no interval)" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"
    return f"{value['estimate']:{form}} {ends}"
