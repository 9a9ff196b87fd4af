"""What tests/mutation names is there."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SETTINGS = yaml.safe_load((ROOT / "tests/mutation/modules.yaml").read_text(encoding="utf-8"))
EQUIVALENT = yaml.safe_load((ROOT / "tests/mutation/equivalent.yaml").read_text(encoding="utf-8"))


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
