"""Every study in studies/ is a complete and valid params.yaml."""

import math
import re
from pathlib import Path

import pytest
from ruamel import yaml

from regrow.compare.controls import read_controls
from regrow.compare.study import run_names
from regrow.support.params import read_params
from regrow.support.schema import Params

ROOT = Path(__file__).parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


def test_the_four_studies_are_there():
    assert {path.stem for path in STUDIES} >= {"smoke", "quick", "csqa-full", "olmo2-7b"}


@pytest.mark.parametrize("path", [*STUDIES, ROOT / "params.yaml"], ids=lambda path: path.stem)
def test_the_schema_fills_nothing_in(path):
    # What is left to a default would change with the schema, on which no stage depends, and would
    # not be in the experiment's table.
    said = yaml.YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    assert read_params(path).model_dump() == said


def test_no_key_has_a_default():
    def sections(model):
        for name, field in model.model_fields.items():
            assert field.is_required(), f"{model.__name__}.{name}"
            if hasattr(field.annotation, "model_fields"):
                sections(field.annotation)

    sections(Params)


def test_quick_is_the_default():
    # To the byte: `make repro STUDY=…` overwrites a params.yaml that is a study already.
    assert (ROOT / "studies" / "quick.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize("name", ["smoke", "quick", "csqa-full"])
def test_sources_that_can_be_pinned_are_pinned(name):
    params = read_params(ROOT / "studies" / f"{name}.yaml")
    assert params.model.sha256
    assert params.data.sha256
    assert params.data.test_source is None or params.data.test_sha256


def test_smoke_uses_the_default_model_and_questions():
    smoke, quick = (read_params(ROOT / "studies" / f"{name}.yaml") for name in ("smoke", "quick"))
    assert smoke.model == quick.model
    assert (smoke.data.source, smoke.data.sha256) == (quick.data.source, quick.data.sha256)


def test_official_split_is_that_of_the_official_addresses():
    params = read_params(ROOT / "studies" / "csqa-full.yaml")
    sources = (params.data.source, params.data.test_source)
    assert [Path(str(source)).name for source in sources] == [
        "train_rand_split.jsonl",
        "dev_rand_split.jsonl",
    ]
    assert params.data.test == 1221


HALF = {
    "l2": {"sweep.train_size"},
    "data-steps": {"sweep.train_size", "training.steps"},
    "curve": {"sweep.sparsity", "sweep.train_size"},
    "gold-branch": {"sweep.train_size", "distill.branches"},
    "ce-rows": {"sweep.train_size", "training.steps"},
    "teacher-choices": {"sweep.train_size", "finetune.labels"},
    "reverse-kl": {"sweep.train_size", "distill.divergence"},
    "jensen-shannon": {"sweep.train_size", "distill.divergence"},
    "temperature-2": {"sweep.train_size", "distill.temperature"},
    "teacher-1860": {"sweep.train_size", "teacher.train_size"},
    "gradual": {"sweep.train_size", "prune.steps"},
}
"""What each part of `half` varies."""
CHOSEN = ("finetune.learning_rate", "distill.learning_rate", "compare.primary", "compare.secondary")


def by_key(values, section=""):
    for name, value in values.items():
        if isinstance(value, dict) and f"{section}{name}" not in CHOSEN:
            yield from by_key(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


def test_the_parts_of_half_differ_in_what_they_vary_alone():
    folder = ROOT / "studies"
    assert {path.stem.removeprefix("half-") for path in folder.glob("half-*.yaml")} == HALF.keys()
    half = dict(by_key(read_params(folder / "half.yaml").model_dump()))
    for part, varied in HALF.items():
        found = dict(by_key(read_params(folder / f"half-{part}.yaml").model_dump()))
        differ = {key for key in half if half[key] != found[key]} - set(CHOSEN)
        assert differ - {"sweep.score"} == varied, part
        # Every cell that is not of half.yaml's own sweep is named before its run.
        assert found["compare.primary" if part == "l2" else "compare.secondary"], part


def test_the_parts_of_half_are_those_that_make_runs_and_controls_compare():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    (parts,) = re.findall(r"^half: PARTS := (.*)$", makefile, re.MULTILINE)
    assert set(parts.split()) == {"primary", *HALF}
    controls = read_controls(ROOT / "results" / "half" / "controls.yaml")
    for arm in controls.arms.values():
        name = "half" if arm.study == "primary" else f"half-{arm.study}"
        sweep = read_params(ROOT / "studies" / f"{name}.yaml").sweep
        assert set(arm.runs) <= set(run_names(sweep)), arm


def test_equal_steps_are_those_of_more_questions_at_equal_epochs():
    folder = ROOT / "studies"
    half, steps = (read_params(folder / f"half{name}.yaml") for name in ("", "-data-steps"))
    fewest, more, _ = half.sweep.train_size
    assert steps.sweep.train_size == [fewest]
    assert steps.training.steps == math.ceil(more * half.training.epochs / half.training.batch_size)


def test_the_paper_prunes_up_to_half_of_the_model():
    params = read_params(ROOT / "studies" / "olmo2-7b.yaml")
    assert not params.teacher.finetune
    assert params.compute.device == "cuda"
    assert re.match(r"hf:allenai/OLMo-2-1124-7B-SFT@", params.model.source)
    # OLMo2-7B: 32 layers of three 4096 by 11008 matrices among 7.30 billion parameters.
    mlp_share = 32 * 3 * 4096 * 11008 / 7.2986e9
    assert 1 - max(params.sweep.sparsity) * mlp_share == pytest.approx(0.5, abs=0.01)
