"""The report: every number is on the page, nothing is loaded, what comes from files is text."""

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from regrow.commands.report import main
from regrow.commands.show import estimate, interval
from regrow.compare.evidence import MEASURES
from regrow.report.curves import Curve, Panel, training_svg
from regrow.report.images import FIGURES
from regrow.report.page import read_results, render
from regrow.report.provenance import LIBRARIES, changed_parameters
from regrow.report.tables import CANNOT_SAY, field
from regrow.report.words import flat, set_up
from regrow.support.errors import UserError

ROOT = Path(__file__).parent.parent
METRICS = ("comparison.json", "claims.json", "evidence/uncertainty.json", "evidence/paired.json")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# A lock file of few stages, as the reading of the real one takes seconds.
STAGES: dict[str, Any] = {
    "compare": {
        "cmd": "python -m regrow compare",
        "deps": [{"path": "src/regrow/files.py", "hash": "md5", "md5": "c0de", "size": 1}],
        "params": {"params.yaml": {"sweep": {"sparsity": [0.1], "train_size": [600]}}},
        "outs": [{"path": "models/base", "hash": "md5", "md5": "0123.dir", "size": 541614977}],
    }
}


class Page(HTMLParser):
    """The page's tags with their attributes, and its text with single spaces."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.feed(page)
        self.close()
        self.text = " ".join("".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def attributes(self, name: str) -> list[str]:
        return [
            value or "" for _, found in self.tags for key, value in found.items() if key == name
        ]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def change(path: Path, edit: Any) -> None:
    value = read(path)
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def copy(folder: Path, stages: dict[str, Any] | None = None) -> Path:
    """The committed results in another folder, by default with a lock file of few stages."""
    folder.mkdir(parents=True)
    for name in ("params.yaml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "metrics", folder / "metrics")
    shutil.copytree(ROOT / "plots", folder / "plots", ignore=shutil.ignore_patterns("*.png"))
    sweep = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))["sweep"]
    stages = STAGES if stages is None else stages
    for stage in stages.values():
        stage["params"] = {"params.yaml": {"sweep": sweep}}
    lock = {"schema": "2.0", "stages": stages}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    return folder


def page_of(folder: Path) -> Page:
    return Page(render(read_results(folder)))


def refused(folder: Path) -> str:
    """The sentence that the command ends with; the page that was there before stays."""
    out = folder.parent / "page.html"
    out.write_text("before", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        main(results=folder, out=out)
    assert out.read_text(encoding="utf-8") == "before"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def source() -> str:
    """The page of the results in this repository."""
    return render(read_results(ROOT))


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_every_claim_with_its_numbers(page: Page) -> None:
    claims = read(ROOT / "metrics/claims.json")
    assert claims
    for claim in claims.values():
        for part in (claim["claim"], f"{claim['quantity']}: {estimate(claim)}", claim["why"]):
            assert " ".join(part.split()) in page.text
        assert claim["verdict"] in page.text


def test_every_accuracy_measure_and_test(page: Page) -> None:
    for cell in read(ROOT / "metrics/comparison.json")["sweep"].values():
        for method in ("teacher", "pruned", "finetune", "distill"):
            assert interval(cell[method]) in page.text
        assert interval(cell["difference"], "+") in page.text
    for cell in read(ROOT / "metrics/evidence/uncertainty.json")["sweep"].values():
        for measure, values in cell.items():
            words = MEASURES[measure].label
            assert words[:1].upper() + words[1:] in page.text
            percent = not MEASURES[measure].unit and measure not in ("brier", "aurc")
            choices = MEASURES[measure].unit == "choices"
            form = "percent" if percent else "choices" if choices else "number"
            for method in ("pruned", "finetune", "distill"):
                if method in values:
                    assert field(values[method], form).text in page.text
            assert field(values["difference"], form, difference=True).text in page.text
    for cell in read(ROOT / "metrics/evidence/paired.json")["sweep"].values():
        assert cell["verdict"] in page.text
        if cell["p"] is not None:
            assert f"{cell['p']:.3g} {cell['holm_p']:.3g}" in re.sub(
                r"\s+", " ", re.sub("<[^>]*>", " ", " ".join(page.parts))
            )


def test_every_output_of_the_lock_file_with_its_hash(page: Page) -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    for name in ("fetch", "teacher", "compare"):
        for out in lock["stages"][name]["outs"]:
            assert out["path"] in page.text
            assert out["md5"] in page.text
        for dep in lock["stages"][name]["deps"]:
            if dep["path"].startswith("src/"):
                assert dep["md5"] in page.text


def test_every_pinned_version_and_the_parameters(page: Page) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    version = re.search(r"^torch==(.*)$", pins, re.MULTILINE)
    assert version and version[1] in page.text
    parameters = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert " ".join(parameters.split()) in page.text


def test_every_figure_with_an_alternative_text(page: Page) -> None:
    images = page.of("img")
    drawn = list((ROOT / "plots").rglob("*.svg"))
    assert len(images) == len(drawn) + 1  # and the training curves
    for stem in FIGURES:
        assert (f"plots/{stem}.svg" in page.text) == (ROOT / "plots" / f"{stem}.svg").exists()
    for image in images:
        assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
        assert len(image["alt"] or "") > 40


def test_nothing_is_loaded_from_anywhere(source: str, page: Page) -> None:
    for name in ("script", "iframe", "object", "embed", "base", "form", "video", "audio"):
        assert not page.of(name), name
    assert all((link["href"] or "").startswith("data:") for link in page.of("link"))
    for name in ("src", "srcset", "poster", "data", "background", "action"):
        assert all(value.startswith("data:") for value in page.attributes(name)), name
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    for anchor in page.of("a"):
        assert re.match(r"#|https://arxiv\.org/abs/", anchor["href"] or "")
    styles = "".join(re.findall(r"<style>(.*?)</style>", source, re.DOTALL))
    assert styles and not re.search(r"url\(|@import|//", styles)
    (policy,) = [one["content"] or "" for one in page.of("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_links_headings_and_tables_hold_together(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    for target in page.attributes("href"):
        assert not target.startswith("#") or target[1:] in ids
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert len(page.of("caption")) == len(page.of("table"))
    assert all(heading.get("scope") in ("col", "row") for heading in page.of("th"))
    assert page.of("html") == [{"lang": "en"}]
    assert any(one.get("name") == "viewport" for one in page.of("meta"))


def test_equal_bytes_from_anywhere_and_only_what_is_needed_is_loaded(tmp_path: Path) -> None:
    one, other = copy(tmp_path / "a study, für alle"), copy(tmp_path / "other/deeper")
    (tmp_path / "constraints.txt").write_text("torch==0\n", encoding="utf-8")  # one is nearer
    program = (
        "import sys; from regrow.__main__ import main; "
        "sys.argv[0] = 'regrow'; \n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    written = []
    for folder, given in ((one, "."), (other, str(other))):
        done = subprocess.run(
            [sys.executable, "-c", program, "report", "--results", given, "--out", "out.html"],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C"} if folder == one else None,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "out.html\n"
        written.append((folder / "out.html").read_bytes())
        assert not list(folder.glob(".*partial"))
    assert written[0] == written[1]
    for word in (str(tmp_path), str(ROOT), os.uname().nodename):
        assert word.encode() not in written[0]


def test_what_comes_from_files_is_text(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>{{ 7 * 7 }}"
    sets = tmp_path / "sets"
    copy(sets / "plain")
    folder = copy(sets / "<b>bold <script>")
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    values["model"]["source"] = evil
    values[evil] = evil
    (folder / "params.yaml").write_text(
        yaml.safe_dump(values, allow_unicode=True, width=1000) + f"# {evil}\n", encoding="utf-8"
    )
    for name in ("claim", "quantity", "verdict", "why"):
        change(
            folder / "metrics/claims.json",
            lambda value, name=name: value["kl_matches_ce"].update({name: evil}),
        )
    change(
        folder / "metrics/evidence/paired.json",
        lambda value: next(iter(value["sweep"].values())).update(verdict=evil),
    )
    change(
        folder / "metrics/evidence/uncertainty.json",
        lambda value: next(iter(value["sweep"].values())).update({evil: {}}),
    )
    (folder / "constraints.txt").write_text(f"torch=={evil}\n", encoding="utf-8")
    (folder / "plots/<i>.svg").write_text("<svg><script>alert(3)</script></svg>", encoding="utf-8")
    stages = {f"{evil}": {"outs": [{"path": evil, "md5": evil}], "deps": []}}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    found = page_of(sets)
    for name in ("script", "b", "i", "svg"):
        assert not found.of(name), name
    assert all((image["src"] or "").startswith("data:") for image in found.of("img"))
    assert "onerror" not in {name for _, names in found.tags for name in names}
    shown = " ".join(evil.split())
    # Source, further parameter, the file itself, claims, the test, the measure, version, hashes.
    assert found.text.count(shown) >= 10
    assert "<b>bold <script>" in found.text


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", *(f"metrics/{it}" for it in METRICS)])
def test_a_missing_or_broken_file_is_named(name: str, tmp_path: Path) -> None:
    folder = copy(tmp_path / "results")
    path = folder / name
    path.unlink()
    assert refused(folder) == (
        f"{path} is missing; run `make repro` to make it, or name a folder of results that holds it"
    )
    for text in ("{", "[]", "\x00", '{"sweep": {"0.1-600": 3}, "stages": 3, "claim": {}}'):
        if name == "params.yaml" and text.startswith('{"'):
            continue  # its keys are not checked here: results outlive the schema
        path.write_text(text, encoding="utf-8")
        sentence = refused(folder)
        assert sentence.startswith(f"{path} ") and "make repro" in sentence


def test_folders_without_results(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").endswith("is not a folder; name one that holds results")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    assert "holds no results" in refused(tmp_path / "empty")
    assert "make repro" in refused(tmp_path / "empty")
    folder = copy(tmp_path / "results")
    (folder / "plots/accuracy.svg").unlink()
    assert refused(folder).startswith(
        f"{folder / 'plots/accuracy.svg'} is missing; run `make repro`"
    )


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    folder = copy(tmp_path / "results")
    for out in (folder, folder / "metrics"):
        with pytest.raises(UserError, match="is a folder"):
            main(results=folder, out=out)
    assert (folder / "metrics/claims.json").is_file()
    with pytest.raises(UserError, match="cannot be written"):
        main(results=folder, out=folder / "params.yaml" / "page.html")


def test_several_sets_have_a_section_each(tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    copy(sets / "train_size")
    copy(sets / "sparsity")
    (sets / "notes").mkdir()
    (sets / ".seeds.partial" / "metrics").mkdir(parents=True)
    change(sets / "sparsity/metrics/claims.json", lambda value: value.pop("smaller_sets"))
    params = sets / "sparsity/params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    values["distill"]["learning_rate"] = 0.00012345
    params.write_text(yaml.safe_dump(values), encoding="utf-8")
    found = page_of(sets)
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    assert {"set-1", "set-1-claims", "set-2", "set-2-figures"} < set(ids) and "set-3" not in ids
    links = [target[1:] for target in found.attributes("href") if target.startswith("#")]
    assert set(links) <= set(ids) and {"set-1", "set-2-versions"} <= set(links)
    assert found.text.index("sparsity Set-up") < found.text.index("train_size Set-up")
    assert "distill.learning_rate0.000123450.0005" in found.text
    assert "notes" not in [text.strip() for text in found.parts]
    drawn = list((sets / "sparsity/plots").rglob("*.svg"))
    assert len(found.of("img")) == 2 * (len(drawn) + 1)  # and the training curves
    text = "".join(found.parts)
    overview = text[text.index("Verdicts and estimates") : text.index("The parameters in which")]
    assert overview.count(f"alpha = 0.1{CANNOT_SAY}inconclusive") == 1


ENDS = {"estimate": 0.123, "low": 0.1, "high": 0.15}


def test_other_tasks_and_controls_have_tables_where_they_were_measured(
    tmp_path: Path, page: Page
) -> None:
    assert "What it costs elsewhere" not in page.text
    sets = tmp_path / "sets"
    folder = copy(sets / "one")
    copy(sets / "two")
    names = ("teacher", "pruned", "finetune", "distill", "difference", "finetune_change")
    cell = {
        "accuracy": dict.fromkeys((*names, "distill_change"), ENDS),
        "kl": dict.fromkeys(("pruned", "finetune", "distill", "difference"), ENDS),
    }
    transfer = {"piqa": {"questions": 75, "chance": 0.5, "sweep": {"0.2-600": cell}}}
    (folder / "metrics/evidence/transfer.json").write_text(json.dumps(transfer), encoding="utf-8")
    contrast = {"question": "Which <loss>?", "arm": "KL", "other": "CE", "p": None, "holm_p": 0.5}
    contrast |= {"accuracy": ENDS, "nll": None, "verdict": "inconclusive"}
    arm = {"study": "one", "runs": ["teacher"], "retention": 1.0, "accuracy": ENDS, "nll": ENDS}
    controls = {"margin": 0.02, "arms": {"KL": arm}, "contrasts": [contrast]}
    (sets / "controls.json").write_text(json.dumps(controls), encoding="utf-8")
    out = tmp_path / "page.html"
    main(sets, out)
    found = Page(out.read_text(encoding="utf-8"))
    links = [target[1:] for target in found.attributes("href") if target.startswith("#")]
    assert set(links) <= set(found.attributes("id"))
    assert {"controls", "set-1-transfer"} <= set(links) and "set-2-transfer" not in links
    assert "piqa (n = 75)" in found.text and "+12.3 [+10.0, +15.0]" in found.text
    assert "Which <loss>?" in found.text and "KL - CE" in found.text


def test_what_was_not_measured_cannot_be_said(tmp_path: Path, page: Page) -> None:
    folder = copy(tmp_path / "results")

    def forget(value: dict[str, Any]) -> None:
        for cell in value["sweep"].values():
            cell["nll"] = dict.fromkeys(cell["nll"])
            cell["recovery"]["distill"] = {"estimate": 0.123456, "low": None, "high": None}
            del cell["recovery"]["finetune"]

    change(folder / "metrics/evidence/uncertainty.json", forget)
    change(
        folder / "metrics/evidence/paired.json",
        lambda value: [
            cell.update(p=None, holm_p=None, detectable=None) for cell in value["sweep"].values()
        ],
    )
    (folder / "constraints.txt").write_text("", encoding="utf-8")
    before = page.text.count(CANNOT_SAY)
    found = page_of(folder).text
    cells = len(read(folder / "metrics/comparison.json")["sweep"])
    assert "12.3 (no interval)" in found
    versions = len(LIBRARIES)
    assert found.count(CANNOT_SAY) == before + cells * (5 + 1 + 3) + versions


def test_files_that_do_not_belong_together_are_said(tmp_path: Path) -> None:
    claims = (ROOT / "metrics/claims.json").read_bytes()
    files = {"a.json": b"{}", "b/c.json": b"1"}
    listing = [
        {"md5": hashlib.md5(data).hexdigest(), "relpath": name} for name, data in files.items()
    ]
    stages = {
        "evidence": {
            "outs": [
                {
                    "path": "metrics/claims.json",
                    "hash": "md5",
                    "md5": hashlib.md5(claims).hexdigest(),
                },
                {
                    "path": "metrics/folder",
                    "hash": "md5",
                    "md5": hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir",
                },
                {"path": "plots/gone.csv", "hash": "md5", "md5": "00"},
                {"path": "metrics/../../up", "hash": "md5", "md5": "00"},
            ]
        },
        "finetune@0.99-600-0": {"outs": [{"path": "models/stale", "md5": "00"}]},
    }
    folder = copy(tmp_path / "results", stages)
    for name, data in files.items():
        path = folder / "metrics/folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (one,) = read_results(folder)
    assert not one.warnings
    assert [row[-1].text for row in one.outputs.rows] == ["the same", "the same", "not here", ""]
    assert "models/stale" not in render([one])

    change(folder / "metrics/claims.json", lambda value: value.pop("smaller_sets"))
    (folder / "metrics/folder/more").write_text("", encoding="utf-8")
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(text.replace("seed: [0]", "seed: [0, 1]"), encoding="utf-8")
    (one,) = read_results(folder)
    assert [warning.split(" is not ")[0] for warning in one.warnings] == [
        "params.yaml",
        "metrics/claims.json",
        "metrics/folder",
    ]
    assert "sweep.seed. Run make repro" in one.warnings[0]
    assert "Files that do not belong together" in render([one])


def test_parameters_are_compared_by_value() -> None:
    recorded = {"s": {"params": {"params.yaml": {"a": {"x": 1.0, "y": None}, "b.c": [1, 2]}}}}
    assert changed_parameters(recorded, {"a": {"x": 1, "y": None}, "b": {"c": [1, 2]}}) == []
    other = {"a": {"x": 2, "y": None, "z": 3}, "b": {"c": [1]}}
    assert changed_parameters(recorded, other) == ["a.x", "a.z", "b.c"]


def test_the_set_up_of_other_studies_and_of_none() -> None:
    for name in ("csqa-full", "olmo2-7b"):
        values = flat(yaml.safe_load((ROOT / f"studies/{name}.yaml").read_text(encoding="utf-8")))
        words = dict(set_up(values, []))
        assert CANNOT_SAY not in " ".join(words.values())
        assert values["data.test_source"] in words["Questions"]
    assert words["Teacher"] == "The model as it is"
    missing = dict(set_up({}, []))
    assert all(CANNOT_SAY in text for text in missing.values())
    assert "Further parameters" not in missing
    assert dict(set_up({"new.key": "3"}, []))["Further parameters"] == "new.key: 3"


def test_training_curves_of_any_number() -> None:
    curves = [Curve("finetune", [1, 2, 3], [3.0, 2.0, 1.0]), Curve("distill", [1], [0.5])]
    for count in (1, 4, 5):
        panels = [Panel(f"panel {index}", curves) for index in range(count)]
        drawn = training_svg(panels)
        assert drawn == training_svg(panels)
        assert drawn.count(b'id="axes_') == count
        for word in (b"<dc:date>", b"matplotlib.org"):
            assert word not in drawn
    assert training_svg([Panel("zero", [Curve("distill", [1, 2], [1.0, 0.0])])])


def test_results_without_training_logs_have_no_training_figure(tmp_path: Path) -> None:
    folder = copy(tmp_path / "results")
    for path in (folder / "plots/training/finetuned").rglob("loss.tsv"):
        path.write_text("step\tloss\n", encoding="utf-8")
    assert "cross-entropy from" not in render(read_results(folder))
    assert "KL self-distillation from" in render(read_results(folder))
    shutil.rmtree(folder / "plots/training")
    drawn = list((folder / "plots").rglob("*.svg"))
    assert len(page_of(folder).of("img")) == len(drawn)


def test_make_runs_a_study_only_where_one_is_named(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    orders = {}
    for study in ("", "smoke"):
        done = subprocess.run(
            ["make", "--dry-run", "report", f"STUDY={study}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        orders[study] = re.findall(r"python -m (dvc repro|regrow report.*)", done.stdout)
    report = "regrow report --results . --out report.html"
    assert orders == {"": [report], "smoke": ["dvc repro", report]}


def test_a_wheel_holds_the_template(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import build_wheel; build_wheel('out')"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert "regrow/report.html.j2" in zipfile.ZipFile(wheel).namelist()


def chromium(profile: Path, page: Path) -> subprocess.CompletedProcess[str]:
    """The page's DOM as Chromium has it in the end, with a proxy that no one answers at."""
    return subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--proxy-server=127.0.0.1:9", f"--user-data-dir={profile}"),
            *("--enable-logging=stderr", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=True,
    )


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_chromium_shows_the_page_without_a_network(source: str, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(source, encoding="utf-8")
    done = chromium(tmp_path / "profile", path)
    shown = Page(done.stdout)
    # Messages of the page itself; others are about the machine that Chromium runs on.
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "net::" in line]
    assert not console
    assert shown.attributes("id") == page.attributes("id")
    assert shown.text == page.text

    # The page may run no script, so another one asks how large its images are.
    images = "".join(f'<img src="{html.escape(one["src"] or "")}">' for one in page.of("img"))
    path.write_text(
        f"<!DOCTYPE html><body>{images}<script>onload = () => document.body.textContent ="
        " [...document.images].map(one => one.naturalWidth).join()</script></body>",
        encoding="utf-8",
    )
    widths = Page(chromium(tmp_path / "profile", path).stdout).text.split(",")
    assert len(widths) == len(page.of("img"))
    assert all(int(width) > 100 for width in widths)
