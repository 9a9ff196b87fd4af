"""What a run's bytes hang on: printed, recorded, and compared with the committed results."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import PARAMS
from regrow.commands.doctor import bfloat16, verdict
from regrow.support.environment import LIBRARIES, describe, differences, has_bfloat16_products, read
from regrow.support.errors import UserError
from regrow.support.schema import Compute
from tiny_models import regrow, write_params

ROOT = Path(__file__).parents[1]
COMPUTE = Compute.model_validate(PARAMS["compute"])


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, without colour."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")


def record(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    write_params(folder)
    arguments = ("doctor", "--record", "environment.json")
    assert regrow(monkeypatch, folder, *arguments) == 0


def test_the_machine_that_made_the_results_gives_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(monkeypatch, tmp_path)
    assert capsys.readouterr().out == ""
    assert regrow(monkeypatch, tmp_path, "doctor") == 0
    printed = capsys.readouterr().out
    assert "gives the very bytes of these results" in printed
    assert "differs" not in printed
    for fixed in ("threads", "vector instructions", "torch", "sweep.seed [0]"):
        assert fixed in printed


@pytest.mark.parametrize("name", ["vector instructions", "threads", "torch", "processor"])
def test_what_other_bytes_come_from_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(monkeypatch, tmp_path)
    described = read(tmp_path / "environment.json")
    (tmp_path / "environment.json").write_text(json.dumps({**described, name: "other"}), "utf-8")
    assert regrow(monkeypatch, tmp_path, "doctor") == 0
    printed = capsys.readouterr().out
    assert f"Other bytes are to be expected, for these differ: {name}." in printed
    assert "other" in printed


def test_every_library_that_computes_is_described() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {re.split(r"[=<>[]", one)[0] for one in project["dependencies"]}
    # What fetches, checks, orders stages and prints, and computes no number.
    others = {"datasets", "dvc", "huggingface-hub", "jinja2", "networkx", "pydantic", "rich"}
    assert needed - others - {"ruamel.yaml", "typer"} == set(LIBRARIES)


def test_a_variable_that_changes_the_arithmetic_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe(COMPUTE)
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    here = describe(COMPUTE)
    assert differences(here, before) == ["MKL_ENABLE_INSTRUCTIONS"]
    assert here["MKL_ENABLE_INSTRUCTIONS"] == "AVX2"
    assert "these differ: MKL_ENABLE_INSTRUCTIONS." in verdict(
        differences(here, before), Path("none.json")
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx512f amx_tile", False),
        ("", False),
    ],
)
def test_bfloat16_products_are_the_processors_word(
    line: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regrow.support.environment._cpuinfo", lambda: f"model name\t: one\n{line}")
    assert has_bfloat16_products("cpu") is expected
    assert ("has instructions" in bfloat16("cpu")) is expected
    there = {**PARAMS["compute"], "mixed_precision": "bfloat16"}
    described = describe(Compute.model_validate(there))
    assert (described["bfloat16 products"] == "none") is not expected
    assert "bfloat16 products" not in describe(COMPUTE)


def test_bfloat16_products_here_are_what_torch_says() -> None:
    expected = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert has_bfloat16_products("cpu") == expected


def test_another_python_is_harmless(tmp_path: Path) -> None:
    here = describe(COMPUTE)
    differing = differences(here, {**here, "Python": "3.99"})
    assert differing == ["Python"]
    assert "very bytes" in verdict(differing, tmp_path / "none.json")


def test_the_tolerance_is_the_one_measured(tmp_path: Path) -> None:
    measured: dict[str, Any] = {
        "questions": 123,
        "settings": {"few instructions": {}},
        "largest": {"teacher": 0.25, "retrained": 1.75, "difference": 2.5},
    }
    path = tmp_path / "portability.json"
    path.write_text(json.dumps(measured), encoding="utf-8")
    here = describe(COMPUTE)
    said = verdict(differences(here, {**here, "threads": "9"}), path)
    for part in ("123 test questions (few instructions)", "0.2 points", "1.8", "2.5"):
        assert part in said


@pytest.mark.parametrize("text", [None, "", "[]", '{"torch": 2}', "{"])
def test_a_record_that_says_nothing_is_one_sentence(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="doctor --record"):
        read(path)


def test_the_committed_results_were_made_with_the_pinned_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    described = read(ROOT / "environment.json")
    for name in ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow"):
        assert described[name].partition("+")[0] == pinned[name]
