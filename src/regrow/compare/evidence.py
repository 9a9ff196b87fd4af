"""One study's predictions → every measure of every model, with the draws that make intervals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from regrow.compare.answers import Answers, Model
from regrow.compare.bootstrap import (
    Counts,
    Interval,
    Resamples,
    Sample,
    interval_of,
    mean_sample,
    over_seeds,
    resample,
)
from regrow.compare.measures import MEASURES
from regrow.compare.significance import Paired, holm, paired_test
from regrow.compare.study import LOSSES, Cell, Study, cells_of, check_study, run_names
from regrow.evaluate.accuracy import chance, longest_choice
from regrow.evaluate.predictions import Predictions
from regrow.evaluate.ranking import Normalisation
from regrow.support.schema import Compare, Sweep

Samples = Mapping[str, Sample]
"""A sample by measure."""


@dataclass(frozen=True)
class CellEvidence:
    """What is known of one cell.

    methods: the samples of each of `METHODS`. regrew: the losses whose students clearly beat both
    the longest choice and the pruned model that they started from. named: `primary` or `secondary`
    where the study named the cell before its run, else `exploratory`. holm_p: the paired test's p,
    adjusted for the cells of its family.
    """

    place: Cell
    retention: float
    mlp_retention: float
    methods: Mapping[str, Samples]
    paired: Paired
    regrew: Sequence[str]
    named: str
    holm_p: float | None = None

    def difference(self, measure: str) -> Sample:
        """Distill minus finetune, paired by question and seed."""
        return self.methods["distill"][measure] - self.methods["finetune"][measure]


@dataclass(frozen=True)
class Evidence:
    """All cells, by score, train size and sparsity, and what they stand on."""

    questions: int
    calibration: int
    seeds: Sequence[int]
    settings: Compare
    chance: float
    longest_choice: Sample
    draws: Resamples
    models: Mapping[str, Model]
    cells: Sequence[CellEvidence]

    def interval(self, measure: str, sample: Sample, paired: bool = False) -> Interval | None:
        """The interval of a sample of `measure`; `paired` for a difference of two."""
        kind = MEASURES[measure]
        bounds = kind.bounds
        if bounds and paired:
            bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
        return interval_of(sample, self.settings.confidence, kind.centred, bounds, self.questions)

    def runs(self, cell: CellEvidence, method: str) -> list[Model]:
        """A method's models at a cell, one a seed."""
        return [self.models[name] for name in cell.place.runs(method, self.seeds)]


def gather(
    study: Study, sweep: Sweep, settings: Compare, measures: Collection[str] = MEASURES
) -> Evidence:
    """Every measure of every model on the test split, on the same draws of questions and seeds.

    Conformal sets are calibrated on the calibration split, whose questions are resampled too.
    Several seeds' measures are averaged, each seed's model taken for itself.
    """
    check_study(study)
    teacher = study["teacher"]
    test, held = teacher.of_split("test"), teacher.of_split("calibration")
    draws = resample(len(test), len(sweep.seed), settings.resamples, settings.seed)
    held_draws = resample(len(held), 1, settings.resamples, settings.seed, stream=1).questions
    models: dict[str, Model] = {}
    for name in run_names(sweep):
        loss, _, rest = name.partition("/")
        models[name] = replace(
            model_of(study[name], settings, draws, held_draws),
            teacher=models.get("teacher"),
            pruned=models[f"pruned/{rest.rsplit('-', 2)[0]}"] if loss in LOSSES else None,
        )
    measured = {
        name: {measure: found for measure in measures if (found := MEASURES[measure](model))}
        for name, model in models.items()
    }

    def samples(names: Sequence[str]) -> dict[str, Sample]:
        each = [measured[name] for name in names]
        return {measure: over_seeds([one[measure] for one in each], draws) for measure in each[0]}

    evidence = Evidence(
        questions=len(test),
        calibration=len(held),
        seeds=sweep.seed,
        settings=settings,
        chance=float(chance(test).mean()),
        longest_choice=mean_sample(longest_choice(test)[None], draws),
        draws=draws,
        models=models,
        cells=[],
    )
    cells = []
    for place in cells_of(sweep):
        size = study[place.pruned]
        methods = {
            method: samples(place.runs(method, sweep.seed))
            for method in ("teacher", "pruned", *LOSSES)
        }
        hits = {
            loss: np.stack([models[name].test.hits for name in place.runs(loss, sweep.seed)])
            for loss in LOSSES
        }
        floors = (evidence.longest_choice, methods["pruned"]["accuracy"])
        cells.append(
            CellEvidence(
                place=place,
                retention=size.parameters / teacher.parameters,
                mlp_retention=size.mlp_parameters / teacher.mlp_parameters,
                methods=methods,
                paired=paired_test(hits["distill"], hits["finetune"]),
                regrew=[
                    loss
                    for loss in LOSSES
                    if all(_beats(evidence, methods[loss]["accuracy"], floor) for floor in floors)
                ],
                named=_named(place, settings),
            )
        )
    return replace(evidence, cells=_adjusted(cells))


def model_of(
    run: Predictions, settings: Compare, draws: Resamples, held_draws: Counts | None
) -> Model:
    """A run's model, under the rule that decides its accuracy and, beside it, the raw one."""
    splits = run.of_split("test"), run.of_split("calibration")

    def under(rule: Normalisation) -> Model:
        test, held = (Answers.of(part, rule) for part in splits)
        return Model(test, held, draws, held_draws, settings.confidence)

    decided = under(settings.accuracy)
    return decided if settings.accuracy == "raw" else replace(decided, raw=under("raw"))


def _beats(evidence: Evidence, student: Sample, floor: Sample) -> bool:
    found = evidence.interval("accuracy", student - floor, paired=True)
    return found is not None and found.low is not None and found.low > 0


def _named(place: Cell, settings: Compare) -> str:
    if str(place) in settings.primary:
        return "primary"
    return "secondary" if str(place) in settings.secondary else "exploratory"


def _adjusted(cells: Sequence[CellEvidence]) -> list[CellEvidence]:
    """Correct once over what was named before the run; over all cells, what was looked for after.

    A cell in which nothing regrew is not tested, but counts among the tests made.
    """
    p = [cell.paired.p if cell.regrew else None for cell in cells]
    family = [index for index, cell in enumerate(cells) if cell.named != "exploratory"]
    adjusted = holm(p)
    for index, value in zip(family, holm([p[index] for index in family]), strict=True):
        adjusted[index] = value
    return [replace(cell, holm_p=value) for cell, value in zip(cells, adjusted, strict=True)]
