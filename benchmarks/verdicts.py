"""How often `compare` reaches a false verdict, and how often a true one: on known truth.

    python -m benchmarks.verdicts [--draws 500] [--out benchmarks/verdicts.json]

Each draw is a whole study of synthetic predictions whose accuracies are known exactly: a question
is answered right where a Gaussian, whose parts are shared by all models, by the seeds of one loss
and by nobody, exceeds the threshold of that accuracy. Seeds differ by a shift of the threshold too,
which stands for the noise of training. They run through the code of the stage `compare`.
"""

import argparse
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from regrow.compare.bootstrap import average
from regrow.compare.claims import claims
from regrow.compare.evidence import gather
from regrow.compare.study import Cell, cells_of
from regrow.evaluate.predictions import Predictions
from regrow.support.schema import Compare, Sweep

TEST, HELD, CHOICES = 600, 200, 5
TEACHER, LONGEST, PRUNED = 0.52, 0.23, 0.26
FEW, MANY = 465, 7441
SWEEP = Sweep(score=["activation"], sparsity=[0.84], train_size=[FEW, MANY], seed=[0, 1, 2])
HALF, LEAST = (str(Cell("activation", 0.84, size)) for size in (MANY, FEW))
SETTINGS = Compare(
    accuracy="raw",
    confidence=0.95,
    resamples=250,
    seed=0,
    margin=0.02,
    primary=[HALF],
    secondary=[],
)
MEASURES = ("accuracy", "nll", "nll_scaled", "ece", "lac_size_0.1")
SHARED, OF_LOSS = 0.6, 0.15  # of a model's variance over questions; the rest is a run's own
TRAINING = 0.02  # standard deviation of a seed's threshold: about 0.7 points of accuracy


@dataclass(frozen=True)
class Truth:
    """The accuracies of a scenario, and the verdicts that would be false under it.

    finetune, distill: by train size. false: by claim, or by cell, the words that contradict the
    truth. aimed: a claim or cell and the word that the study is made to find.
    """

    finetune: dict[int, float]
    distill: dict[int, float]
    false: dict[str, tuple[str, ...]]
    aimed: tuple[str, str]


BOTH = ("supported", "contradicted")
UNCERTAINTY = ("better_nll", "better_nll_scaled", "better_calibration", "smaller_sets")
TRUTHS = {
    "no effect": Truth(
        finetune={FEW: 0.32, MANY: 0.36},
        distill={FEW: 0.32, MANY: 0.36},
        false={
            HALF: ("superior", "inferior"),
            LEAST: ("superior", "inferior"),
            "kl_matches_ce": ("contradicted",),
            "three_to_five_points": ("inside", "above"),
            "lead_grows_with_data": BOTH,
            "uncertainty_improves_with_data": BOTH,
            **dict.fromkeys(UNCERTAINTY, BOTH),
            "labels_not_needed": ("contradicted",),
        },
        aimed=("kl_matches_ce", "supported"),
    ),
    "4 points at half": Truth(
        finetune={FEW: 0.32, MANY: 0.34},
        distill={FEW: 0.36, MANY: 0.38},
        false={
            HALF: ("inferior", "not testable"),
            LEAST: ("inferior", "not testable"),
            "kl_matches_ce": ("contradicted",),
            "three_to_five_points": ("below", "above"),
            "lead_grows_with_data": BOTH,
            "labels_not_needed": ("contradicted",),
        },
        aimed=(HALF, "superior"),
    ),
    "at the floor": Truth(
        finetune={FEW: LONGEST, MANY: LONGEST},
        distill={FEW: LONGEST, MANY: LONGEST},
        false={
            HALF: ("superior", "inferior", "non-inferior", "inconclusive"),
            "kl_matches_ce": (*BOTH, "inconclusive"),
            "three_to_five_points": ("inside", "overlapping", "above", "below"),
            "labels_not_needed": (*BOTH, "inconclusive"),
        },
        aimed=(HALF, "not testable"),
    ),
    "a growing lead": Truth(
        finetune={FEW: 0.32, MANY: 0.34},
        distill={FEW: 0.33, MANY: 0.39},
        false={
            HALF: ("inferior", "not testable"),
            "kl_matches_ce": ("contradicted",),
            "lead_grows_with_data": ("contradicted",),
            "labels_not_needed": ("contradicted",),
        },
        aimed=("lead_grows_with_data", "supported"),
    ),
}


def study_of(truth: Truth, seed: int) -> dict[str, Predictions]:
    """Every run of `SWEEP`, drawn anew."""
    rng = np.random.default_rng(seed)
    size = TEST + HELD
    gold = rng.integers(0, CHOICES, size)
    characters = np.full((size, CHOICES), 10)
    longest = np.where(rng.random(size) < LONGEST, gold, (gold + rng.integers(1, 5, size)) % 5)
    characters[np.arange(size), longest] = 20
    shared = np.sqrt(SHARED) * rng.normal(size=size)

    def of_loss() -> Any:
        return np.sqrt(OF_LOSS) * rng.normal(size=size)

    def run(accuracy: float, own: Any, parameters: int, training: float = 0.0) -> Predictions:
        left = np.sqrt(1 - SHARED - OF_LOSS)
        latent = shared + own + left * rng.normal(size=size) + training * rng.normal()
        margin = latent - norm.isf(accuracy) * np.sqrt(1 + training**2)
        chosen = np.where(margin > 0, gold, (gold + rng.integers(1, CHOICES, size)) % CHOICES)
        scores = -2 - 0.3 * rng.random((size, CHOICES))
        scores[np.arange(size), chosen] = -1.9 + np.abs(margin)
        return Predictions(
            ids=IDS,
            splits=SPLITS,
            answers=gold.tolist(),
            log_probs=scores.tolist(),
            tokens=ONES,
            characters=characters.tolist(),
            parameters=parameters,
            mlp_parameters=parameters // 2,
        )

    runs = {"teacher": run(TEACHER, of_loss(), 1000)}
    for cell in cells_of(SWEEP):
        runs.setdefault(cell.pruned, run(PRUNED, of_loss(), 500))
        for loss in ("finetune", "distill"):
            own, accuracy = of_loss(), getattr(truth, loss)[cell.train_size]
            for run_seed in SWEEP.seed:
                runs[cell.run(loss, run_seed)] = run(accuracy, own, 500, TRAINING)
    return runs


IDS = [f"question-{index}" for index in range(TEST + HELD)]
SPLITS = ["calibration"] * HELD + ["test"] * TEST
ONES = [[1] * CHOICES] * (TEST + HELD)


def verdicts_of(name: str, draw: int) -> tuple[dict[str, str], float]:
    """Each verdict on one draw of a scenario, and the power that its own noise promises."""
    evidence = gather(study_of(TRUTHS[name], draw), SWEEP, SETTINGS, MEASURES)
    found = {str(cell.place): evidence.verdict(cell) for cell in evidence.cells}
    found |= {key: claim.verdict for key, claim in claims(evidence, "epochs").items()}
    half, least = (
        next(cell for cell in evidence.cells if str(cell.place) == key).difference("accuracy")
        for key in (HALF, LEAST)
    )
    truth = TRUTHS[name]
    few, many = (truth.distill[size] - truth.finetune[size] for size in (FEW, MANY))
    sample, effect = {
        HALF: (half, many),
        "lead_grows_with_data": (half - least, many - few),
        "kl_matches_ce": (average([half, least]), (many + few) / 2 + SETTINGS.margin),
    }[truth.aimed[0]]
    z = norm.ppf((1 + SETTINGS.confidence) / 2)
    return found, float(norm.cdf(effect / sample[1:].std() - z))


def rates(name: str, draws: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Verdict rates of a scenario, and how often each was false."""
    truth = TRUTHS[name]
    each = list(pool.map(verdicts_of, [name] * draws, range(draws), chunksize=5))
    words = {key: Counter(found[key] for found, _ in each).most_common() for key in each[0][0]}
    key, word = truth.aimed
    return {
        "verdicts": {key: {word: n / draws for word, n in found} for key, found in words.items()},
        "false": {
            key: sum(found[key] in wrong for found, _ in each) / draws
            for key, wrong in truth.false.items()
        },
        "aimed": {
            "at": key,
            "verdict": word,
            "rate": sum(found[key] == word for found, _ in each) / draws,
            "computed": float(np.mean([power for _, power in each])),
        },
    }


def table(found: dict[str, Any]) -> str:
    """The rates as a Markdown table, a row a scenario."""
    lines = [
        "| truth | most frequent false verdict | found | draws that find it | power, computed |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        claim, worst = max(one["false"].items(), key=lambda item: item[1])
        aimed = one["aimed"]
        power = "" if name == "at the floor" else f"{100 * aimed['computed']:.1f} %"
        lines.append(
            f"| {name} | {100 * worst:.1f} % (`{claim}`) | `{aimed['at']}`: {aimed['verdict']} "
            f"| {100 * aimed['rate']:.1f} % | {power} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Write the rates of every scenario, as JSON and into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/verdicts.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/verdicts.md"))
    asked = parser.parse_args()
    with ProcessPoolExecutor(asked.workers) as pool:
        found = {name: rates(name, asked.draws, pool) for name in TRUTHS}
    made = {"draws": asked.draws, "test": TEST, "calibration": HELD, "seeds": len(SWEEP.seed)}
    asked.out.write_text(json.dumps(made | {"scenarios": found}, indent=2) + "\n", "utf-8")
    page = asked.page.read_text("utf-8")
    before, after = page.split("<!-- rates -->")[0], page.split("<!-- /rates -->")[1]
    shown = table(found)
    asked.page.write_text(f"{before}<!-- rates -->\n{shown}\n<!-- /rates -->{after}", "utf-8")
    print(shown)


if __name__ == "__main__":
    main()
