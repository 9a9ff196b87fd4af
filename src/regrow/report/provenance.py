"""What a set of results was made with: versions, outputs and code, by the files beside them."""

import hashlib
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath

from regrow.report.files import Json, Source, in_form, read_json
from regrow.report.parts import Fold, Part, Table
from regrow.report.set_up import flat
from regrow.report.tables import count
from regrow.report.words import CANNOT_SAY
from regrow.support.files import file_hash


def provenance(source: Source, lock: Json) -> Iterator[Part]:
    """Versions, hashes of all outputs, hashes of the code."""
    stages = of_sweep(lock, source.read("params"))
    yield Fold("Machine and versions of libraries", [_versions(source.folder)])
    yield Fold("Hashes of all outputs", [_outputs(source.folder, stages)])
    yield Fold("Hashes of the code", [_code(stages)])


def warnings(source: Source) -> list[str]:
    """Sentences on files that do not belong together."""
    params = source.read("params")
    with in_form(source.path("lock")):
        stages = of_sweep(source.read("lock"), params)
        said = [
            f"{out['path']} is not the output that dvc.lock records of the stage {stage}. Run "
            "make repro."
            for stage, out in _outs(stages)
            if _state(source.folder, out) == "differs"
        ]
        if changed := changed_parameters(stages, params):
            differs = (
                "params.yaml is not what these results were made with; by dvc.lock it differs in"
            )
            said = [f"{differs} {', '.join(changed)}. Run make repro.", *said]
    return said


def changed_parameters(stages: Json, params: Json) -> list[str]:
    """The parameters whose values in `params.yaml` are not those of `dvc.lock`, as dotted keys."""
    now, changed = flat(params), set()
    for one in stages.values():
        for key, value in one.get("params", {}).get("params.yaml", {}).items():
            before = flat({key: value})
            inside = {name for name in now if f"{name}.".startswith(f"{key}.")}
            changed |= {name for name in inside | set(before) if before.get(name) != now.get(name)}
    return sorted(changed)


def is_in_sweep(stage: str, params: Json) -> bool:
    """False for an item of an earlier sweep, such as `finetune@l2-0.2-600-0` of another score."""
    _, at, item = stage.partition("@")
    sweep = params.get("sweep") or {}
    # Earlier results have no score among the axes.
    axes = [
        [str(value) for value in sweep[axis]]
        for axis in ("score", "sparsity", "train_size", "seed")
        if axis in sweep
    ]
    items = {"-".join(one) for part in (axes[:-2], axes) for one in product(*part)}
    return not (at and axes) or item.removeprefix("finetune-").removeprefix("distill-") in items


def of_sweep(lock: Json, params: Json) -> Json:
    """The stages of `dvc.lock` that belong to the sweep: DVC leaves those of earlier ones there."""
    return {stage: one for stage, one in lock["stages"].items() if is_in_sweep(stage, params)}


def _outs(stages: Json) -> Iterator[tuple[str, Json]]:
    """Each output that `dvc.lock` names, with its stage."""
    return ((stage, out) for stage, one in stages.items() for out in one.get("outs", []))


def _versions(folder: Path) -> Table:
    path, rows = folder / "environment.json", [("Versions", CANNOT_SAY)]
    note = "The results hold no environment.json, which would say it."
    if path.is_file():
        note = "By environment.json beside the results."
        rows = [(name, str(value)) for name, value in read_json(path).items()]
    return Table("Machine and versions", ["What", "Value"], rows, note, "words")


def _outputs(folder: Path, stages: Json) -> Table:
    # Only results are looked at, so that the page does not depend on whether models lie there too.
    rows = [
        [
            *(stage, str(out["path"]), str(out.get("md5", CANNOT_SAY))),
            *(count(out.get("size")), _state(folder, out)),
        ]
        for stage, out in _outs(stages)
    ]
    note = (
        "MD5, as DVC records it; “.dir” is the hash of a folder's listing. “Here”: whether the "
        "file beside this page's numbers is that output; data and models are not looked at."
    )
    head = ["Stage", "Output", "MD5", "Bytes", "Here"]
    return Table("Outputs, by dvc.lock", head, rows, note, "words")


def _code(stages: Json) -> Table:
    users: dict[tuple[str, str], dict[str, None]] = {}
    for stage, one in stages.items():
        for dep in one.get("deps", []):
            if dep["path"].startswith("src/"):
                of = users.setdefault((dep["path"], dep.get("md5", CANNOT_SAY)), {})
                of[stage.partition("@")[0]] = None
    rows = [(*file, ", ".join(of)) for file, of in sorted(users.items())]
    note = "Code is named by hashes and not by a commit: any commit with these files is it."
    return Table("Code, by dvc.lock", ["File or folder", "MD5", "Stages"], rows, note, "words")


def _state(folder: Path, out: Json) -> str:
    """Whether an output that `dvc.lock` names lies in `folder`: `the same`, `differs`, …"""
    path = PurePosixPath(str(out["path"]))
    if path.parts[0] not in ("metrics", "plots") or ".." in path.parts:
        return ""
    if not (folder / path).exists():
        return "not here"
    if out.get("hash") != "md5":
        return CANNOT_SAY
    return "the same" if _md5(folder / path) == out["md5"] else "differs"


def _md5(path: Path) -> str:
    """The hash that DVC 3 gives a file, or a folder: that of the list of its files' hashes."""
    if path.is_file():
        return file_hash(path, "md5")
    files = {one.relative_to(path).as_posix(): one for one in path.rglob("*") if one.is_file()}
    listing = [{"md5": _md5(files[name]), "relpath": name} for name in sorted(files)]
    data = json.dumps(listing, sort_keys=True).encode()
    return f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir"
