"""README and docs: figures from committed files, links that lead somewhere, every key explained."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from pydantic import BaseModel

from regrow.support.schema import Params

ROOT = Path(__file__).parent.parent
OPTIONS = ("--metrics", "metrics/compare", "--plots", "plots/compare")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += keys(inner, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


@pytest.mark.parametrize("key", keys(Params))
def test_every_parameter_is_explained(key):
    text = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    if key.startswith("teacher.training."):
        key = "teacher.training.*"
    assert f"`{key}`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_shows_the_committed_comparison():
    run = subprocess.run(
        [sys.executable, "-m", "regrow", "show", *OPTIONS],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.rstrip() for line in run.stdout.splitlines()]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(lines).strip() in readme


def test_the_readme_shows_the_claims_of_half():
    command = [sys.executable, "-m", "regrow", "show", "--markdown", *OPTIONS]
    folder = ROOT / "results" / "half" / "primary"
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    claims = shown[shown.index("| The paper's claim") :].strip()
    assert claims in (ROOT / "README.md").read_text(encoding="utf-8")


def declared(requirements):
    return {re.split(r"[=<>[]", one)[0] for one in requirements}


def test_every_dependency_has_its_reason_and_every_import_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = declared(project["dependencies"])
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    named = {
        name
        for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
    }
    extras = project["optional-dependencies"]
    assert named == runtime | declared(extras["test"]) | declared(extras["trust"])
    imported = {
        module.partition(".")[0]
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    others = imported - sys.stdlib_module_names - {"regrow"}
    packages = {"ruamel": "ruamel.yaml", "sklearn": "scikit-learn"}
    known = runtime | declared(extras["edge"])
    assert {packages.get(name, name).replace("_", "-") for name in others} <= known


def test_the_code_and_tests_that_pages_name_are_there():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(
            r"`((?:src/regrow|tests|benchmarks)/(?!\w*/?NAME)[\w/]+\.\w+)`", text
        ):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"
        for name in re.findall(r"`(test_\w+\.py)`", text):
            assert (ROOT / "tests" / name).is_file(), f"{page.name}: {name}"


# What prose says of committed numbers


def in_words(found: Any) -> Iterator[str]:
    """Every number of a file as prose writes it: shares in percent, intervals, bytes in MB."""
    if isinstance(found, dict) and found.get("estimate") is not None:
        for form in ("{:.1f}", "{:+.1f}"):
            yield form.format(100 * found["estimate"])
            if found["low"] is not None:
                yield percent(found, form)
    elif isinstance(found, dict | list):
        for value in found.values() if isinstance(found, dict) else found:
            yield from in_words(value)
    elif isinstance(found, int | float):
        yield f"{100 * found:.1f}" if isinstance(found, float) else f"{found / 1e6:.1f}"


HALF = [
    *("results/half", "results/half/*/metrics/compare", "results/half/*/metrics/evaluate/*"),
    "tuning/half",
]


@pytest.mark.parametrize(
    ("page", "section", "files"),
    [
        ("results.md", "Half of the parameters", HALF),
        ("results.md", "The default study", ["metrics/compare"]),
        ("edge.md", "What was found", ["edge/metrics"]),
    ],
)
def test_figures_in_prose_are_those_of_committed_files(page, section, files):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    check_prose(text.partition(f"## {section}\n")[2].partition("\n## ")[0], files)


def test_the_readme_says_what_was_found_at_half():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"^\*\*At half of the parameters .*$", readme, re.MULTILINE)
    check_prose(
        said, [f"results/half/{part}/metrics/compare" for part in ("primary", "l2")], least=5
    )


def test_the_page_shows_the_contrasts_of_fewer_questions():
    found = json.loads((ROOT / "results/half/controls.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    questions = {"465": ", 465 questions", "1,860": ", 1,860 questions", "7,441": ""}
    for number, name in questions.items():
        (row,) = re.findall(rf"^\| {number} \| (.*) \|$", page, re.MULTILINE)
        (one,) = (
            one
            for one in found["contrasts"]
            if (one["arm"], one["other"]) == (f"KL{name}", f"CE{name}") and "less" not in one
        )
        arms = [percent(found["arms"][f"{loss}{name}"]["accuracy"]) for loss in ("KL", "CE")]
        said = [*arms, percent(one["accuracy"], "{:+.1f}"), one["verdict"]]
        cells = row.split(" | ")
        assert [*cells[:3], cells[4]] == said
        p = one["holm_p"]
        assert cells[3] == ("< 0.0001" if p < 1e-4 else f"{p:.3g}")


def check_prose(text, files, least=8):
    text = re.sub(r"(?m)^\|.*\n", "", text)  # a test of its own holds tables
    shown = re.findall(r"[+-]?\b\d+\.\d\b(?:(?: %| points)? \[[^]]+\](?!\())?", text)
    assert len(shown) >= least
    known = set()
    for path in (path for folder in files for path in ROOT.glob(f"{folder}/*.json")):
        known |= set(in_words(json.loads(path.read_text(encoding="utf-8"))))
    assert {re.sub(" %| points", "", one) for one in shown} <= known


# The full study


FULL = ROOT / "results" / "csqa-full"


def full(path: str) -> dict[str, Any]:
    return dict(json.loads((FULL / path).read_text(encoding="utf-8")))


def percent(value: dict[str, float], form: str = "{:.1f}") -> str:
    estimate, low, high = (form.format(100 * value[name]) for name in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


@pytest.mark.parametrize("part", ["sparsity", "train-size"])
def test_the_results_page_shows_the_full_studys_accuracies(part):
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for cell in full(f"{part}/metrics/comparison.json")["sweep"].values():
        shown = [percent(cell[name]) for name in ("pruned", "finetune", "distill")]
        shown.append(percent(cell["difference"], "{:+.1f}"))
        first = f"{cell['train_size']:,}" if part == "train-size" else f"{cell['sparsity']} ("
        rows = [line for line in page.splitlines() if line.startswith(f"| {first}")]
        assert any(" | ".join(shown) in row for row in rows), (first, shown)


def test_the_results_page_shows_the_full_studys_uncertainty():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for size in (200, 600, 2000):
        folder = "train-size/metrics/evidence/models"
        ce, kl = (full(f"{folder}/{kind}/0.2-{size}.json") for kind in ("finetuned", "distilled"))
        shown = [
            f"{ce['nll']:.2f} / {kl['nll']:.2f}",
            f"{100 * ce['ece']:.1f} / {100 * kl['ece']:.1f}",
            f"{ce['set_size']:.2f} / {kl['set_size']:.2f}",
            f"{100 * ce['agreement']:.0f} / {100 * kl['agreement']:.0f}",
            f"{ce['kl']:.2f} / {kl['kl']:.2f}",
        ]
        assert f"| {size:,} | {' | '.join(shown)} |" in page


def test_the_results_page_shows_the_full_studys_controls():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    controls = full("controls.json")
    for one in controls["contrasts"]:
        shown = [one["question"], f"{one['arm']} - {one['other']}"]
        shown += [percent(one["accuracy"], "{:+.1f}"), f"{one['nll']['estimate']:+.2f}"]
        assert f"| {' | '.join(shown)} | {one['holm_p']:.1g} | {one['verdict']} |" in page
    for name, arm in controls["arms"].items():
        shown = [name, percent(arm["accuracy"]), f"{arm['nll']['estimate']:.2f}"]
        assert f"| {' | '.join(shown)} |" in page


def from_the_full_study(command, out, *more):
    """What a command makes of the committed results, in bytes."""
    given = (sys.executable, "-m", "regrow", command, "--results", str(FULL), "--out", str(out))
    subprocess.run([*given, *more], cwd=ROOT, check=True)
    return out.read_bytes()


def test_the_full_studys_contrasts_are_what_their_command_writes(tmp_path):
    named = ("--controls", str(FULL / "controls.yaml"))
    made = from_the_full_study("controls", tmp_path / "controls.json", *named)
    assert made == (FULL / "controls.json").read_bytes()


def test_the_full_studys_page_is_the_same_whenever_it_is_made_and_shows_its_contrasts(tmp_path):
    made = from_the_full_study("report", tmp_path / "one.html")
    assert made == from_the_full_study("report", tmp_path / "two.html")
    page = made.decode("utf-8")
    for one in json.loads((FULL / "controls.json").read_text(encoding="utf-8"))["contrasts"]:
        assert percent(one["accuracy"], "{:+.1f}") in page
    for folder in sorted(path.name for path in FULL.iterdir() if path.is_dir()):
        assert f">{folder}<" in page


def test_the_coverage_is_that_of_its_file():
    total = json.loads((ROOT / "docs" / "coverage.json").read_text(encoding="utf-8"))["total"]
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    figures = f"{total['lines_percent']} % of the lines and {total['branches_percent']} % of the"
    assert figures in page
    assert total["lines_percent"] >= 95


def test_the_page_says_what_stages_side_by_side_took():
    found = json.loads((ROOT / "benchmarks" / "jobs.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    one, two = (f"{found['seconds'][jobs]:,.0f} s" for jobs in "12")
    times = f"{found['times_as_fast']:.2f} times as fast"
    assert f"{one} one stage after the other, {two} two at once, {times}" in page
    assert found["same_lock"]


@pytest.mark.parametrize("study", ["quick", "half", "half-l2", "half-reverse-kl"])
def test_the_tables_of_rates_are_those_of_their_tries(study):
    page = (ROOT / "tuning" / "README.md").read_text(encoding="utf-8")
    part = page.partition(f": `{study}`")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in part.splitlines() if line.startswith("| ")]
    (_, _, *rates), *rows = [[cell.strip() for cell in row] for row in rows]
    shown = {}
    for name, loss, *cells in rows:
        start = f"{ {'CE': 'finetune', 'KL': 'distill'}[loss] }-{name.replace(' ', '-')}"
        for rate, cell in zip(rates, cells, strict=False):
            if cell:
                seeds = re.search(r"(\d) seeds", cell)
                accuracy = cell.replace("*", "").split()[0]
                shown[f"{start}-{rate}"] = (int(seeds[1]) if seeds else 1, accuracy)
    tries = defaultdict(list)
    for path in (ROOT / "tuning" / study).glob("*-*.json"):
        loss, score, sparsity, _, _, rate = path.stem.split("-", 5)
        accuracy = json.loads(path.read_bytes())["calibration.accuracy_per_character"]
        tries[f"{loss}-{score}-{sparsity}-{rate}"].append(100 * accuracy)
    tried = {name: (len(found), f"{fmean(found):.1f}") for name, found in tries.items()}
    assert shown == tried
