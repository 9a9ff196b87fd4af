"""What a study takes, planned: shapes, memory, advice, the table; four predictions, measured."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from benchmarks import memory as measured_memory
from transformers import LlamaConfig, Olmo2Config

from conftest import PARAMS, ROOT
from regrow.model.folders import count_parameters
from regrow.plan import memory
from regrow.plan.fit import Machine, advice
from regrow.plan.loads import Questions, training_flops, training_load, trees_of
from regrow.plan.memory import Load
from regrow.plan.shapes import Costs, shape_of
from regrow.plan.study import SPEEDS, Rates, Study, rows
from regrow.support.schema import Compute, Params, Training
from tiny_models import ARCHITECTURES, regrow, tiny_config, tiny_model

GIBI = 2**30
OLMO = ROOT / "studies" / "olmo2-7b.yaml"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_without_weights_are_those_of_the_model(architecture):
    config = tiny_config(architecture)
    shape, model = shape_of(config), tiny_model(config)
    assert shape.parameters == count_parameters(model)
    assert shape.layer == count_parameters(model.base_model.layers[0])
    narrower = tiny_model(tiny_config(architecture, intermediate_size=16))
    assert shape_of(config, 16).parameters == count_parameters(narrower)


def test_what_autograd_keeps_is_that_of_a_llama_layer_counted_by_hand():
    hidden, neurons, heads, length = 64, 96, 4, 20
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=neurons, num_hidden_layers=3,
        num_attention_heads=heads, num_key_value_heads=2, vocab_size=50,
    )  # fmt: skip
    kept = memory.saved_bytes(config, Load(2, length, 5), Compute(**PARAMS["compute"])).layer
    # Two norms with input, normalised input and output; query, key, value and output of attention
    # with the mask as numbers; the MLP's four; the norms' and the softmax' own numbers.
    each = 6 * hidden + 4 * hidden + length + 4 * neurons
    assert kept == pytest.approx(2 * length * 4 * each, rel=0.02)


def study(**compute) -> Study:
    params = yaml.safe_load(OLMO.read_text(encoding="utf-8"))
    params["compute"] |= {
        **{"device": "cuda", "dtype": "float32", "mixed_precision": "bfloat16"},
        **{"processes": 1, "shard": False, "micro_batch": None, "checkpointing": False},
    } | compute
    config = Olmo2Config(**json.loads(OLMO.with_suffix(".config.json").read_text(encoding="utf-8")))
    lengths = json.loads(OLMO.with_suffix(".lengths.json").read_text(encoding="utf-8"))["lengths"]
    rates = Rates(dict.fromkeys(SPEEDS, 1e14), 10.0, 1e9, "stated")
    return Study(Params.model_validate(params), config, Questions(trees_of(lengths), "a"), rates)


def finetune(**compute):
    return next(row for row in rows(study(**compute)) if row.stage == "finetune")


def test_the_published_configuration_has_seven_billion_parameters():
    assert shape_of(study().config).parameters == 7_298_617_344  # the model card says 7.3 B


def test_sixteen_bytes_a_parameter_are_the_least_that_a_training_takes():
    planned = study()
    shape = shape_of(planned.config, 9152)
    row = finetune()
    assert 16 * shape.parameters < row.device < 20 * shape.parameters + GIBI
    assert finetune(checkpointing=True).device <= row.device
    assert finetune(micro_batch=1, checkpointing=True).device >= 16 * shape.parameters
    sharded = [finetune(processes=n, shard=True).device for n in (2, 4, 8)]
    assert row.device > sharded[0] > sharded[1] > sharded[2] > 16 * shape.parameters / 8


def test_what_does_not_fit_is_told_what_to_change_and_then_fits():
    row, machine = finetune(), Machine(devices=8, memory=80 * GIBI)
    said = advice(row, study().compute, machine)
    assert said is not None and said.startswith("set compute.processes: ")
    changes = yaml.safe_load("{" + said[4:].rpartition(" (")[0].replace("compute.", "") + "}")
    changed = study(**changes)
    again = next(
        other for other in rows(changed) if other.what == row.what and other.stage == row.stage
    )
    assert again.device <= machine.memory and advice(again, changed.compute, machine) is None
    assert advice(row, study().compute, replace(machine, devices=1)) == (
        "take more devices, or ones with more memory"
    )


def test_steps_and_micro_batches():
    trees = trees_of([(10 + number, (2, 2)) for number in range(12)])
    settings = Training(**PARAMS["training"])
    compute = Compute(**PARAMS["compute"])
    tokens = sum(tree.nodes for tree in trees)
    for changes, questions in (({}, 12), ({"epochs": 2}, 24), ({"steps": 5}, 20)):
        given = settings.model_copy(update=changes)
        flops = training_flops(Costs(1, 0, 0), trees, "all", given, compute)
        assert flops == 3 * tokens * questions // 12
    whole = training_load(trees, "all", settings, compute)
    part = training_load(trees, "all", settings, compute.model_copy(update={"micro_batch": 1}))
    assert part == Load(1, 23, 23) and whole.read == 20 + 21 + 22 + 23


def test_the_command_prints_a_table_and_writes_json(tmp_path, monkeypatch, capsys):
    for name in ("olmo2-7b.yaml", "olmo2-7b.config.json", "olmo2-7b.lengths.json"):
        shutil.copy(ROOT / "studies" / name, tmp_path)
    out = tmp_path / "plan.json"
    options = ("--study", "olmo2-7b.yaml", "--devices", "4", "--memory", "80", "--out", out)
    assert regrow(monkeypatch, tmp_path, "plan", *options) == 0
    printed = capsys.readouterr().out
    for text in (
        "olmo2-7b.config.json",
        "not compared with the published file",
        "finetune",
        "all, one after the other",
    ):
        assert text in " ".join(printed.split())
    planned = json.loads(out.read_text(encoding="utf-8"))
    total = planned["total"]
    assert total["runs"] == sum(row["runs"] for row in planned["stages"])
    assert total["flops"] == sum(row["runs"] * row["flops"] for row in planned["stages"])
    assert all(row["seconds"] for row in planned["stages"] if row["flops"])


def test_what_is_not_known_is_one_sentence(tmp_path, monkeypatch):
    shutil.copy(OLMO, tmp_path / "mine.yaml")
    said = regrow(monkeypatch, tmp_path, "plan", "--study", "mine.yaml", "--memory", "80")
    assert "dvc repro fetch" in str(said) and "mine.config.json" in str(said)
    (tmp_path / "mine.config.json").write_text("[]")
    said = regrow(monkeypatch, tmp_path, "plan", "--study", "mine.yaml", "--memory", "80")
    assert "mine.config.json holds no keys" in str(said)
    shutil.copy(OLMO.with_suffix(".config.json"), tmp_path / "mine.config.json")
    (tmp_path / "mine.lengths.json").write_text('{"_source": "x", "lengths": [[0, [1]]]}')
    said = regrow(monkeypatch, tmp_path, "plan", "--study", "mine.yaml", "--memory", "80")
    assert "mine.lengths.json does not have the form" in str(said)


MEASURED = (
    "40 M parameters, 8 questions",
    "48 M, deep and untied",
    "48 M, evaluation",
    "48 M, 2 sharded",
)


def test_the_committed_measurements_keep_their_limits():
    path = ROOT / measured_memory.OUT
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert len(cases) == len(measured_memory.CASES)
    for case in cases:
        limit = measured_memory.ONE if case["processes"] == 1 else measured_memory.MANY
        assert abs(case["error"]) <= limit, case


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_predicted_memory_is_what_is_measured(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    case = next(case for case in measured_memory.CASES if case.name == name)
    found = measured_memory.measure(case, tmp_path)
    assert abs(found.error) <= (
        measured_memory.ONE if case.processes == 1 else measured_memory.MANY
    )


@pytest.mark.slow
def test_the_page_shows_what_the_command_beside_it_prints(monkeypatch):
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    block = page.partition("<!-- plan: begin -->\n\n```\n$ ")[2].partition("\n```\n")[0]
    command, _, shown = block.partition("\n")
    done = subprocess.run(
        [sys.executable, *command.split()[1:]],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "140", "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    assert lines == shown.splitlines()
