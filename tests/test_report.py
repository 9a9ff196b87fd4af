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
from regrow.report.files import FILES, Source
from regrow.report.images import Curve, training_svg
from regrow.report.page import SECTIONS, Results, read_results, render
from regrow.report.parts import Section, Table
from regrow.report.provenance import changed_parameters, is_in_sweep
from regrow.report.set_up import flat, sentences
from regrow.report.words import CANNOT_SAY, LABELS, estimate, interval, p_value, quantity
from regrow.support.errors import UserError
from simulated import sweep_of
from test_compare import project, run_compare

ROOT = Path(__file__).parent.parent
METRICS = ("comparison", "claims", "measures", "paired")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SWEEP = sweep_of((0.2, 0.7), (200, 600), (0, 1), ("l2", "activation"))
ENVIRONMENT = {"device": "cpu", "Python": "3.11.7", "torch": "2.13.0+cpu"}
STAGES: dict[str, Any] = {
    "compare": {
        "cmd": "python -m regrow compare",
        "deps": [{"path": "src/regrow/compare", "hash": "md5", "md5": "c0de.dir", "size": 1}],
        "params": {"params.yaml": {"sweep": SWEEP.model_dump()}},
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


def of(folder: Path, name: str) -> Path:
    return folder / FILES[name][0]


def change(path: Path, edit: Any) -> None:
    value = read(path)
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of results as `compare` writes it, of simulated models, with two cells named before."""
    folder = tmp_path_factory.mktemp("report") / "results"
    named = {"primary": ["activation-0.2-600"], "secondary": ["l2-0.2-600"]}
    project(folder, SWEEP, **named)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for loss in ("finetune", "distill"):
        params[loss]["learning_rate"] = {"l2": 0.001, "activation": 0.0005}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    done = run_compare(folder)
    assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree(folder / "data")
    for loss in ("finetune", "distill"):
        for seed in SWEEP.seed:
            log = folder / f"plots/training/{loss}/l2-0.2-600-{seed}/plots/metrics/loss.tsv"
            log.parent.mkdir(parents=True)
            log.write_text("step\tloss\n1\t2.5\n2\t1.5\n", encoding="utf-8")
    lock = {"schema": "2.0", "stages": STAGES}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT), encoding="utf-8")
    return folder


def copy(made: Path, folder: Path, stages: dict[str, Any] | None = None) -> Path:
    """The same in another folder."""
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("*.png"))
    if stages is not None:
        lock = {"schema": "2.0", "stages": stages}
        (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    return folder


def page_of(folder: Path) -> Page:
    return Page(render(read_results(folder)))


def section(one: Results, name: str) -> Section:
    return next(section for section in one.sections if section.id == name)


def tables(one: Results, name: str) -> list[Table]:
    return [part for part in section(one, name).parts if isinstance(part, Table)]


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
def source(made: Path) -> str:
    """The page of the results."""
    return render(read_results(made))


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


# What the page says


def test_the_summary_is_first_and_sections_are_one_list(made: Path) -> None:
    (one,) = read_results(made)
    ids = [section.id for section in one.sections]
    assert ids[:2] == ["summary", "claims"]
    assert len(ids) == len(SECTIONS) - 2  # no other tasks, no device
    summary = read(made / "metrics/summary.json")
    (table,) = tables(one, "summary")
    for row in table.rows:
        share = str(row[0]).removesuffix(" %")
        assert row[2] == f"{summary[f'kl{share}']:.1f}"


def test_every_claim_with_its_numbers(made: Path, page: Page) -> None:
    claims = read(of(made, "claims"))
    for claim in claims.values():
        for part in (claim["claim"], f"{claim['quantity']}: {estimate(claim)}", claim["why"]):
            assert " ".join(part.split()) in page.text
        assert claim["verdict"] in page.text


def test_every_accuracy_measure_and_test(made: Path, page: Page) -> None:
    tested = read(of(made, "paired"))["sweep"]
    measures = read(of(made, "measures"))
    floor = [key for key, cell in tested.items() if not cell["regrew"]]
    assert 0 < len(floor) < len(tested)
    for key, cell in read(of(made, "comparison"))["sweep"].items():
        for method in LABELS:
            assert interval(cell[method]) in page.text
        assert (interval(cell["difference"], "+") in page.text) or key in floor
        assert cell["score"] in page.text
    for key, cell in measures["sweep"].items():
        for name, values in cell.items():
            said = measures["measures"][name]
            assert said["label"][:1].upper() + said["label"][1:] in page.text
            for method in set(LABELS) & set(values):
                assert quantity(values[method], said["unit"]) in page.text
            if key not in floor:
                assert quantity(values["difference"], said["unit"], "+") in page.text
    for cell in tested.values():
        assert f"{p_value(cell['p'])}" in page.text and cell["verdict"] in page.text


def test_where_nothing_regrew_no_difference_is_shown(made: Path) -> None:
    (one,) = read_results(made)
    floor = [cell for cell in read(of(made, "paired"))["sweep"].values() if not cell["regrew"]]
    (accuracy,) = tables(one, "accuracy")
    assert [row[-1] for row in accuracy.rows].count("nothing regrew") == len(floor)
    found = [row for table in tables(one, "paired") for row in table.rows]
    assert [str(row[-2]) for row in found].count("not testable") == len(floor)


def test_what_was_named_before_stands_apart_from_what_was_looked_for_after(
    made: Path, tmp_path: Path
) -> None:
    (one,) = read_results(made)
    before, after = tables(one, "paired")
    assert [list(row[:3]) for row in before.rows] == [
        ["l2", "0.2", "600"],
        ["activation", "0.2", "600"],
    ]
    assert (before.caption, after.caption) == ("Named before the run", "Looked for after")
    assert len(after.rows) == 6
    folder = copy(made, tmp_path / "results")
    change(
        of(folder, "paired"),
        lambda value: [cell.update(named="exploratory") for cell in value["sweep"].values()],
    )
    assert "No contrast was named before the run" in page_of(folder).text


def test_versions_are_those_of_the_environment_beside_the_results(
    made: Path, page: Page, tmp_path: Path
) -> None:
    for name, value in ENVIRONMENT.items():
        assert f"{name}{value}" in page.text.replace(" ", "")
    folder = copy(made, tmp_path / "results")
    (folder / "constraints.txt").write_text("torch==99.0\n", encoding="utf-8")
    assert "99.0" not in page_of(folder).text
    (folder / "environment.json").unlink()
    assert "Versionscannot say" in page_of(folder).text.replace("Versions cannot", "Versionscannot")


def test_hashes_and_the_parameters(made: Path, page: Page) -> None:
    for word in ("models/base", "0123.dir", "541,614,977", "src/regrow/compare", "c0de.dir"):
        assert word in page.text
    assert " ".join((made / "params.yaml").read_text(encoding="utf-8").split()) in page.text


def test_every_figure_with_an_alternative_text(made: Path, page: Page) -> None:
    images = page.of("img")
    drawn = list((made / "plots").rglob("*.svg"))
    assert len(images) == len(drawn) + 1  # and the training curves
    for path in drawn:
        assert path.relative_to(made).as_posix() in page.text
    for image in images:
        assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
        assert len(image["alt"] or "") > 40


# Results of earlier versions


def test_results_of_an_earlier_version_are_read(made: Path, tmp_path: Path) -> None:
    folder = copy(made, tmp_path / "results")
    metrics = folder / "metrics"
    for name in METRICS:
        value = read(of(folder, name))
        value.pop("measures", None)
        value.pop("margin", None)
        if "sweep" in value:
            value["sweep"] = {
                key.removeprefix("activation-"): cell
                for key, cell in value["sweep"].items()
                if key.startswith("activation-")
            }
            for cell in value["sweep"].values():
                for key in ("score", "named", "regrew"):
                    cell.pop(key, None)
        earlier = folder / FILES[name][1]
        earlier.parent.mkdir(exist_ok=True)
        earlier.write_text(json.dumps(value), encoding="utf-8")
    shutil.rmtree(metrics / "compare")
    (metrics / "summary.json").unlink()
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["prune"]["score"] = "activation"
    params["finetune"]["learning_rate"] = 0.00025
    del params["sweep"]["score"], params["compare"]["primary"], params["data"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    shutil.move(folder / "plots/compare", folder / "plots/evidence")
    shutil.move(folder / "plots/evidence/accuracy.svg", folder / "plots/accuracy.svg")
    (one,) = read_results(folder)
    assert one.sections[0].id == "claims"
    (table,) = tables(one, "accuracy")
    assert [row[0] for row in table.rows] == ["activation"] * 4
    found = page_of(folder)
    assert "activation (" in found.text and "0.00025" in found.text
    assert "Nll scaled" in found.text
    assert len(found.of("img")) == len(list((folder / "plots").rglob("*.svg")))


def test_items_of_an_earlier_sweep_are_left_out() -> None:
    axes = {"sparsity": [0.2], "train_size": [600], "seed": [0, 1]}
    now, before = {"sweep": {"score": ["l2"], **axes}}, {"sweep": axes}
    for stage in (
        "compare",
        "prune@l2-0.2",
        "distill@l2-0.2-600-1",
        "evaluate@distill-l2-0.2-600-0",
    ):
        assert is_in_sweep(stage, now)
    for stage in ("prune@random-0.2", "distill@l2-0.2-600-2", "evaluate@finetune-l2-0.3-600-0"):
        assert not is_in_sweep(stage, now)
    assert is_in_sweep("finetune@0.2-600-0", before)
    assert not is_in_sweep("finetune@0.3-600-0", before)


# The page as a document


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


def test_equal_bytes_from_anywhere_and_only_what_is_needed_is_loaded(
    made: Path, tmp_path: Path
) -> None:
    one, other = copy(made, tmp_path / "a study, für alle"), copy(made, tmp_path / "other/deeper")
    program = (
        "import sys; from regrow.__main__ import main; "
        "sys.argv[0] = 'regrow'; \n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)"
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


def test_what_comes_from_files_is_text(made: Path, tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>{{ 7 * 7 }}"
    sets = tmp_path / "sets"
    copy(made, sets / "plain")
    folder = copy(made, sets / "<b>bold <script>")
    values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    values["model"]["source"] = evil
    values[evil] = evil
    (folder / "params.yaml").write_text(
        yaml.safe_dump(values, allow_unicode=True, width=1000) + f"# {evil}\n", encoding="utf-8"
    )
    for name in ("claim", "quantity", "verdict", "why"):
        change(
            of(folder, "claims"),
            lambda value, name=name: value["kl_matches_ce"].update({name: evil}),
        )
    change(
        of(folder, "paired"),
        lambda value: next(iter(value["sweep"].values())).update(verdict=evil),
    )
    change(
        of(folder, "measures"),
        lambda value: value["measures"].update({evil: {"label": evil, "unit": "", "better": ""}}),
    )
    (folder / "environment.json").write_text(json.dumps({evil: evil}), encoding="utf-8")
    (folder / "plots/<i>.svg").write_text("<svg><script>alert(3)</script></svg>", encoding="utf-8")
    stages = {f"{evil}": {"outs": [{"path": evil, "md5": evil}], "deps": []}}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    found = page_of(sets)
    for name in ("script", "b", "i", "svg"):
        assert not found.of(name), name
    assert all((image["src"] or "").startswith("data:") for image in found.of("img"))
    assert "onerror" not in {name for _, names in found.tags for name in names}
    # Source, further parameter, the file itself, claims, the test, the measure, version, hashes.
    assert found.text.count(" ".join(evil.split())) >= 10
    assert "<b>bold <script>" in found.text


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", *METRICS])
def test_a_missing_or_broken_file_is_named(name: str, made: Path, tmp_path: Path) -> None:
    folder = copy(made, tmp_path / "results")
    path = of(folder, name) if name in METRICS else folder / name
    path.unlink()
    sentence = refused(folder)
    assert re.match(rf"{re.escape(str(path))} (is missing|cannot be read)", sentence)
    assert sentence.endswith(
        "run `make repro` to make it, or name a folder of results that holds it"
    )
    for text in ("{", "[]", "\x00", '{"sweep": {"l2-0.2-600": 3}, "stages": 3, "claim": {}}'):
        if name == "params.yaml" and text.startswith('{"'):
            continue  # its keys are not checked here: results outlive the schema
        path.write_text(text, encoding="utf-8")
        sentence = refused(folder)
        assert sentence.startswith(f"{path} ") and "make repro" in sentence


def test_folders_without_results(made: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").endswith("is not a folder; name one that holds results")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    assert "holds no results" in refused(tmp_path / "empty")
    assert "make repro" in refused(tmp_path / "empty")
    folder = copy(made, tmp_path / "results")
    (folder / "plots/compare/accuracy.svg").unlink()
    assert refused(folder).startswith(
        f"{folder / 'plots/compare/accuracy.svg'} is missing; run `make repro`"
    )


def test_a_folder_is_never_replaced(made: Path, tmp_path: Path) -> None:
    folder = copy(made, tmp_path / "results")
    for out in (folder, folder / "metrics"):
        with pytest.raises(UserError, match="is a folder"):
            main(results=folder, out=out)
    assert of(folder, "claims").is_file()
    with pytest.raises(FileExistsError, match=r"params\.yaml"):  # which becomes a sentence
        main(results=folder, out=folder / "params.yaml" / "page.html")


# Several sets


def test_several_sets_have_a_section_each(made: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    copy(made, sets / "train_size")
    copy(made, sets / "sparsity")
    (sets / "notes").mkdir()
    (sets / ".seeds.partial" / "metrics").mkdir(parents=True)
    change(of(sets / "sparsity", "claims"), lambda value: value.pop("smaller_sets"))
    params = sets / "sparsity/params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    values["distill"]["learning_rate"]["l2"] = 0.00012345
    params.write_text(yaml.safe_dump(values), encoding="utf-8")
    found = page_of(sets)
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    assert {"set-1", "set-1-claims", "set-2", "set-2-figures"} < set(ids) and "set-3" not in ids
    links = [target[1:] for target in found.attributes("href") if target.startswith("#")]
    assert set(links) <= set(ids) and {"set-1", "set-2-versions"} <= set(links)
    assert "distill.learning_rate.l20.000123450.001" in found.text
    assert "notes" not in [text.strip() for text in found.parts]
    drawn = list((sets / "sparsity/plots").rglob("*.svg"))
    assert len(found.of("img")) == 2 * (len(drawn) + 1)  # and the training curves
    text = "".join(found.parts)
    overview = text[text.index("Verdicts and estimates") : text.index("The parameters in which")]
    assert overview.count(f"alpha = 0.1{CANNOT_SAY}") == 1


ENDS = {"estimate": 0.123, "low": 0.1, "high": 0.15}


def test_other_tasks_and_controls_have_tables_where_they_were_measured(
    made: Path, page: Page, tmp_path: Path
) -> None:
    assert "What it costs elsewhere" not in page.text
    sets = tmp_path / "sets"
    folder = copy(made, sets / "one")
    copy(made, sets / "two")
    names = ("teacher", "pruned", "finetune", "distill", "difference", "finetune_change")
    cell = {
        "accuracy": dict.fromkeys((*names, "distill_change"), ENDS),
        "kl": dict.fromkeys(("pruned", "finetune", "distill", "difference"), ENDS),
    }
    transfer = {"piqa": {"questions": 75, "chance": 0.5, "sweep": {"l2-0.2-600": cell}}}
    of(folder, "transfer").write_text(json.dumps(transfer), encoding="utf-8")
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


# What cannot be said, and what does not belong together


def test_what_was_not_measured_cannot_be_said(made: Path, tmp_path: Path) -> None:
    folder = copy(made, tmp_path / "results")

    def forget(value: dict[str, Any]) -> None:
        for cell in value["sweep"].values():
            cell["nll"] = dict.fromkeys(cell["nll"])
            cell["recovery"]["distill"] = {"estimate": 0.123456, "low": None, "high": None}
            del cell["recovery"]["finetune"]

    change(of(folder, "measures"), forget)
    change(
        of(folder, "paired"),
        lambda value: [
            cell.update(p=None, holm_p=None, detectable=None) for cell in value["sweep"].values()
        ],
    )
    (one,) = read_results(folder)
    measured = {table.caption: table for table in tables(one, "uncertainty")}
    nll = next(table for name, table in measured.items() if name.startswith("NLL of the gold"))
    assert all(str(field) == CANNOT_SAY for row in nll.rows for field in row[4:8])
    recovery = next(table for name, table in measured.items() if "ecover" in name)
    assert list(recovery.rows[0][4:8]) == [
        *("100 by definition", "0 by definition", CANNOT_SAY, "12.3 (no interval)")
    ]
    for table in tables(one, "paired"):
        assert all(row[7] == row[8] == row[10] == CANNOT_SAY for row in table.rows)


def test_files_that_do_not_belong_together_are_said(made: Path, tmp_path: Path) -> None:
    claims = of(made, "claims").read_bytes()
    files = {"a.json": b"{}", "b/c.json": b"1"}
    listing = [
        {"md5": hashlib.md5(data).hexdigest(), "relpath": name} for name, data in files.items()
    ]
    name = of(made, "claims").relative_to(made).as_posix()
    stages = {
        "compare": {
            "params": STAGES["compare"]["params"],
            "outs": [
                {"path": name, "hash": "md5", "md5": hashlib.md5(claims).hexdigest()},
                {
                    "path": "metrics/folder",
                    "hash": "md5",
                    "md5": hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir",
                },
                {"path": "plots/gone.csv", "hash": "md5", "md5": "00"},
                {"path": "metrics/../../up", "hash": "md5", "md5": "00"},
            ],
        },
        "finetune@l2-0.99-600-0": {"outs": [{"path": "models/stale", "md5": "00"}]},
    }
    folder = copy(made, tmp_path / "results", stages)
    for file, data in files.items():
        path = folder / "metrics/folder" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (one,) = read_results(folder)
    assert not one.warnings
    text = Page(render([one])).text
    for state in (f"{hashlib.md5(claims).hexdigest()}{CANNOT_SAY}the same", "not here"):
        assert state in text
    assert "models/stale" not in text

    change(of(folder, "claims"), lambda value: value.pop("smaller_sets"))
    (folder / "metrics/folder/more").write_text("", encoding="utf-8")
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["sweep"]["seed"] = [0, 1, 2]
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (one,) = read_results(folder)
    assert [warning.split(" is not ")[0] for warning in one.warnings] == [
        *("params.yaml", name, "metrics/folder")
    ]
    assert "sweep.seed. Run make repro" in one.warnings[0]
    assert "Files that do not belong together" in render([one])


def test_parameters_are_compared_by_value() -> None:
    recorded = {"s": {"params": {"params.yaml": {"a": {"x": 1.0, "y": None}, "b.c": [1, 2]}}}}
    assert changed_parameters(recorded, {"a": {"x": 1, "y": None}, "b": {"c": [1, 2]}}) == []
    other = {"a": {"x": 2, "y": None, "z": 3}, "b": {"c": [1]}}
    assert changed_parameters(recorded, other) == ["a.x", "a.z", "b.c"]


def test_the_set_up_of_every_study_and_of_none() -> None:
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        values = flat(yaml.safe_load(path.read_text(encoding="utf-8")))
        words = sentences(values)
        assert CANNOT_SAY not in " ".join(words.values())
        assert values["data.source"] in words["Questions"]
        for score in values["sweep.score"].split(", "):
            assert f"{score} (" in words["Pruning"]
    missing = sentences({})
    assert all(CANNOT_SAY in text for text in missing.values())
    assert "Further parameters" not in missing
    assert sentences({"new.key": "3"})["Further parameters"] == "new.key: 3"


def test_training_curves_of_any_number() -> None:
    curves = [Curve("finetune", [1, 2, 3], [3.0, 2.0, 1.0]), Curve("distill", [1], [0.5])]
    for count in (1, 4, 5):
        panels = {f"panel {index}": curves for index in range(count)}
        drawn = training_svg(panels)
        assert drawn == training_svg(panels)
        assert drawn.count(b'id="axes_') == count
        for word in (b"<dc:date>", b"matplotlib.org"):
            assert word not in drawn
    assert training_svg({"zero": [Curve("distill", [1, 2], [1.0, 0.0])]})


def test_results_without_training_logs_have_no_training_figure(made: Path, tmp_path: Path) -> None:
    folder = copy(made, tmp_path / "results")
    for path in (folder / "plots/training/finetune").rglob("loss.tsv"):
        path.write_text("step\tloss\n", encoding="utf-8")
    assert "cross-entropy from" not in render(read_results(folder))
    assert "KL distillation from 2.50 to 1.50" in render(read_results(folder))
    shutil.rmtree(folder / "plots/training")
    assert len(page_of(folder).of("img")) == len(list((folder / "plots").rglob("*.svg")))
    assert Source(folder).places["l2-0.2-600"].fields[0] == "l2"


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
        orders[study] = re.findall(r"python -m (regrow rep.*)", done.stdout)
    report = "regrow report --results . --out report.html"
    assert orders == {"": [report], "smoke": ["regrow repro ", report]}


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
    assert "regrow/report/page.html.j2" in zipfile.ZipFile(wheel).namelist()


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
