"""A network that goes away halfway: a sentence, the earlier output, and the same command again."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, synthetic_questions
from faults import contents, sentence
from test_sources import COMMIT, REPOSITORIES, Hub, build_wheel
from tiny_models import write_params

pytestmark = pytest.mark.slow

QUESTIONS = "".join(json.dumps(row) + "\n" for row in synthetic_questions()).encode()


class Halfway:
    """A mixin: while `broken`, the connection is closed after half of a file's bytes."""

    broken = True

    def cut(self, whole: bytes) -> bytes:
        return whole[: len(whole) // 2] if type(self).broken else whole


class HubHalfway(Halfway, Hub):
    """The hub of the tests of sources."""

    def send(self, content: str | bytes, body: bool = True) -> None:
        whole = content.encode() if isinstance(content, str) else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.send_header("ETag", f'"{hashlib.sha1(whole).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(self.cut(whole) if isinstance(content, bytes) else whole)
        self.close_connection = True


class IndexHalfway(Halfway, http.server.SimpleHTTPRequestHandler):
    """A package index: folders of files."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        whole = source.read()
        outputfile.write(self.cut(whole) if self.path.endswith(".whl") else whole)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(handler: Any) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def questions_stage(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "regrow", "questions", "--questions", "q", "--labels", "l"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_PROXY": "127.0.0.1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def assert_survived(
    folder: Path, source: str, environment: dict[str, str], halfway: type[Halfway]
) -> None:
    write_params(folder)
    params = (folder / "params.yaml").read_text("utf-8")
    (folder / "params.yaml").write_text(params.replace("source: file:nothing", f"source: {source}"))
    halfway.broken = False
    status, said = questions_stage(folder, environment)
    assert status == 0, said
    earlier = contents(folder)
    halfway.broken = True
    status, said = questions_stage(folder, environment)
    assert status == 1, said
    print(sentence(said))
    assert "could not be downloaded (" in sentence(said)
    assert contents(folder) == earlier
    halfway.broken = False
    assert questions_stage(folder, environment)[0] == 0
    assert contents(folder) == earlier


def test_a_wheel_cut_short_by_the_network_is_named(tmp_path: Path) -> None:
    files = tmp_path / "index" / "demo"
    files.mkdir(parents=True)
    padding = os.urandom(100_000)
    build_wheel(files, {"demo/q.jsonl": QUESTIONS, "demo/padding": padding})
    folder = tmp_path / "a place"
    folder.mkdir()
    with served(partial(IndexHalfway, directory=str(tmp_path / "index"))) as address:
        environment = {"PIP_INDEX_URL": address, "PIP_CONFIG_FILE": os.devnull}
        assert_survived(folder, "pypi:demo==1.0/demo/q.jsonl", environment, IndexHalfway)


def test_a_file_of_a_hub_cut_short_by_the_network_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REPOSITORIES["datasets/org/one"], "data/all.jsonl", QUESTIONS)
    HubHalfway.requested = []
    folder = tmp_path / "a place"
    folder.mkdir()
    with served(HubHalfway) as address:
        environment = {
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        source = f"hf:org/one@{COMMIT}/data/all.jsonl"
        assert_survived(folder, source, environment, HubHalfway)
