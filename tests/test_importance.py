"""What pruning takes: a planted neuron is found, and the neurons that go are those of `prune`."""

import csv
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from regrow.importance.figure import importance_figure, outlier
from regrow.importance.layers import Layer, as_rows, in_short, mean_activations, removed_neurons
from regrow.model.folders import load_model, save_model
from regrow.model.mlps import find_mlps
from regrow.model.trees import Tree, build_trees
from regrow.plot.style import save
from regrow.prune.removal import kept_neurons
from regrow.support.errors import UserError
from regrow.tasks.questions import write_questions
from tiny_models import (
    QUESTIONS,
    plain_logits,
    regrow,
    sequences,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
    write_params,
)

SPARSITIES = (0.25, 0.5)
OUTPUTS = ("metrics.json", "plots/importance.csv", "plots/importance.png", "plots/importance.svg")


def planted(layer: int, neuron: int, layers: int = 2) -> Any:
    """A model in which one neuron of a layer has the lowest norm and the highest activation."""
    model = tiny_model(tiny_config("llama", num_hidden_layers=layers))
    mlp = find_mlps(model)[layer]
    others = [number for number in range(48) if number != neuron]
    with torch.no_grad():
        for projection in (mlp.gate_proj, mlp.up_proj):
            projection.weight[others] *= 0.1
        mlp.down_proj.weight[:, others] *= 10
        mlp.down_proj.weight[:, neuron] *= 0.1
    return model


def gone_by(importance: torch.Tensor, kept: int) -> Any:
    return removed_neurons(kept_neurons(importance, kept), len(importance))


def layers_of(
    count: int,
    neurons: int = 40,
    sparsities: tuple[float, ...] = SPARSITIES,
    scores: tuple[str, ...] = ("l2",),
) -> list[Layer]:
    generator = np.random.default_rng(count)
    layers = []
    for _ in range(count):
        norms = generator.lognormal(2, 0.1, neurons)
        activations = generator.lognormal(-2, 1, neurons)
        by = {"l2": norms, "activation": activations}
        removed = {
            (score, sparsity): gone_by(
                torch.from_numpy(by.get(score, generator.random(neurons))),
                round(neurons * (1 - sparsity)),
            )
            for score in scores
            for sparsity in sparsities
        }
        layers.append(Layer(norms, activations, removed))
    return layers


# Activations


@pytest.mark.parametrize("batch_tokens", [200, 100_000])
@pytest.mark.parametrize("name", ["llama with biases", "olmo2", "qwen3", "gemma2"])
def test_mean_activations_equal_those_of_plain_sequences(name: str, batch_tokens: int) -> None:
    # Each node of a tree once, and no padding: the biases would give padding activations too.
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    found = mean_activations(dense(name), trees, batch_tokens)
    for activations, expected in zip(found, plain_mean_activations(name), strict=True):
        np.testing.assert_allclose(activations, expected, rtol=1e-6)  # Gemma's norms: float32


@cache
def dense(name: str) -> Any:
    """A model in double precision; do not change it."""
    return tiny_model(tiny_config(name), torch.float64)


@cache
def plain_mean_activations(name: str) -> list[Any]:
    caught: list[torch.Tensor] = []
    handles = [
        mlp.down_proj.register_forward_pre_hook(lambda _, given: caught.append(given[0][0]))
        for mlp in find_mlps(dense(name))
    ]
    sums = [np.zeros(48) for _ in handles]
    tokens = 0
    for question in QUESTIONS:
        shared, wholes = sequences(tiny_tokenizer(), question, "cloze")
        for number, whole in enumerate(wholes):
            caught.clear()
            plain_logits(dense(name), whole)
            first = 0 if number == 0 else shared
            tokens += len(whole) - 1 - first
            for layer, activations in enumerate(caught):
                sums[layer] += activations[first : len(whole) - 1].abs().sum(0).numpy()
    for handle in handles:
        handle.remove()
    return [total / tokens for total in sums]


def test_no_hook_is_left_behind() -> None:
    mean_activations(dense("olmo2"), [Tree((1, 2), ((3,),))])
    for mlp in find_mlps(dense("olmo2")):
        assert not mlp.down_proj._forward_pre_hooks


def test_activations_that_overflow_are_named_with_their_layer_and_dtype() -> None:
    model = tiny_model(tiny_config("llama"), torch.float16)
    with torch.no_grad():
        find_mlps(model)[1].gate_proj.weight.fill_(6e4)
    with pytest.raises(UserError, match=r"layer 1 are not finite in torch\.float16; set compute"):
        mean_activations(model, [Tree((1, 2), ((3,),))])


# Numbers


def test_numbers_of_a_layer_by_hand() -> None:
    layer = Layer(
        np.array([3.0, 1.0, 2.0, 4.0]),
        np.array([1.0, 6.0, 1.0, 2.0]),
        {
            ("l2", 0.25): np.array([False, True, False, False]),
            ("l2", 0.5): np.array([False, True, True, False]),
        },
    )
    assert layer.lowest == 1
    assert [layer.activation_rank(neuron) for neuron in range(4)] == [3, 1, 3, 2]
    assert layer.over_median(1) == 4.0
    assert layer.activation_removed(("l2", 0.25)) == 0.6
    assert layer.activation_removed(("l2", 0.5)) == 0.7
    assert layer.spearman == pytest.approx(spearmanr([3, 1, 2, 4], [1, 6, 1, 2]).statistic)


def test_what_cannot_be_had_is_none_in_every_output() -> None:
    gone = {("l2", 0.5): gone_by(torch.ones(4), 2)}
    dead = Layer(np.ones(4), np.zeros(4), gone)
    alive = Layer(np.arange(1.0, 5), np.arange(1.0, 5), gone)
    said = [dead.spearman, dead.over_median(0), dead.activation_removed(("l2", 0.5))]
    assert np.isnan(said).all()
    shares: Any = in_short([dead, alive])["l2-0.5"]
    assert shares == {"neurons_removed": 0.5, "activation_removed": 0.7}
    alone: Any = in_short([dead])["l2-0.5"]
    assert alone["activation_removed"] is None
    row = as_rows([dead, alive])[0]
    assert row["spearman"] is row["activation_removed_l2-0.5"] is None


def test_shares_grow_with_sparsity_and_with_what_is_kept_sum_to_one() -> None:
    for layer in layers_of(3, sparsities=(0.1, 0.5, 0.9)):
        shares = [layer.activation_removed(cut) for cut in layer.removed]
        assert 0 < shares[0] < shares[1] < shares[2] < 1
        for share, (cut, gone) in zip(shares, layer.removed.items(), strict=True):
            kept = layer.activations[~gone].sum() / layer.activations.sum()
            assert share + kept == pytest.approx(1, rel=1e-12)
            assert gone.mean() == cut[1]


# The stage


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with params.yaml, questions.jsonl and a model folder `teacher`."""
    write_params(tmp_path)
    write_questions(tmp_path / "questions.jsonl", QUESTIONS)
    save_model(planted(0, 17), tiny_tokenizer(), tmp_path / "teacher")
    return tmp_path


def measure(monkeypatch: pytest.MonkeyPatch, folder: Path, out: str = ".") -> dict[str, Any]:
    outputs = ("--metrics", f"{out}/metrics.json", "--plots", f"{out}/plots")
    inputs = ("--teacher", "teacher", "--questions", "questions.jsonl")
    assert regrow(monkeypatch, folder, "importance", *inputs, *outputs) == 0
    numbers: dict[str, Any] = json.loads((folder / out / "metrics.json").read_text("utf-8"))
    return numbers


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "plots" / "importance.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_planted_neuron_is_found(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = measure(monkeypatch, workplace)
    assert (numbers["layers"], numbers["neurons"]) == (2, 48)
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    assert numbers["questions"] == len(QUESTIONS)
    assert numbers["tokens"] == sum(tree.nodes for tree in trees)
    rows = rows_of(workplace)
    assert [row["layer"] for row in rows] == ["0", "1"]
    assert (rows[0]["lowest_neuron"], rows[0]["lowest_activation_rank"]) == ("17", "1")
    assert float(rows[0]["lowest_activation_over_median"]) > 10
    assert int(rows[1]["lowest_activation_rank"]) > 1
    quantiles = [float(rows[0][f"l2_{name}"]) for name in ("min", "q05", "median", "q95", "max")]
    assert quantiles == sorted(quantiles)
    for sparsity in SPARSITIES:
        shares = [float(row[f"activation_removed_l2-{sparsity}"]) for row in rows]
        mean = numbers[f"l2-{sparsity}"]["activation_removed"]
        assert mean == pytest.approx(sum(shares) / 2, rel=1e-5)
        assert numbers[f"l2-{sparsity}"]["neurons_removed"] == sparsity


def test_the_neurons_that_go_are_those_that_prune_removes_under_every_score(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = ["l2", "random", "activation"]
    write_params(
        workplace,
        prune={"seed": 5, "multiple_of": 8},
        sweep={"score": scores},
        **{
            loss: {"learning_rate": dict.fromkeys(scores, 1e-3)} for loss in ("finetune", "distill")
        },
    )
    seen: list[Layer] = []

    def draw(layers: list[Layer], tokens: int, questions: int) -> Any:
        seen.extend(layers)
        return importance_figure(layers, tokens, questions)

    monkeypatch.setattr("regrow.stages.importance.importance_figure", draw)
    measure(monkeypatch, workplace)
    dense = load_model(workplace / "teacher", "float32", "cpu")
    assert set(seen[0].removed) == {
        (score, sparsity) for score in scores for sparsity in SPARSITIES
    }
    for score, sparsity in seen[0].removed:
        cut = ("--score", score, "--sparsity", sparsity)
        paths = ("--teacher", "teacher", "--questions", "questions.jsonl", "--out", "pruned")
        assert regrow(monkeypatch, workplace, "prune", *cut, *paths) == 0
        smaller = load_model(workplace / "pruned", "float32", "cpu")
        for layer, old, new in zip(seen, find_mlps(dense), find_mlps(smaller), strict=True):
            kept = torch.from_numpy(~layer.removed[score, sparsity])
            assert torch.equal(new.gate_proj.weight, old.gate_proj.weight[kept])
            assert torch.equal(new.down_proj.weight, old.down_proj.weight[:, kept])


def test_two_runs_write_the_same_bytes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, workplace, "one")
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 50, "axes.grid": True}):
        measure(monkeypatch, workplace, "two")
    for name in OUTPUTS:
        one, two = (workplace / out / name for out in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size > 200


@pytest.mark.parametrize(("architecture", "dtype"), [("gemma2", "bfloat16"), ("olmo2", "float16")])
def test_another_architecture_and_a_single_layer_in_half_precision(
    architecture: str, dtype: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(workplace, compute={"dtype": dtype})
    model = tiny_model(tiny_config(architecture, num_hidden_layers=1, layer_types=None))
    save_model(model, tiny_tokenizer(), workplace / "teacher")
    numbers = measure(monkeypatch, workplace)
    assert numbers["layers"] == 1
    (row,) = rows_of(workplace)
    assert all(math.isfinite(float(value)) for value in row.values())


def test_many_questions_are_cut_to_a_stated_number(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regrow.stages.importance.QUESTIONS", 3)
    assert measure(monkeypatch, workplace)["questions"] == 3


# The figure


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of others
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("count", "sparsities", "scores"),
    [
        (1, (0.25,), ("l2",)),
        (2, (0.25, 0.5), ("activation",)),
        (80, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), ("l2", "random", "activation")),
    ],
)
def test_any_number_of_layers_sparsities_and_scores_draws_without_a_warning(
    tmp_path: Path, count: int, sparsities: tuple[float, ...], scores: tuple[str, ...]
) -> None:
    figure = importance_figure(layers_of(count, sparsities=sparsities, scores=scores), 20, 1)
    assert len(figure.axes) == 1 + 2 * len(scores)
    for path in save(figure, tmp_path / "importance"):
        assert path.stat().st_size > 10_000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of others
@pytest.mark.filterwarnings("error")
def test_layers_with_nothing_in_them_draw_without_a_warning(tmp_path: Path) -> None:
    dead = Layer(np.zeros(4), np.zeros(4), {("l2", 0.01): gone_by(torch.ones(4), 4)})
    one = Layer(np.ones(1), np.ones(1), {("l2", 0.5): gone_by(torch.ones(1), 1)})
    for name, layer in (("dead", dead), ("one", one)):
        save(importance_figure([layer], 20, 1), tmp_path / name)


def test_the_layer_drawn_is_the_one_whose_lightest_neuron_stands_out() -> None:
    def layer(lowest: float) -> Layer:
        return Layer(np.arange(1.0, 5), np.array([lowest, 1.0, 1.0, 1.0]), {})

    assert outlier([layer(3), layer(2), layer(9), layer(4)]) == 2
    assert outlier([Layer(np.ones(2), np.zeros(2), {})]) == 0
