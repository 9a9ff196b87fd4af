"""DVC's own verbs with no flag, as a person types them in a terminal of 120 columns."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
import yaml

from conftest import ROOT, Study

WIDTH = 120
PLOTS = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["plots"]


@pytest.fixture(scope="module")
def experiment(reproduced: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with one experiment, `exp`, and its workspace as committed."""
    study = reproduced.copy(tmp_path_factory.mktemp("experiment"))
    study.dvc("exp", "run", "--name", "exp", "--set-param", "compare.accuracy=raw")
    study.git("stash", "--quiet")
    study.dvc("checkout", "--quiet")
    return study


def shown(study: Study, *verb: str) -> list[str]:
    """The lines that `dvc VERB` prints to a terminal of `WIDTH` columns, without colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
    kept = {name: value for name, value in study.environment.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *verb],
        cwd=study.root,
        env=kept | {"TERM": "xterm", "DVC_PAGER": "cat", "NO_COLOR": "1"},
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    printed = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that nobody holds the terminal any more
            break
        if not part:
            break
        printed += part
    os.close(ours)
    assert process.wait() == 0, printed.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode()).replace("\r\n", "\n")
    # What is left of a line of progress is overwritten by the next.
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in lines if line]


@pytest.mark.parametrize(
    ("verb", "rows", "words"),
    [
        (("metrics", "show"), 20, ["metrics/summary.json", "teacher"]),
        (("metrics", "diff", "HEAD", "exp"), 20, ["metrics/summary.json", "Change"]),
        (("params", "diff", "HEAD", "exp"), 4, ["compare.accuracy", "per_character", "raw"]),
        (("exp", "show", "--only-changed"), 12, ["exp", "raw"]),
    ],
    ids=["metrics show", "metrics diff", "params diff", "exp show"],
)
def test_a_verb_is_readable(experiment: Study, verb, rows, words):
    lines = shown(experiment, *verb)
    print(*lines, sep="\n")
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= rows
    for word in words:
        assert any(word in line for line in lines), word


def test_the_table_of_experiments_is_readable_where_every_number_changed(study: Study):
    # Baselines of another day, and names as DVC makes them up, are the widest.
    amended = ("commit", "--amend", "--quiet", "--allow-empty", "--no-edit")
    study.run("git", *amended, GIT_COMMITTER_DATE="2026-01-02T03:04:05")
    path = study.root / "metrics" / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    changed = {name: -12.3 if name[:2] in ("lo", "hi") else 87.6 for name in summary}
    path.write_text(json.dumps(changed), "utf-8")
    study.set(distill__temperature=2.0)
    study.dvc("exp", "save", "--name", "unbid-mobs")
    study.git("restore", ".")
    lines = shown(study, "exp", "show", "--only-changed")
    print(*lines, sep="\n")
    assert max(map(len, lines)) <= WIDTH
    (row,) = (line.split() for line in lines if "unbid-mobs" in line)
    assert set(map(str, [*changed.values(), 2])) <= set(row)
    assert all(any(name in line.split() for line in lines) for name in changed)


def test_the_summary_is_at_most_15_flat_numbers(experiment: Study):
    summary = json.loads((experiment.root / "metrics" / "summary.json").read_text("utf-8"))
    assert 4 <= len(summary) <= 15
    assert all(isinstance(value, int | float) for value in summary.values())


@pytest.mark.parametrize("verb", [("show",), ("diff", "HEAD", "exp")], ids=" ".join)
def test_plots_are_drawn(experiment: Study, verb):
    lines = shown(experiment, "plots", *verb)
    assert lines[-1].startswith("file://") and lines[-1].endswith("dvc_plots/index.html")
    assert not [line for line in lines if "WARNING" in line]
    page = (experiment.root / "dvc_plots" / "index.html").read_text("utf-8")
    assert "whole-model retention" in page
    for plot in PLOTS:
        [drawn] = plot.values()
        assert drawn["title"] in page
