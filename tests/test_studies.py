"""Every study in studies/ is a complete and valid params.yaml."""

import re
from pathlib import Path

import pytest
from ruamel import yaml

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


def test_the_paper_prunes_up_to_half_of_the_model():
    params = read_params(ROOT / "studies" / "olmo2-7b.yaml")
    assert not params.teacher.finetune
    assert params.compute.device == "cuda"
    assert re.match(r"hf:allenai/OLMo-2-1124-7B-SFT@", params.model.source)
    # OLMo2-7B: 32 layers of three 4096 by 11008 matrices among 7.30 billion parameters.
    mlp_share = 32 * 3 * 4096 * 11008 / 7.2986e9
    assert 1 - max(params.sweep.sparsity) * mlp_share == pytest.approx(0.5, abs=0.01)
