"""Models in llama.cpp: the files, their scores, and what is said of those that are none."""

import json
import os
import re
import resource
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config

from conftest import ROOT
from regrow.device import measure, runtime
from regrow.device.export import write_gguf
from regrow.device.measure import (
    UNITS,
    describe_machine,
    in_fresh_process,
    machine_name,
    read_meter,
    repeat,
)
from regrow.device.runtime import check_recorded, describe, open_model, quantise
from regrow.device.score import check_scores, predictions, score_file
from regrow.device.tokens import PRE_TOKENIZERS, Asked, source_pre_tokenizer
from regrow.evaluate.predictions import Predictions
from regrow.model.folders import load_model, load_tokenizer
from regrow.model.scoring import score_choices
from regrow.model.trees import build_trees
from regrow.support.errors import UserError
from regrow.tasks.prompts import context, continuations
from regrow.tasks.questions import read_questions
from tiny_models import ARCHITECTURES, QUESTIONS, SENTENCES, tiny_config, tiny_model, tiny_tokenizer

SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}


def asked_of(tokenizer, questions=QUESTIONS):
    trees = build_trees(tokenizer, questions, "cloze")
    return [
        Asked(
            id=question.id,
            split="test",
            answer=0,
            texts=[context(question, "cloze") + text for text in continuations(question, "cloze")],
            context=tree.context,
            branches=tree.branches,
            characters=[len(choice) for choice in question.choices],
        )
        for question, tree in zip(questions, trees, strict=True)
    ]


def made(folder, architecture="llama", tokenizer=None, dtype=torch.float32, **changes):
    """A tiny model in a folder, and the model."""
    tokenizer = tokenizer or tiny_tokenizer()
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"}
    own = SIZES if architecture.startswith("qwen3") else sizes
    model = tiny_model(tiny_config(architecture, **{**own, **changes}), dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "model"
    made(path)
    return path


@pytest.fixture(scope="module")
def files(folder):
    """The tiny Llama in F32 and Q8_0."""
    paths = folder.parent / "F32.gguf", folder.parent / "Q8_0.gguf"
    write_gguf(folder, paths[0])
    assert quantise(*paths, "Q8_0") == {}
    return paths


# The same model


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ["llama", "llama with biases", "olmo2", "qwen2", "qwen3"])
def test_f32_scores_are_those_of_transformers(tmp_path, monkeypatch, architecture, tied):
    monkeypatch.setitem(ARCHITECTURES, "qwen2", (Qwen2Config, {}))
    model = made(tmp_path / "model", architecture, tie_word_embeddings=tied)
    write_gguf(tmp_path / "model", tmp_path / "F32.gguf")
    asked = asked_of(tiny_tokenizer())
    wanted = score_choices(model, build_trees(tiny_tokenizer(), QUESTIONS, "cloze"))
    found = score_file(tmp_path / "F32.gguf", asked)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert found == score_file(tmp_path / "F32.gguf", asked, workers=2)


def test_a_bfloat16_folder_and_f16_files_work(tmp_path):
    made(tmp_path / "model", dtype=torch.bfloat16)
    asked = asked_of(tiny_tokenizer())
    model = load_model(tmp_path / "model", "float32", "cpu")
    wanted = score_choices(model, build_trees(tiny_tokenizer(), QUESTIONS, "cloze"))
    for dtype, gap in (("F32", 1e-3), ("F16", 0.1)):
        write_gguf(tmp_path / "model", tmp_path / "x.gguf", dtype)
        assert dtype in describe(tmp_path / "x.gguf")["types"]
        for one, other in zip(score_file(tmp_path / "x.gguf", asked), wanted, strict=True):
            assert one == pytest.approx(other, abs=gap)


def test_sizes_and_bytes(files, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    hidden, width, kv = 64, 96, 32
    layer = [hidden * hidden] * 2 + [hidden * kv] * 2 + [hidden * width] * 3
    matrices = [config["vocab_size"] * hidden, *(layer * config["num_hidden_layers"])]
    vectors = [hidden] * (2 * config["num_hidden_layers"] + 1)
    # A block of Q8_0 holds 32 bytes and a scale of two; every tensor begins at a multiple of 32.
    for path, of_block in zip(files, (32 * 4, 32 + 2), strict=True):
        header = runtime.library().GGUFContext.from_file(str(path)).data_offset
        sizes = [size // 32 * of_block for size in matrices] + [4 * size for size in vectors]
        assert path.stat().st_size == header + sum(-(-size // 32) * 32 for size in sizes)
        assert describe(path)["bytes"] == path.stat().st_size
    again = tmp_path / "again.gguf", tmp_path / "again-8.gguf"
    write_gguf(folder, again[0])
    quantise(*again, "Q8_0")
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]


def test_padding_changes_no_score_and_is_said(tmp_path):
    asked = asked_of(tiny_tokenizer())
    # Where the width fills the runtime's registers (32 numbers) no sum is split another way.
    for width, multiple, gap in ((64, 96, 0), (80, 32, 1e-5)):
        made(tmp_path / "model", intermediate_size=width)
        write_gguf(tmp_path / "model", tmp_path / "padded.gguf", multiple_of=multiple)
        write_gguf(tmp_path / "model", tmp_path / "bare.gguf", multiple_of=1)
        assert describe(tmp_path / "padded.gguf")["unpadded"] == width
        assert describe(tmp_path / "bare.gguf")["unpadded"] is None
        pairs = [score_file(tmp_path / f"{name}.gguf", asked) for name in ("padded", "bare")]
        for one, other in zip(*pairs, strict=True):
            assert one == pytest.approx(other, abs=gap)
    assert quantise(tmp_path / "padded.gguf", tmp_path / "q.gguf", "Q4_0") == {}
    with pytest.raises(UserError, match=r"ncols 80 not divisible by 32.*--multiple-of"):
        quantise(tmp_path / "bare.gguf", tmp_path / "none.gguf", "Q8_0")
    assert not (tmp_path / "none.gguf").exists()


def test_fallbacks_are_named_and_counted(files, tmp_path, capsys):
    fallbacks = quantise(files[0], tmp_path / "k.gguf", "Q4_K_M")
    printed = capsys.readouterr().out
    assert len(fallbacks) > 10 and "blk.0.ffn_up.weight" in fallbacks
    assert all(f"{name} falls back" in printed for name in fallbacks)
    assert f"{len(fallbacks)} tensors fell back" in printed
    held = describe(tmp_path / "k.gguf")["types"]
    assert "Q4_K" not in held and "Q5_0" in held
    for form in ("Q8_0", "Q4_0", "Q4_0-pure", "Q5_0", "Q5_1"):
        assert quantise(files[0], tmp_path / "x.gguf", form) == {}


# Tokens


def tokenizer_of(rules):
    parts = {
        "ByteLevel": lambda regex: pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=regex
        ),
        "Digits": pre_tokenizers.Digits,
        "Split": lambda text: pre_tokenizers.Split(Regex(text), "isolated"),
    }
    rule = pre_tokenizers.Sequence([parts[kind](value) for kind, value in rules])
    values = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    made = Tokenizer.from_str(json.dumps(values))
    made.pre_tokenizer = rule[0] if len(rules) == 1 else rule
    if PRE_TOKENIZERS[rules] == "qwen2":
        made.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("rules", PRE_TOKENIZERS, ids=PRE_TOKENIZERS.values())
@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
def test_the_runtime_splits_texts_as_the_tokenizer_does(tmp_path, rules, bos):
    tokenizer = tokenizer_of(rules)
    if bos:
        tokenizer._tokenizer.post_processor = tiny_tokenizer(bos=True)._tokenizer.post_processor
    made(tmp_path / "model", tokenizer=tokenizer, initializer_range=0.02)
    write_gguf(tmp_path / "model", tmp_path / "x.gguf")
    model = open_model(tmp_path / "x.gguf")
    vocabulary = model.get_vocab()
    for text in (
        *SENTENCES,
        "It's 12,345.6 km;\n\n  don't  go\t\tthere",
        "Où für 早い 😀 x²",
        "a ",
    ):
        found = vocabulary.tokenize(text, add_special=True, parse_special=True)
        assert list(found) == tokenizer(text)["input_ids"]


def test_other_tokens_than_the_tokenizers_are_refused(files):
    asked = asked_of(tiny_tokenizer())
    wrong = replace(asked[0], branches=[*asked[0].branches[:-1], (5, 6)])
    with pytest.raises(UserError, match="other tokens than its tokenizer does"):
        score_file(files[0], [*asked[1:], wrong])


def test_the_source_files_pre_tokenizer_comes_first(folder, tmp_path):
    write_gguf(folder, tmp_path / "x.gguf", pre_tokenizer="smollm")
    header = runtime.library().GGUFContext.from_file(str(tmp_path / "x.gguf"))
    assert header.get_value("tokenizer.ggml.pre") == "smollm"


# What is none


def broken(folder, tmp_path, **config):
    shutil.copytree(folder, tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return tmp_path / "other"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "gemma2"}, r"architecture 'gemma2'; only llama, olmo2, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, r"hidden_act is 'gelu'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, r"rope_type is 'llama3'"),
        ({"use_sliding_window": True}, r"use_sliding_window is True"),
        ({"num_hidden_layers": "two"}, r"num_hidden_layers is 'two'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_model_that_cannot_be_exported_is_refused(folder, tmp_path, config, said):
    with pytest.raises(UserError, match=said):
        write_gguf(broken(folder, tmp_path, **config), tmp_path / "x.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_tokenizers_and_weights_that_do_not_fit_are_refused(folder, tmp_path):
    other = broken(folder, tmp_path)
    tiny_tokenizer(across_words=True).save_pretrained(other)
    with pytest.raises(UserError, match="rules that no pre-tokenizer"):
        write_gguf(other, tmp_path / "x.gguf")
    tiny_tokenizer().save_pretrained(other)
    save_file({"model.other.weight": torch.zeros(2, 2)}, other / "more.safetensors")
    with pytest.raises(UserError, match=r"model\.other\.weight, which llama\.cpp does not know"):
        write_gguf(other, tmp_path / "x.gguf")
    (other / "more.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="no whole safetensors"):
        write_gguf(other, tmp_path / "x.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_truncated_flipped_and_foreign_files_are_refused(files, tmp_path):
    whole = files[1].read_bytes()
    record = tmp_path / "record.json"
    record.write_text(json.dumps(describe(files[1])))
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    path = tmp_path / "x.gguf"
    for content in (whole[:-1000], whole[: len(whole) // 3], bytes(flipped), b"PK\3\4", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"no GGUF file|not the file that"):
            check_recorded(path, record)
        if content != bytes(flipped):
            for use in (describe, open_model, lambda path: quantise(path, tmp_path / "y", "Q4_0")):
                with pytest.raises(UserError, match=r"x\.gguf"):
                    use(path)
    path.write_bytes(files[0].read_bytes())
    with pytest.raises(UserError, match="another model's"):
        check_recorded(path, record)
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        check_recorded(path, tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        check_recorded(tmp_path / "none.gguf", record)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["record.json", "x.gguf"]


def test_a_full_disk_leaves_nothing(files, folder, tmp_path):
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, kept[1]))
    try:
        with pytest.raises(UserError, match=r"x\.gguf: it was not written to its end"):
            write_gguf(folder, tmp_path / "x.gguf")
        with pytest.raises(UserError, match=r"cannot be quantised to Q8_0"):
            quantise(files[0], tmp_path / "y.gguf", "Q8_0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_and_a_wrong_format_are_one_sentence(files, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'Q9' with embeddings of 'Q8_0' is none of F16, Q4_0"):
        quantise(files[0], tmp_path / "y.gguf", "Q9")
    monkeypatch.setitem(sys.modules, "cyllama.llama", None)
    with pytest.raises(UserError, match="not installed; `make edge` installs it"):
        open_model(files[0])


def test_f32_scores_of_another_model_are_refused(files):
    asked = asked_of(tiny_tokenizer())
    scores = score_file(files[0], asked)
    study = Predictions([], [], [], [], [], [], 7, 3)
    found = predictions(asked, scores, study)
    assert (found.parameters, found.mlp_parameters, found.log_probs) == (7, 3, scores)
    check_scores(scores, asked, found, files[0])
    other = [list(np.array(row) + 0.1) for row in scores]
    with pytest.raises(UserError, match=r"differ by 0\.1 nats from transformers'"):
        check_scores(other[:3], asked, found, files[0])


# Against each other, and how fast


def test_every_student_is_smaller_than_its_teacher_in_the_same_format(files, tmp_path):
    # A width of 40 is padded to 64, and still smaller than the teacher's 96.
    for width in (32, 40, 64):
        made(tmp_path / "student", intermediate_size=width)
        write_gguf(tmp_path / "student", tmp_path / "s.gguf")
        for form in ("Q8_0", "Q4_0"):
            assert quantise(tmp_path / "s.gguf", tmp_path / "s-q.gguf", form) == {}
            assert quantise(files[0], tmp_path / "t-q.gguf", form) == {}
            student, teacher = (describe(tmp_path / f"{who}-q.gguf") for who in "st")
            assert student["bytes"] < teacher["bytes"] and student["layout"] != teacher["layout"]


def test_a_file_is_measured_in_a_process_of_its_own(folder, files, tmp_path):
    # A context of 544 positions is asked of a model that has seen 1,024.
    found = repeat({"one": files[1]}, (1, 2), 2)["one"]
    for threads in ("1", "2"):
        assert found[threads].keys() >= UNITS.keys() - {"joules"}
        for name, figure in found[threads].items():
            assert 0 < figure["low"] <= figure["median"] <= figure["high"], name
        assert found[threads]["peak_mb"]["median"] < 500
    path = tmp_path / "x.gguf"
    path.write_bytes(files[1].read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"x\.gguf could not be measured: llama\.cpp cannot load"):
        in_fresh_process(path, 1)


def test_the_machine_is_described_and_its_meter_read(tmp_path, monkeypatch):
    machine = describe_machine()
    assert machine["cores"] == os.cpu_count() and machine["runtime"].startswith("cyllama ")
    assert re.fullmatch(r"[a-z0-9-]+", machine_name(machine))
    xeon = {"processor": "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "cores": 28}
    assert machine_name(xeon) == "intel-xeon-e5-2680-v4-28"
    monkeypatch.setattr(measure, "METER", tmp_path)
    assert read_meter() is None and describe_machine()["energy"] == "no meter"
    for name, microjoules in (
        ("intel-rapl:0", 5_000_000),
        ("intel-rapl:1", 1),
        ("intel-rapl:0:0", 9),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    assert read_meter() == pytest.approx(5.000001) and describe_machine()["energy"] == "RAPL"


# The real model


@pytest.mark.slow
def test_the_real_model_scores_as_in_transformers(tmp_path):
    teacher, pool = ROOT / "models" / "teacher", ROOT / "data" / "questions" / "test.jsonl"
    if not (teacher / "model.safetensors").is_file():
        pytest.skip("the default study's models are not here; `make repro` makes them")
    questions = read_questions(pool)[:8]
    tokenizer, pre_tokenizer = load_tokenizer(teacher), source_pre_tokenizer(ROOT / "models/base")
    write_gguf(teacher, tmp_path / "F32.gguf", pre_tokenizer=pre_tokenizer)
    asked = asked_of(tokenizer, questions)
    model = load_model(teacher, "float32", "cpu")
    wanted = score_choices(model, build_trees(tokenizer, questions, "cloze"))
    for one, other in zip(score_file(tmp_path / "F32.gguf", asked, 2), wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    for form in ("Q8_0", "Q4_0"):
        assert quantise(tmp_path / "F32.gguf", tmp_path / f"{form}.gguf", form) == {}
        score_file(tmp_path / f"{form}.gguf", asked, 2)


def test_the_committed_files_of_the_default_study():
    folder = ROOT / "edge" / "metrics" / "files"
    found = {
        path.relative_to(folder): json.loads(path.read_text()) for path in folder.rglob("*.json")
    }
    if not found:
        pytest.skip("`make edge` has not been run")
    for path, record in found.items():
        assert record["fallbacks"] == {} and record["unpadded"] is None, path
        if path.parts[0] != "teacher":
            assert record["bytes"] < found[Path("teacher") / path.name]["bytes"], path
