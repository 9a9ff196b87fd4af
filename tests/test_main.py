"""`python -m regrow` without a stage, or with one that there is not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = {
    path.stem
    for room in ("stages", "commands")
    for path in (ROOT / "src/regrow" / room).glob("*.py")
    if path.stem != "__init__"
}


def regrow(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "regrow", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_stage_every_stage_is_listed_with_what_it_does(
    arguments: tuple[str, ...],
) -> None:
    done = regrow(*arguments)
    assert done.returncode == 0
    first, _, *lines = done.stdout.splitlines()
    assert first.startswith("usage: python -m regrow NAME")
    listed = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert listed.keys() == STAGES
    assert all(listed.values())


@pytest.mark.parametrize("name", ["prunes", "__init__", ""])
def test_a_stage_that_there_is_not_is_refused_with_the_list(name: str) -> None:
    done = regrow(name)
    assert done.returncode == 1
    said = f"regrow: there is no stage or command {name!r}.\n\nusage: python -m regrow"
    assert done.stderr.startswith(said)
    assert done.stdout == ""
