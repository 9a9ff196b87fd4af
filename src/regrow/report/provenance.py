"""What a set of results was made with: versions, outputs and code, by the files beside them."""

import hashlib
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from regrow.report.files import MISSING, Json, Source, in_form, read_json
from regrow.report.parts import Cell, Fold, Section, Table
from regrow.report.set_up import flat
from regrow.report.tables import count
from regrow.report.words import CANNOT_SAY
from regrow.support.files import read_yaml


def provenance(source: Source) -> Section:
    """Versions, hashes of all outputs, hashes of the code."""
    stages = recorded(source)
    with in_form(source.folder / "dvc.lock"):
        outputs, code = _outputs(source.folder, stages), _code(stages)
    folds = [
        Fold("Machine and versions of libraries", [_versions(source.folder)]),
        Fold("Hashes of all outputs", [outputs]),
        Fold("Hashes of the code", [code]),
    ]
    return Section("versions", "Versions and hashes", folds)


def warnings(source: Source) -> list[str]:
    """Sentences on files that do not belong together."""
    stages = recorded(source)
    with in_form(source.folder / "dvc.lock"):
        changed = changed_parameters(stages, source.params)
        said = [
            f"{out['path']} is not the output that dvc.lock records of the stage {stage}. Run "
            "make repro."
            for stage, one in stages.items()
            for out in one.get("outs", [])
            if _state(source.folder, out) == "differs"
        ]
    if changed:
        said.insert(
            0,
            "params.yaml is not what these results were made with; by dvc.lock it differs in "
            f"{', '.join(changed)}. Run make repro.",
        )
    return said


def recorded(source: Source) -> Json:
    """The stages of `dvc.lock` that belong to the sweep: DVC leaves those of earlier ones there."""
    path = source.folder / "dvc.lock"
    lock = read_yaml(path, MISSING)
    with in_form(path):
        return {
            stage: one for stage, one in lock["stages"].items() if is_in_sweep(stage, source.params)
        }


def changed_parameters(stages: Json, params: Json) -> list[str]:
    """The parameters whose values in `params.yaml` are not those of `dvc.lock`, as dotted keys."""
    changed: dict[str, None] = {}
    for one in stages.values():
        for key, before in one.get("params", {}).get("params.yaml", {}).items():
            now: Any = params
            for part in str(key).split("."):
                now = now.get(part) if isinstance(now, Mapping) else None
            old, new = flat(before, str(key)), flat(now, str(key))
            changed |= {name: None for name in {**old, **new} if old.get(name) != new.get(name)}
    return sorted(changed)


def is_in_sweep(stage: str, params: Json) -> bool:
    """False for an item of an earlier sweep, such as `finetune@l2-0.2-600-0` of another score."""
    _, at, item = stage.partition("@")
    sweep = params.get("sweep")
    if not at or not isinstance(sweep, Mapping):
        return True
    # Earlier results have no score among the axes.
    axes = [sweep.get(axis) for axis in ("score", "sparsity", "train_size", "seed")]
    lists = [[str(value) for value in one] for one in axes if isinstance(one, list)]
    start = len(lists) - 2
    items = {"-".join(one) for part in (lists[:start], lists) for one in product(*part)}
    return item.removeprefix("finetune-").removeprefix("distill-") in items


def _versions(folder: Path) -> Table:
    path = folder / "environment.json"
    caption, head = "Machine and versions", ["What", "Value"]
    if not path.is_file():
        note = "The results hold no environment.json, which would say it."
        return Table(caption, head, [[Cell("Versions"), Cell(CANNOT_SAY)]], note, "words")
    rows = [[Cell(name), Cell(str(value))] for name, value in read_json(path).items()]
    return Table(caption, head, rows, "By environment.json beside the results.", "words")


def _outputs(folder: Path, stages: Json) -> Table:
    """What every stage wrote, by `dvc.lock`.

    Of what lies here only results are looked at (`metrics/` and `plots/`), so that the page does
    not depend on whether data and models lie there too.
    """
    rows = [
        [
            *(Cell(stage), Cell(str(out["path"])), Cell(str(out.get("md5", CANNOT_SAY)))),
            *(Cell(count(out.get("size"))), Cell(_state(folder, out))),
        ]
        for stage, one in stages.items()
        for out in one.get("outs", [])
    ]
    note = (
        "MD5, as DVC records it; “.dir” is the hash of a folder's listing. “Here”: whether the "
        "file beside this page's numbers is that output; data and models are not looked at."
    )
    head = ["Stage", "Output", "MD5", "Bytes", "Here"]
    return Table("Outputs, by dvc.lock", head, rows, note, "words")


def _code(stages: Json) -> Table:
    """The code that the stages ran, by `dvc.lock`: a row a file or room and hash."""
    users: dict[tuple[str, str], list[str]] = {}
    for stage, one in stages.items():
        for dep in one.get("deps", []):
            if str(dep["path"]).startswith("src/"):
                key = (str(dep["path"]), str(dep.get("md5", CANNOT_SAY)))
                kind = stage.partition("@")[0]
                if kind not in users.setdefault(key, []):
                    users[key].append(kind)
    rows = [
        [Cell(path), Cell(md5), Cell(", ".join(of))] for (path, md5), of in sorted(users.items())
    ]
    note = "Code is named by hashes and not by a commit: any commit with these files is it."
    return Table("Code, by dvc.lock", ["File or folder", "MD5", "Stages"], rows, note, "words")


def _state(folder: Path, out: Json) -> str:
    """Whether an output that `dvc.lock` names lies in `folder`: `the same`, `differs`, …"""
    path = PurePosixPath(str(out["path"]))
    if path.parts[0] not in ("metrics", "plots") or ".." in path.parts:
        return ""
    here = folder / path
    if not here.exists():
        return "not here"
    if out.get("hash") != "md5":
        return CANNOT_SAY
    return "the same" if _md5(here) == out["md5"] else "differs"


def _md5(path: Path) -> str:
    """The hash that DVC 3 gives a file, or a folder: that of the list of its files' hashes."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = {one.relative_to(path).as_posix(): one for one in path.rglob("*") if one.is_file()}
    listing = [{"md5": _md5(files[name]), "relpath": name} for name in sorted(files)]
    data = json.dumps(listing, sort_keys=True).encode()
    return f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir"
