"""What tests/mutation names is there, and the committed figures are of it."""

import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SETTINGS = yaml.safe_load((ROOT / "tests/mutation/modules.yaml").read_text(encoding="utf-8"))
EQUIVALENT = yaml.safe_load((ROOT / "tests/mutation/equivalent.yaml").read_text(encoding="utf-8"))
FIGURES = ROOT / "docs/mutation.json"
LEAST = 0.85


@pytest.mark.parametrize("name", SETTINGS["modules"])
def test_a_modules_tests_are_there(name: str) -> None:
    assert (ROOT / f"src/regrow/{name}.py").is_file()
    text = "".join((ROOT / file).read_text("utf-8") for file in SETTINGS["modules"][name]["tests"])
    for left_out in SETTINGS["modules"][name]["without"]:
        assert f"def {left_out}(" in text


@pytest.mark.parametrize("one", EQUIVALENT, ids=lambda one: f"{one['module']}: {one['after']}")
def test_an_equivalent_mutant_is_of_the_code_as_it_is_and_has_its_reason(
    one: dict[str, str],
) -> None:
    text = (ROOT / f"src/regrow/{one['module']}.py").read_text("utf-8")
    assert one["before"] in text
    assert one["before"] != one["after"]
    assert one["reason"]


@pytest.mark.skipif(not FIGURES.exists(), reason="`make mutation` has not been run to its end")
def test_the_committed_figures_are_of_these_modules_and_enough_mutants_are_killed() -> None:
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert figures["modules"].keys() == SETTINGS["modules"].keys()
    assert figures["seed"] == SETTINGS["seed"]
    total = figures["total"]
    # Fewer by those that cosmic-ray could not make.
    assert 0.95 * SETTINGS["sample"] <= total["sampled"] <= SETTINGS["sample"]
    for counts in (total, *figures["modules"].values()):
        killed = counts["killed"] + counts["timeout"]
        assert killed + counts["survived"] == counts["sampled"]
        assert counts["kill_rate"] == pytest.approx(killed / counts["sampled"], abs=1e-4)
    assert total["kill_rate"] >= LEAST
