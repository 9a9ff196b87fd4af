"""What a set of results was made with: versions, outputs and code, by `dvc.lock`."""

import hashlib
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from regrow.report.files import Json
from regrow.report.tables import CANNOT_SAY, Cell, Table, count
from regrow.report.words import flat

LIBRARIES = (
    *("torch", "transformers", "tokenizers", "accelerate", "safetensors", "gguf"),
    *("numpy", "scipy", "pyarrow", "matplotlib", "pydantic", "dvc", "dvclive"),
)


SWEEP = ("sparsity", "train_size", "seed")


def version_table(folder: Path) -> Table:
    """The versions that `constraints.txt` names: that of the set, or else of the project around it.

    What is installed where the page is written is not among them: it need not be what made the
    results, and the page would differ from machine to machine.
    """
    around = [folder, *folder.resolve().parents]
    place = next((one for one in around if (one / "constraints.txt").is_file()), None)
    pinned = {}
    if place is not None:
        for line in (place / "constraints.txt").read_text(encoding="utf-8").splitlines():
            name, equals, version = line.partition("==")
            if equals:
                pinned[name.strip().lower().replace("_", "-")] = version.split("#")[0].strip()
    origin = "Pinned in constraints.txt"
    if place is None:
        origin = "There is no constraints.txt"
    elif place != folder:
        origin += " of the project, which may be younger than these results"
    return Table(
        "Versions of libraries",
        ["Library", "Version"],
        [
            [Cell("Python"), Cell(CANNOT_SAY)],
            *([Cell(name), Cell(pinned.get(name, CANNOT_SAY))] for name in LIBRARIES),
        ],
        note=f"{origin}. No file of the results records the version of Python.",
        words=True,
    )


def output_table(folder: Path, stages: Json) -> tuple[Table, list[str]]:
    """What every stage wrote, by `dvc.lock`, and sentences on files here that are another's.

    Only results are looked at (`metrics/` and `plots/`), so that the page does not depend on
    whether data and models lie there too.
    """
    rows, warnings = [], []
    for stage, recorded in stages.items():
        for out in recorded.get("outs", []):
            state = _state(folder, out)
            if state == "differs":
                warnings.append(
                    f"{out['path']} is not the output that dvc.lock records of the stage {stage}. "
                    "Run make repro."
                )
            rows.append(
                [
                    Cell(stage),
                    Cell(str(out["path"])),
                    Cell(str(out.get("md5", CANNOT_SAY))),
                    Cell(count(out.get("size"))),
                    Cell(state),
                ]
            )
    note = (
        "MD5, as DVC records it; “.dir” is the hash of a folder's listing. “Here”: whether the "
        "file beside this page's numbers is that output; data and models are not looked at."
    )
    head = ["Stage", "Output", "MD5", "Bytes", "Here"]
    return Table("Outputs, by dvc.lock", head, rows, note, words=True), warnings


def code_table(stages: Json) -> Table:
    """The code that the stages ran, by `dvc.lock`: a row a file and hash."""
    users: dict[tuple[str, str], list[str]] = {}
    for stage, recorded in stages.items():
        for dep in recorded.get("deps", []):
            if str(dep["path"]).startswith("src/"):
                key = (str(dep["path"]), str(dep.get("md5", CANNOT_SAY)))
                kind = stage.partition("@")[0]
                if kind not in users.setdefault(key, []):
                    users[key].append(kind)
    return Table(
        "Code, by dvc.lock",
        ["File", "MD5", "Stages"],
        [[Cell(path), Cell(md5), Cell(", ".join(of))] for (path, md5), of in sorted(users.items())],
        note="Code is named by hashes and not by a commit: any commit with these files is it.",
        words=True,
    )


def changed_parameters(stages: Json, params: Json) -> list[str]:
    """The parameters whose values in `params.yaml` are not those of `dvc.lock`, as dotted keys."""
    changed: dict[str, None] = {}
    for recorded in stages.values():
        for key, before in recorded.get("params", {}).get("params.yaml", {}).items():
            now: Any = params
            for part in str(key).split("."):
                now = now.get(part) if isinstance(now, Mapping) else None
            one, other = flat(before, str(key)), flat(now, str(key))
            changed |= {name: None for name in {**one, **other} if one.get(name) != other.get(name)}
    return sorted(changed)


def is_in_sweep(stage: str, params: Json) -> bool:
    """False for an item of an earlier sweep, which DVC leaves in its lock file.

    `finetune@0.2-600-0` is an item of sparsity 0.2, 600 train questions and seed 0.
    """
    _, at, item = stage.partition("@")
    sweep = params.get("sweep")
    lists = [sweep.get(name) for name in SWEEP] if isinstance(sweep, Mapping) else []
    if not at or not lists or not all(isinstance(one, list) for one in lists):
        return True
    parts = [[str(value) for value in one or []] for one in lists]
    return item in parts[0] or item in map("-".join, product(*parts))


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
