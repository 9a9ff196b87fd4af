"""One study's predictions → every measure of every model, with the draws that make intervals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from regrow.compare import bootstrap
from regrow.compare.answers import Answers, Model
from regrow.compare.bootstrap import Interval, Resamples, Sample
from regrow.compare.measures import MEASURES
from regrow.compare.significance import Paired, holm, paired_test, verdict
from regrow.compare.study import (
    LOSSES,
    METHODS,
    Cell,
    Study,
    cells_of,
    check_study,
    run_names,
    start_of,
)
from regrow.evaluate.accuracy import chance, longest_choice
from regrow.evaluate.ranking import Normalisation
from regrow.support.schema import Compare, Sweep

NOT_TESTABLE = "not testable"


@dataclass(frozen=True)
class CellEvidence:
    """What is known of one cell.

    methods: of each of `METHODS`, a sample by measure. intervals: by measure, of each method and
    of the `difference` distill - finetune. regrew: the losses whose students clearly beat both the
    longest choice and the pruned model that they started from. named: `primary` or `secondary`
    where the study named the cell before its run, else `exploratory`. holm_p: the paired test's p,
    adjusted for all cells that were named, or for all cells where this one was not.
    """

    place: Cell
    retention: float
    mlp_retention: float
    methods: Mapping[str, Mapping[str, Sample]]
    intervals: Mapping[str, Mapping[str, Interval]]
    paired: Paired
    regrew: Sequence[str]
    named: str
    holm_p: float = np.nan

    @property
    def lead(self) -> Interval:
        """Accuracy of distill minus finetune."""
        return self.intervals["accuracy"]["difference"]

    def difference(self, measure: str, other: str = "finetune") -> Sample:
        """Distill minus another method, paired by question and seed."""
        return self.methods["distill"][measure] - self.methods[other][measure]


@dataclass(frozen=True)
class Evidence:
    """All cells, by score, train size and sparsity, and what they stand on.

    questions, calibration: how many there are of each.
    """

    questions: int
    calibration: int
    seeds: Sequence[int]
    settings: Compare
    chance: float
    longest_choice: Sample
    draws: Resamples
    models: Mapping[str, Model]
    cells: Sequence[CellEvidence]

    def interval(self, measure: str, sample: Sample, paired: bool = False) -> Interval:
        """The interval of a sample of `measure`; `paired` for a difference of two."""
        kind, confidence = MEASURES[measure], self.settings.confidence
        bounds = kind.bounds
        if bounds and paired:
            bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
        return bootstrap.interval_of(sample, confidence, kind.centred, bounds, self.questions)

    def verdict(self, cell: CellEvidence) -> str:
        """What the lead says at the margin; a loss is ahead only if it is so among its family."""
        if not cell.regrew:
            return NOT_TESTABLE
        clear = cell.holm_p < 1 - self.settings.confidence
        return verdict(cell.lead, self.settings.margin, clear)

    def runs(self, place: Cell, method: str) -> list[Model]:
        """A method's models at a cell, one a seed."""
        return [self.models[name] for name in place.runs(method, self.seeds)]


def gather(
    study: Study,
    sweep: Sweep,
    settings: Compare,
    measures: Collection[str] = MEASURES,
    splits: Sequence[str] = ("test",),
    stream: int = 0,
) -> Evidence:
    """Every measure of every model on these splits, on the same draws of questions and seeds.

    Conformal sets are calibrated on the calibration split, whose questions are resampled too.
    Several seeds' measures are averaged, each seed's model taken for itself.
    """
    check_study(study)
    parts = splits, ("calibration",)
    test, held = (study["teacher"].of_split(*part) for part in parts)
    drawn = settings.resamples, settings.seed
    draws = bootstrap.resample(len(test), len(sweep.seed), *drawn, stream)
    of_held = bootstrap.resample(len(held), 1, *drawn, stream=1)
    models: dict[str, Model] = {}

    def model(name: str, rule: Normalisation) -> Model:
        run, teacher, pruned = study[name], models.get("teacher"), models.get(start_of(name))
        test, held = (Answers.of(run.of_split(*part), rule) for part in parts)
        return Model(test, held, draws, of_held.questions, settings.confidence, teacher, pruned)

    for name in run_names(sweep):
        raw = None if settings.accuracy == "raw" else model(name, "raw")
        models[name] = replace(model(name, settings.accuracy), raw=raw)
    evidence = Evidence(
        questions=len(test),
        calibration=len(held),
        seeds=sweep.seed,
        settings=settings,
        chance=float(chance(test).mean()),
        longest_choice=bootstrap.mean_sample(longest_choice(test)[None], draws),
        draws=draws,
        models=models,
        cells=[],
    )
    measured = {
        name: {
            measure: found
            for measure in measures
            if (found := MEASURES[measure](model)) is not None
        }
        for name, model in models.items()
    }
    cells = [_cell(evidence, study, place, measured) for place in cells_of(sweep)]
    return replace(evidence, cells=_adjusted(cells))


def _cell(
    evidence: Evidence, study: Study, place: Cell, measured: Mapping[str, Mapping[str, Sample]]
) -> CellEvidence:
    """What is known of a cell by itself, from every model's measures."""
    methods, intervals, settings = {}, {}, evidence.settings
    for method in METHODS:
        each = [measured[name] for name in place.runs(method, evidence.seeds)]
        methods[method] = {
            measure: bootstrap.over_seeds([one[measure] for one in each], evidence.draws)
            for measure in each[0]
        }
    for measure in methods["distill"]:
        intervals[measure] = {
            method: evidence.interval(measure, samples[measure])
            for method, samples in methods.items()
            if measure in samples
        }
        gap = methods["distill"][measure] - methods["finetune"][measure]
        intervals[measure]["difference"] = evidence.interval(measure, gap, paired=True)

    def beats_the_floor(loss: str) -> bool:
        floors = evidence.longest_choice, methods["pruned"]["accuracy"]
        gaps = [methods[loss]["accuracy"] - floor for floor in floors]
        return all(evidence.interval("accuracy", gap, paired=True).low > 0 for gap in gaps)

    finetune, distill = (
        np.stack([model.test.hits for model in evidence.runs(place, loss)]) for loss in LOSSES
    )
    named = dict.fromkeys(settings.secondary, "secondary")
    named |= dict.fromkeys(settings.primary, "primary")
    teacher, pruned = study["teacher"], study[place.pruned]
    return CellEvidence(
        place=place,
        retention=pruned.parameters / teacher.parameters,
        mlp_retention=pruned.mlp_parameters / teacher.mlp_parameters,
        methods=methods,
        intervals=intervals,
        paired=paired_test(distill, finetune),
        regrew=[loss for loss in LOSSES if beats_the_floor(loss)],
        named=named.get(str(place), "exploratory"),
    )


def _adjusted(cells: Sequence[CellEvidence]) -> list[CellEvidence]:
    """Correct once over what was named before the run; over all cells, what was looked for after.

    A cell in which nothing regrew is not tested, but counts among the tests made.
    """
    p = np.array([cell.paired.p if cell.regrew else np.nan for cell in cells])
    family = np.array([cell.named != "exploratory" for cell in cells])
    adjusted = holm(p)
    adjusted[family] = holm(p[family])
    return [replace(cell, holm_p=float(value)) for cell, value in zip(cells, adjusted, strict=True)]
