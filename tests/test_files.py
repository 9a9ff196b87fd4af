"""Writers and the reader that all stages share: their bytes, and what a failure leaves behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from regrow.support.errors import UserError
from regrow.support.files import read_yaml, replacing, write_csv, write_json, write_text

# No stage depends on support/, so these bytes may never change.


def test_the_bytes_of_json(tmp_path):
    path = tmp_path / "deep" / "value.json"
    write_json(path, {"name": "für", "list": [1, 2.5, None], "none": {}, "tiny": 1e-07})
    assert (
        path.read_bytes()
        == (
            '{\n  "name": "für",\n  "list": [\n    1,\n    2.5,\n    null\n  ],\n  "none": {},\n'
            '  "tiny": 1e-07\n}\n'
        ).encode()
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"nan": float("nan")})
    assert path.read_bytes().startswith(b'{\n  "name"')


def test_the_bytes_of_csv(tmp_path):
    path = tmp_path / "rows.csv"
    write_csv(path, [{"a": 1, "b": None, "c": 'x,"y"'}, {"a": 0.1, "b": "für", "c": True}])
    assert path.read_bytes() == 'a,b,c\n1,,"x,""y"""\n0.1,für,True\n'.encode()


def test_the_bytes_of_text(tmp_path):
    path = tmp_path / "page.html"
    write_text(path, "one\r\ntwo\nfür")
    assert path.read_bytes() == "one\r\ntwo\nfür".encode()


# What is left of a failure


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_rename_that_fails_leaves_the_old_output(tmp_path, kind, monkeypatch):
    path, real = tmp_path / "out", tmp_path / "real"
    if kind == "file":
        path.write_text("old")
    else:
        (real if kind == "link" else path).mkdir()
        (real if kind == "link" else path).joinpath("part").write_text("old")
        if kind == "link":
            path.symlink_to(real)

    rename = Path.rename

    def refuse(self, target):
        if self.name == ".out.partial":
            raise PermissionError(1, "Operation not permitted", str(self))
        rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match="out: Operation not permitted"), replacing(path) as beside:
        if kind == "file":
            beside.write_text("new")
        else:
            beside.mkdir()
    assert (path if kind == "file" else path / "part").read_text() == "old"
    assert path.is_symlink() == (kind == "link")
    assert not list(tmp_path.glob(".*"))


def test_a_file_a_folder_and_a_link_take_each_others_place(tmp_path):
    path, real = tmp_path / "out", tmp_path / "real"
    real.mkdir()
    path.symlink_to(real)
    for number, kind in enumerate(["folder", "folder", "file", "file", "folder"]):
        with replacing(path) as beside:
            if kind == "folder":
                beside.mkdir()
            (beside / "part" if kind == "folder" else beside).write_text(str(number))
        part = path / "part" if kind == "folder" else path
        assert part.read_text() == str(number)
        assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "real"]
    assert real.is_dir() and not any(real.iterdir())


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync

    def watched(handle):
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with replacing(tmp_path / "out") as beside:
        beside.mkdir()
        (beside / "part").write_text("new")
    assert flushed == [".out.partial/part", ".out.partial", "."]


RACE = """
import sys
from pathlib import Path
from regrow.support.resume import unfinished

for number in range(400):
    with unfinished(Path("models") / sys.argv[1], [], [number], 0.0) as state:
        state.write(number)
"""


def test_states_of_two_stages_do_not_remove_each_others_folder(tmp_path):
    # A stage that removed the folder of all states took it from one that made its own in it.
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    stages = [
        subprocess.Popen([sys.executable, "-c", RACE, name], cwd=tmp_path, env=environment)
        for name in ("a", "b")
    ]
    assert [stage.wait(120) for stage in stages] == [0, 0]
    # The folder stays, so that there is no such moment.
    assert not any((tmp_path / ".regrow").iterdir())


# YAML


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: \xff\n", r"line 2 is not UTF-8"),
        (b"a: [", r"is not YAML: while parsing"),
        (b"a: 2026-13-01", r"is not YAML: month must be in 1..12"),
        (b"[" * 1000, r"is not YAML: "),
        (b"- a", r"holds no keys with values"),
        (b"", r"holds no keys with values"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "some.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"some\.yaml.*{said}.*; do this"):
        read_yaml(path, "do this")


def test_a_number_as_dvc_writes_it_is_a_number(tmp_path):
    (tmp_path / "some.yaml").write_text("rate: 1e-05\n")
    assert read_yaml(tmp_path / "some.yaml", "") == {"rate": 1e-05}
