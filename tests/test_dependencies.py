"""Every package that is installed for the project is pinned, at one version, the tested one."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PINS = ("constraints.txt", "benchmarks/constraints.txt", "constraints-trust.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(*files: str) -> dict[str, str]:
    """The version of each package."""
    lines = [line for file in files for line in (ROOT / file).read_text("utf-8").splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def needed(requirements: list[str]) -> set[str]:
    """These packages and all that they need in turn, as far as they are installed here."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    open_ones = [Requirement(line) for line in requirements]
    while open_ones:
        one = open_ones.pop()
        key = canonicalize_name(one.name), tuple(sorted(one.extras))
        if key in found:
            continue
        found.add(key)
        try:
            lines = importlib.metadata.requires(one.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        extras = one.extras or {""}
        for line in lines:
            further = Requirement(line)
            if not further.marker or any(further.marker.evaluate({"extra": e}) for e in extras):
                open_ones.append(further)
    # pip comes with Python's venv, and installs the others; torch pins its CUDA libraries itself.
    names = {name for name, _ in found} - {"pip"}
    return {name for name in names if not name.startswith(("nvidia-cu", "cuda-", "triton"))}


@pytest.mark.parametrize(
    ("requirements", "files"),
    [
        (PROJECT["dependencies"] + EXTRAS["test"], PINS[:1]),
        (EXTRAS["bench"], PINS[:2]),
        (EXTRAS["trust"], (PINS[0], PINS[2])),
    ],
    ids=["make repro and make test", "make bench", "make mutation and make audit"],
)
def test_every_package_is_pinned(requirements: list[str], files: tuple[str, ...]) -> None:
    assert needed(requirements) - pins(*files).keys() == set()


def test_no_package_is_pinned_at_two_versions() -> None:
    for name, version in pins(*PINS).items():
        assert {pins(file).get(name, version) for file in PINS} == {version}, name


def test_the_tests_run_with_the_pinned_versions() -> None:
    installed = {
        canonicalize_name(one.name): one.version for one in importlib.metadata.distributions()
    }
    for name, version in pins("constraints.txt").items():
        # Less what says for which device it was built, as 2.13.0+cpu.
        assert Version(installed.get(name, version)).public == version, name
