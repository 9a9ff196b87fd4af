"""Planted attacks: no pickle is loaded, no code runs, no path leads out, no secret is printed.

What a source may hold is in test_sources.py (wheels, hub) and test_checkpoints.py (pickles and
code beside whole weights); broken files at random are in test_fuzz.py.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from conftest import PARAMS, ROOT, synthetic_questions, write_jsonl
from regrow.distill.reader import Record
from regrow.distill.writer import record
from regrow.evaluate.predictions import SCHEMA, read_predictions
from regrow.model.folders import load_model, load_tokenizer, save_model
from regrow.model.forward import output_layer
from regrow.model.trees import build_trees
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.trainer import train
from regrow.sources.downloads import model_files
from regrow.sources.models import import_model
from regrow.sources.reading import read_source
from regrow.sources.uris import not_pinned, resolved
from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.support.resume import Unfinished, fingerprints
from regrow.support.schema import Compute, Training
from test_checkpoints import Planted, contents, plant, write_gguf
from tiny_models import QUESTIONS, regrow, tiny_config, tiny_model, tiny_tokenizer, write_params

SECRETS = {
    "HF_TOKEN": "hf_iAmTheTokenOfTheHub",
    "AWS_SECRET_ACCESS_KEY": "aWs/SeCrEt+aCcEsS",
    "PIP_INDEX_URL": "https://somebody:pAsSwOrDoFpIp@127.0.0.1:9/simple",
}
HIDDEN = ("hf_iAmTheTokenOfTheHub", "aWs/SeCrEt+aCcEsS", "pAsSwOrDoFpIp")


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """A file that planted pickles and code would make: it must never appear."""
    path = tmp_path / "the trace"
    yield path
    assert not path.exists(), "something planted has run"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama; copy it to change it."""
    folder = tmp_path_factory.mktemp("saved") / "llama"
    save_model(tiny_model(tiny_config("llama")), tiny_tokenizer(), folder)
    return folder


@pytest.fixture
def llama(saved: Path, tmp_path: Path) -> Path:
    """A saved Llama to harm."""
    return shutil.copytree(saved, tmp_path / "llama")


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(found | values), encoding="utf-8")


def load(folder: Path) -> None:
    """Load a model and its tokenizer."""
    load_model(folder, "float32", "cpu")
    load_tokenizer(folder)


def refused(call: Callable[..., object], *arguments: Any) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


# Pickles


def pickles_of_transformers() -> set[str]:
    """The names of pickles that transformers and its Trainer know, and others of their kinds."""
    from transformers import trainer, utils

    known = {
        value
        for module in (utils, trainer)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
        if re.fullmatch(r"[\w.-]+\.(bin|pt|pth|pkl|h5|msgpack|ckpt|pickle)", value)
    }
    assert {"pytorch_model.bin", "optimizer.pt", "adapter_model.bin"} <= known
    others = ("pytorch_model-00001-of-00001.bin", "rng_state.pth", "rng_state_0.pth", "vocab.pkl")
    return known | {*others, "consolidated.00.pth", "tokenizer.pkl", "model.pt", "state.pickle"}


def pickled(kind: str, path: Path, trace: Path) -> None:
    """Write a pickle that would leave `trace`: as it is, or as `torch.save` does."""
    if kind == "raw":
        path.write_bytes(pickle.dumps(Planted(trace)))
    else:
        torch.save(Planted(trace), path)


@pytest.mark.parametrize("kind", ["raw", "torch"])
def test_a_planted_pickle_would_run(kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickled(kind, tmp_path / "pickle", trace)
    with suppress(RuntimeError):  # afterwards it finds that there are no weights
        torch.load(tmp_path / "pickle", weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("kind", ["raw", "torch"])
def test_pickled_weights_are_never_loaded_where_there_are_no_others(
    kind: str, llama: Path, trace: Path, tmp_path: Path
) -> None:
    (llama / "model.safetensors").unlink()
    names = pickles_of_transformers()
    for name in names:
        pickled(kind, llama / name, trace)
    change(llama / "pytorch_model.bin.index.json", metadata={}, weight_map={"a": "model.pt"})
    assert "pickles are never read" in refused(load_model, llama, "float32", "cpu")
    (llama / "pytorch_model.bin.index.json").unlink()
    assert "holds no model" in refused(load_model, llama, "float32", "cpu")
    assert "pickled weights are never read" in refused(import_model, llama, tmp_path / "out")
    load_tokenizer(llama)
    for name in names:
        if name.endswith(".bin"):
            change(llama / "config.json", transformers_weights=name)
            assert "pickles are never read" in refused(load_model, llama, "float32", "cpu")


@pytest.mark.parametrize("kind", ["raw", "torch"])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "tokenizer.json", "tokenizer.model", "config.json", "vocab.txt"],
)
def test_a_pickle_under_the_name_of_another_kind_is_not_loaded(
    name: str, kind: str, llama: Path, trace: Path, tmp_path: Path
) -> None:
    pickled(kind, llama / name, trace)
    for folder in (llama, tmp_path / "out"):
        with suppress(UserError):
            load_model(folder, "float32", "cpu")
        with suppress(UserError):
            load_tokenizer(folder)
        with suppress(UserError):
            import_model(llama, tmp_path / "out")


@pytest.mark.parametrize("column", ["offsets", "nodes", "states"])
def test_a_record_with_a_pickle_for_a_column_is_refused(
    column: str, trace: Path, tmp_path: Path
) -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS[:1], "cloze")
    (tmp_path / "scratch").mkdir()
    state = Unfinished(tmp_path / "scratch", 1e9)
    ids = [QUESTIONS[0].id]
    folder = tmp_path / "record"
    teacher = tiny_model(tiny_config("llama"))
    record(teacher, ids, trees, "answer", folder, state)
    opened = partial(Record, folder, lambda: output_layer(teacher))
    opened()
    path = folder / f"{column}.npy"
    objects = np.array([Planted(trace)] * 2, dtype=object)
    np.save(path, objects, allow_pickle=True)
    assert "no whole record" in refused(opened)
    np.savez(path, objects)  # which NumPy's loader opens under any name
    shutil.move(folder / f"{column}.npy.npz", path)
    assert "no whole record" in refused(opened)
    pickled("raw", path, trace)
    assert "no whole record" in refused(opened)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow", ".pkl", ".npy"])
def test_a_data_set_that_is_a_pickle_is_refused(suffix: str, trace: Path, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    pickled("raw", path, trace)
    assert path.name in refused(read_source, path)
    assert "no" in refused(read_predictions, path)


@pytest.mark.parametrize("name", ["arrow.py_extension_type", "pandas.period", "arrow.json"])
def test_a_column_whose_type_is_a_pickle_is_read_without_it(
    name: str, trace: Path, tmp_path: Path
) -> None:
    metadata = {
        "ARROW:extension:name": name,
        "ARROW:extension:metadata": pickle.dumps(Planted(trace)),
    }
    rows = [row | {"id": str(row["id"])} for row in synthetic_questions(3)]
    table = pa.Table.from_pylist(rows)
    fields = [field.with_metadata(metadata) for field in table.schema]
    table = pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    schema = pa.schema([field.with_metadata(metadata) for field in SCHEMA])
    pq.write_table(schema.empty_table(), tmp_path / "predictions.parquet")
    for read, path in (
        (read_source, "a.parquet"),
        (read_source, "a.arrow"),
        (read_predictions, "predictions.parquet"),
    ):
        with suppress(UserError):
            read(tmp_path / path)  # type: ignore[operator]


def test_pickles_in_the_state_of_an_interrupted_training_do_not_run(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Training(
        batch_size=1,
        epochs=1,
        steps=None,
        warmup=0.0,
        schedule="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
    )
    trees = build_trees(tiny_tokenizer(), QUESTIONS[:4], "cloze")
    task = finetuning_task(trees, [0] * 4, "answer")
    state = Unfinished(tmp_path / "state", 0.0)
    compute = Compute(**PARAMS["compute"])

    def fit() -> None:
        model = tiny_model(tiny_config("llama"))
        train(model, task, [0, 1, 2, 3], 1e-3, settings, compute, 0, tmp_path / "log", state)

    class StoppedError(BaseException):
        pass

    def stop(_: Unfinished) -> None:
        raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(Unfinished, "saved", stop)
        fit()
    (checkpoint,) = state.folder.glob("checkpoint-*")
    assert {path.suffix for path in checkpoint.iterdir()} == {".safetensors"}
    kept = shutil.copytree(state.folder, tmp_path / "kept")
    for kind, sealed in product(("raw", "torch"), (False, True)):
        shutil.rmtree(state.folder)
        shutil.copytree(kept, state.folder)
        for name in {".metadata", "optimizer.pt"} | pickles_of_transformers():
            if name.endswith((".pt", ".pth", ".bin", ".metadata")):
                pickled(kind, checkpoint / "planted", trace)
                (checkpoint / "planted").rename(checkpoint / name)
        if sealed:  # by somebody who knows that the files' hashes are kept
            state.write(state.read() | {"files": fingerprints(checkpoint)})
        with suppress(Exception):  # whatever is done about it, nothing of it is run
            fit()
        assert not trace.exists()


# Code


@pytest.mark.parametrize(
    "asked",
    [
        {"attn_implementation": "kernels-community/flash-attn3"},
        {"_attn_implementation": "somebody/anything@main:function"},
        {"attn_implementation": "flash_attention_2"},
        {"text_config": {"attn_implementation": {"": "somebody/anything"}}},
    ],
)
def test_a_configuration_that_asks_for_code_from_the_hub_is_refused(
    asked: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    change(llama / "config.json", **asked)
    for call in (lambda: load(llama), lambda: import_model(llama, tmp_path / "out")):
        assert "config.json: attn_implementation is" in refused(call)
    assert not (tmp_path / "out").exists()


def test_what_lies_beside_a_gguf_file_is_not_read(trace: Path, tmp_path: Path) -> None:
    model = tiny_model(tiny_config("llama", intermediate_size=64))
    alone, among = tmp_path / "alone", tmp_path / "among"
    for folder in (alone, among):
        folder.mkdir()
        write_gguf(folder / "model.gguf", model, gguf.GGMLQuantizationType.F32)
    for name in ("config.json", "tokenizer_config.json"):
        change(among / name, model_type="own", tokenizer_class="Own", eos_token="a", vocab_size=3)
    plant(among, trace)
    import_model(alone / "model.gguf", tmp_path / "one")
    import_model(among / "model.gguf", tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_a_gguf_file_that_lacks_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = gguf.GGUFWriter.add_tensor

    def add_tensor(self: Any, name: str, *rest: Any, **named: Any) -> None:
        if name != "blk.1.ffn_up.weight":
            kept(self, name, *rest, **named)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_tensor)
    model = tiny_model(tiny_config("llama", intermediate_size=64))
    write_gguf(tmp_path / "model.gguf", model, gguf.GGMLQuantizationType.F32)
    said = refused(import_model, tmp_path / "model.gguf", tmp_path / "out")
    assert "model.gguf lack model.layers.1.mlp.up_proj.weight" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "asked",
    [
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"intermediate_size": 2**40},
        {"hidden_size": 2**20, "num_attention_heads": 2**18},
    ],
)
def test_a_configuration_that_asks_for_all_memory_is_refused_at_once(
    asked: dict[str, int], llama: Path
) -> None:
    change(llama / "config.json", **asked)
    said = refused(load_model, llama, "float32", "cpu")
    assert re.search(r"its configuration has [\d,]+ (layers|parameters)|size", said), said


# Paths


@pytest.mark.parametrize(
    ("file", "values", "key"),
    [
        ("model.safetensors.index.json", {"weight_map": {"a": "../b.safetensors"}}, "weight_map"),
        ("model.safetensors.index.json", {"weight_map": {"a": "/b.safetensors"}}, "weight_map"),
        ("model.safetensors.index.json", {"weight_map": {"a": ["b"]}}, "weight_map"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.4.0.0.json"]}, "fast_"),
        ("config.json", {"transformers_weights": "../b.safetensors"}, "transformers_weights"),
    ],
)
def test_files_of_a_model_that_name_others_outside_are_refused(
    file: str, values: dict[str, Any], key: str, llama: Path, tmp_path: Path
) -> None:
    change(llama / file, metadata={}, **values)
    for call in (lambda: load(llama), lambda: import_model(llama, tmp_path / "out")):
        said = refused(call)
        assert f"{file}: {key}" in said
        assert "must be the name of a file in this folder" in said
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_configuration_takes_no_vocabulary_from_elsewhere(
    llama: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tiny_tokenizer(across_words=True).save_pretrained(other)
    path = str(other / "tokenizer.json")
    keys = ("tokenizer_file", "vocab_file", "merges_file", "spm_file", "added_tokens_file")
    change(llama / "tokenizer_config.json", **dict.fromkeys(keys, path))
    text = "Question: Where is a cup kept?\nAnswer: cupboard"
    expected = tiny_tokenizer()(text)["input_ids"]
    assert tiny_tokenizer(across_words=True)(text)["input_ids"] != expected
    assert load_tokenizer(llama)(text)["input_ids"] == expected
    (llama / "tokenizer.json").unlink()
    assert "llama holds no tokenizer" in refused(load_tokenizer, llama)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_out_of_a_model_folder_is_refused(
    absolute: bool, llama: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "credentials.json"
    secret.write_text('{"password": "x"}', encoding="utf-8")
    (llama / "special_tokens_map.json").symlink_to(
        secret if absolute else Path("..") / "credentials.json"
    )
    said = refused(import_model, llama, tmp_path / "out")
    assert "special_tokens_map.json is a link that leads out of the model folder" in said
    assert not (tmp_path / "out").exists()


def test_links_inside_a_folder_and_those_of_the_hubs_cache_are_followed(
    llama: Path, tmp_path: Path
) -> None:
    expected = contents(llama)
    (llama / "model.safetensors").rename(llama / "weights")
    (llama / "model.safetensors").symlink_to("weights")
    import_model(llama, tmp_path / "out")
    assert contents(tmp_path / "out") == expected
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, (name, content) in enumerate(expected.items()):
        (repository / "blobs" / str(number)).write_bytes(content)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", str(number)))
    import_model(snapshot, tmp_path / "again")
    assert contents(tmp_path / "again") == expected


@pytest.mark.parametrize("kind", ["pipe", "folder", "dead link", "device"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(
    kind: str, llama: Path, tmp_path: Path
) -> None:
    for path in (llama / "x.json", tmp_path / "x.jsonl"):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    said = refused(import_model, llama, tmp_path / "out")
    assert "x.json is not a plain file" in said
    assert "x.jsonl is not a data set" in refused(read_source, tmp_path / "x.jsonl")
    if kind != "folder":
        with (
            pytest.raises(UserError, match="there is no file or folder"),
            resolved(f"file:{tmp_path}/x.jsonl"),
        ):
            pass


def test_names_that_the_hubs_client_takes_for_patterns_are_not_asked_for() -> None:
    hostile = ["*.json", "model*.safetensors", "model[a].safetensors", "?.json", "model?.json"]
    assert model_files([*hostile, "config.json"]) == ["config.json"]


def test_a_set_of_another_task_has_no_path_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = {"../../escaped": {"source": "file:a.jsonl", "questions": 1}}
    write_params(tmp_path, evaluate={"transfer": transfer})
    said = str(regrow(monkeypatch, tmp_path, "transfer", "--out", "data/transfer"))
    assert "evaluate.transfer.../../escaped" in said
    assert not list(tmp_path.glob("../**/escaped*"))


# Pins


def sources(values: Any) -> Iterator[tuple[str, str | None]]:
    """Every source in a params file, with its sha256."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key.endswith("source") and isinstance(value, str):
                yield value, values.get(f"{key.removesuffix('source')}sha256")
            yield from sources(value)


# Its header says so: the first run prints the commits to put there.
NOT_PINNED = "olmo2-7b"
MADE_HERE = "olmo2-rehearsal"  # its model, by `regrow rehearsal`


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *sorted((ROOT / "studies").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_every_source_of_a_study_is_pinned(path: Path) -> None:
    found = list(sources(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert found
    for uri, sha256 in found:
        if uri == f"file:models/{MADE_HERE}" and path.stem == MADE_HERE:
            continue
        if path.stem == NOT_PINNED:
            assert re.fullmatch(r"hf:[^@]+@main([/#].+)?", uri), "it is pinned: NOT_PINNED can go"
            continue
        commit = re.fullmatch(r"hf:[^@]+@[0-9a-f]{40}([/#].+)?", uri)
        assert sha256 or commit, f"{uri} is not pinned"


def test_a_wheel_without_a_sha256_is_read_and_the_sum_to_pin_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    with zipfile.ZipFile(tmp_path / "demo-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("demo/a.jsonl", b"{}")
        archive.writestr(
            "demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
        )
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    whole = hashlib.sha256(b"{}").hexdigest()
    with resolved("pypi:demo==1.0/demo/a.jsonl", key="data.source") as source:
        assert not_pinned(source, "data.source") == (
            f"the study is not pinned yet: set data.sha256 to {whole} to be sure that "
            "pypi:demo==1.0/demo/a.jsonl is the same file next time"
        )
    with resolved("pypi:demo==1.0/demo/a.jsonl", whole, key="data.source") as source:
        assert not_pinned(source, "data.source") is None


# Secrets


@pytest.mark.parametrize(
    ("stage", "sections"),
    [
        ("questions", {"data": {"source": "https://me:pAsSwOrDoFpIp@example.org/a.jsonl"}}),
        ("questions", {"data": {"sha256": "https://me:pAsSwOrDoFpIp@example.org/a.jsonl"}}),
        ("questions", {"data": {"source": "file:hf_iAmTheTokenOfTheHub"}}),
        ("questions", {"data": {"seed": "aWs/SeCrEt+aCcEsS"}}),
        ("questions", {"data": {"source": "pypi:no-such-name==1.0/a.jsonl"}}),
        ("transfer", {"evaluate": {"transfer": {"a": {"source": "ftp://u:pAsSwOrDoFpIp@h/"}}}}),
    ],
)
def test_errors_name_no_password_and_no_secret(
    stage: str,
    sections: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    params = {name: {**values, **sections.get(name, {})} for name, values in PARAMS.items()}
    params["model"]["source"] = "file:nothing"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    outs = {"questions": ("--questions", "q", "--labels", "l"), "transfer": ("--out", "t")}
    said = str(regrow(monkeypatch, tmp_path, stage, *outs[stage]))
    assert said.startswith(f"regrow {stage}: ")
    printed = capfd.readouterr()
    for secret in HIDDEN:
        assert secret not in said + printed.out + printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_token_that_the_hubs_client_repeats_is_hidden(tmp_path: Path) -> None:
    token = "hf_iAmTheToken\x01OfTheHub"  # no character of a header, which its error shows

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = f"no entry for {self.headers.get('Authorization')}".encode()
            self.send_response(403, f"Forbidden {self.headers.get('Authorization')}")
            self.send_header("X-Error-Message", said.decode())
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    code = """
import sys
from regrow.support.errors import UserError
from regrow.sources.uris import resolved
try:
    with resolved("hf:org/name@main", key="model.source", kind="model"):
        pass
except UserError as error:
    print(error)
"""
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever).start()
    try:
        for value in (token, token.replace("\x01", "")):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={
                    **os.environ,
                    "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                    "HF_HOME": str(tmp_path),
                    "HF_TOKEN": value,
                    "NO_PROXY": "127.0.0.1",
                },
                capture_output=True,
                text=True,
                check=True,
            )
            assert "could not be downloaded" in done.stdout, done.stderr
            for part in ("iAmTheToken", "OfTheHub"):
                assert part not in done.stdout + done.stderr, done.stdout + done.stderr
    finally:
        server.shutdown()
        server.server_close()


def test_no_secret_of_the_environment_is_written(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    write_params(tmp_path, data={"train": 8, "calibration": 6, "test": 6})
    write_jsonl(tmp_path / "a.jsonl", synthetic_questions())
    params = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    params["data"]["source"] = "file:a.jsonl"
    params["model"]["source"] = f"file:{saved}"
    params["resume"] = {"interval": 0.0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    asked = ("--questions", "q/train.jsonl")
    for command in (
        ("questions", "--questions", "q", "--labels", "l"),
        ("transfer", "--out", "t"),
        ("fetch", "--out", "base"),
        *[("teacher", "--base", "base", *asked, "--labels", "l/train.jsonl", "--out", "teacher")],
        ("teacher_logits", "--teacher", "teacher", *asked, "--out", "logits", "--choices", "c"),
    ):
        more = ("--log", "log") if command[0] == "teacher" else ()
        assert regrow(monkeypatch, tmp_path, *command, *more) == 0
    evaluated = ("--questions", "q", "--labels", "l", "--transfer", "t", "--metrics", "m.json")
    done = regrow(
        monkeypatch, tmp_path, "evaluate", "--model", "teacher", *evaluated, "--predictions", "p"
    )
    assert done == 0
    printed = capfd.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    for secret in HIDDEN:
        assert secret not in printed.out + printed.err
        for path in files:
            assert secret.encode() not in path.read_bytes(), path


# Sentences


def params_refused(folder: Path, content: bytes) -> str:
    path = folder / "params.yaml"
    path.write_bytes(content)
    return refused(read_params, path)


def test_faults_of_params_name_line_or_key(tmp_path: Path) -> None:
    assert "params.yaml, line 3 is not UTF-8" in params_refused(tmp_path, b"a: 1\n\n\xff")
    assert "is not YAML: month must be in 1..12" in params_refused(tmp_path, b"a: 2026-13-01")
    assert "is not YAML: maximum recursion" in params_refused(tmp_path, b"[" * 1000 + b"]" * 1000)
    values = PARAMS | {
        "evaluate": {"transfer": {"a": {"source": "file:a", "questions": 1, "sha": 1}}},
        "compute": {"threads": 10**9},
        "training": PARAMS["training"] | {"weight_decay": float("inf")},
        "distill": {"learning_rate": float("nan"), "temperature": 1.0},
    }
    said = params_refused(tmp_path, yaml.safe_dump(values).encode())
    assert "evaluate.transfer.a.sha is not a parameter (is it misspelt?)" in said
    assert "evaluate.transfer.a holds source, sha256, columns, questions" in said
    for key in ("compute.threads", "training.weight_decay", "distill.learning_rate"):
        assert f"{key}: input should be" in said


def test_a_list_of_lists_of_lists_does_not_fill_the_memory(tmp_path: Path) -> None:
    # Ten lines that stand for ten thousand million values.
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for number in range(1, 10):
        inner = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(f"a{number}: &a{number} [{inner}]")
    lines.append("sweep: {sparsity: *a9, train_size: [*a9], seed: [1]}")
    assert len(params_refused(tmp_path, "\n".join(lines).encode())) < 20_000


@pytest.mark.parametrize(
    "content", [b"\xff", b"data: {", b"data: !!python/object/apply:os.system [x]"]
)
def test_the_command_says_one_sentence_and_ends_with_1(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "regrow", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("regrow check: params.yaml")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_tokenizer_of_another_model_is_named(llama: Path, tmp_path: Path) -> None:
    from regrow.model.scoring import score_choices

    tokenizer = json.loads((llama / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.__getitem__)] = 10**6
    for token in vocabulary:
        vocabulary[token] = 10**6 + vocabulary[token]
    tokenizer["added_tokens"] = []
    (llama / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    trees = build_trees(load_tokenizer(llama), QUESTIONS[:1], "cloze")
    model = load_model(llama, "float32", "cpu")
    assert "its tokenizer files are those of another model" in refused(score_choices, model, trees)


@pytest.mark.parametrize("device", ["no such thing", "cuda:99", "", "xpu"])
def test_a_device_that_is_not_there_is_named(device: str, saved: Path) -> None:
    assert f"compute.device is {device!r}" in refused(load_model, saved, "float32", device)


def test_what_an_error_repeats_is_one_line_without_controls() -> None:
    error = UserError("the key 'a\nb\x1b[31m\ud800' of https://me:se@cret@example.org/x is wrong")
    assert str(error) == ("the key 'a\\nb\\x1b[31m\\ud800' of https://***@example.org/x is wrong")
