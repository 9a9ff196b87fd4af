"""A pruned model is the dense one without its least important neurons, and nothing else changes."""

import math
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    OPTConfig,
)

from regrow.model import folders
from regrow.model.folders import count_parameters, load_model, save_model
from regrow.model.mlps import PROJECTIONS, count_mlp_parameters, find_mlps
from regrow.model.trees import Tree, build_trees
from regrow.prune.activations import SequentialNorms, activation_norms
from regrow.prune.removal import kept_count, kept_neurons, write_pruned
from regrow.prune.scores import SCORES, Neurons
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

MODELS = {
    "llama": ("llama", {}),
    "llama with biases": ("llama with biases", {}),
    "llama, untied": ("llama", {"tie_word_embeddings": False}),
    "olmo2": ("olmo2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {}),
}
TEXT = tuple(range(5, 45))
FIRST_DRAWS = [0.43696838798137627, 0.7195244599181387, 0.2248150263166896]
"""Random importance of the first neurons of layer 1 at seed 3."""


@cache
def dense(name: str) -> Any:
    """A dense model in double precision; take copies, do not change it."""
    architecture, changes = MODELS[name]
    return tiny_model(tiny_config(architecture, **changes), torch.float64)


def pruned(model: Any, importances: list[torch.Tensor], count: int) -> Any:
    """A model without its least important neurons, by way of its folder."""
    kept = [kept_neurons(importance, count) for importance in importances]
    with TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "dense")
        write_pruned(folder / "dense", kept, folder / "out", "float64")
        return AutoModelForCausalLM.from_pretrained(folder / "out", dtype=torch.float64).eval()


def importance_of(
    mlp: Any, score: str, seed: int = 0, layer: int = 0, norms: torch.Tensor | None = None
) -> torch.Tensor:
    def weight(name: str) -> torch.Tensor:
        found: torch.Tensor = getattr(mlp, name).weight.detach()
        return found

    def given() -> torch.Tensor:
        assert norms is not None, "scores of weights alone need no activations"
        return norms

    return SCORES[score](Neurons(mlp.gate_proj.out_features, layer, seed, weight, given))


def top(importance: torch.Tensor, count: int) -> list[int]:
    """The plain reference: the most important neurons, of equal ones the first, in order."""
    ranked = sorted(range(len(importance)), key=lambda neuron: (-float(importance[neuron]), neuron))
    return sorted(ranked[:count])


@pytest.fixture
def ungated() -> dict[str, Any]:
    size = {"vocab_size": len(tiny_tokenizer()), "bos_token_id": 0, "eos_token_id": 1}
    return {
        "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **size),
        "gpt_neox": GPTNeoXConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            **size,
        ),
        "opt": OPTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=32,
            max_position_embeddings=64,
            word_embed_proj_dim=16,
            pad_token_id=1,
            **size,
        ),
    }


# The smaller model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [1, 20, 47, 48])
def test_pruned_logits_equal_those_of_the_dense_model_with_the_neurons_zeroed(
    name: str, count: int
) -> None:
    importances = [importance_of(mlp, "l2") for mlp in find_mlps(dense(name))]
    zeroed = deepcopy(dense(name))
    for mlp, importance in zip(find_mlps(zeroed), importances, strict=True):
        gone = sorted(set(range(48)) - set(top(importance, count)))
        with torch.no_grad():
            mlp.down_proj.weight[:, gone] = 0
            for projection in (mlp.gate_proj, mlp.up_proj):
                projection.weight[gone] = 0
                if projection.bias is not None:
                    projection.bias[gone] = 0
    found = plain_logits(pruned(dense(name), importances, count), TEXT)
    torch.testing.assert_close(found, plain_logits(zeroed, TEXT), rtol=0, atol=1e-10)
    if count < 48:
        assert (found - plain_logits(dense(name), TEXT)).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_kept_rows_and_columns_are_the_dense_models_in_their_order(name: str) -> None:
    importances = [importance_of(mlp, "l2") for mlp in find_mlps(dense(name))]
    smaller = pruned(dense(name), importances, 20)
    layers = zip(find_mlps(dense(name)), find_mlps(smaller), importances, strict=True)
    for old, new, importance in layers:
        kept = top(importance, 20)
        for projection in ("gate_proj", "up_proj"):
            before, after = getattr(old, projection), getattr(new, projection)
            assert torch.equal(after.weight, before.weight[kept])
            assert (after.in_features, after.out_features) == (32, 20)
            assert (after.bias is None) == (before.bias is None)
            assert before.bias is None or torch.equal(after.bias, before.bias[kept])
        assert torch.equal(new.down_proj.weight, old.down_proj.weight[:, kept])
        assert (new.down_proj.in_features, new.down_proj.out_features) == (20, 32)
        assert old.down_proj.bias is None or torch.equal(new.down_proj.bias, old.down_proj.bias)


def test_what_is_no_mlp_stays_as_it_was() -> None:
    importances = [importance_of(mlp, "l2") for mlp in find_mlps(dense("olmo2"))]
    smaller = dict(pruned(dense("olmo2"), importances, 20).named_parameters())
    for name, parameter in dense("olmo2").named_parameters():
        if not any(projection in name for projection in PROJECTIONS):
            assert torch.equal(parameter, smaller[name]), name


def test_every_layer_keeps_the_same_count_and_the_configuration_says_it() -> None:
    # Wherever the important neurons lie.
    importances = [torch.arange(48.0), 1000 * torch.ones(48)]
    smaller = pruned(dense("llama"), importances, 12)
    assert [mlp.gate_proj.out_features for mlp in find_mlps(smaller)] == [12, 12]
    assert smaller.config.intermediate_size == 12
    assert dense("llama").config.intermediate_size == 48


# Importance


@pytest.mark.parametrize("name", ["llama", "olmo2"])
def test_l2_importance_equals_a_plain_loop(name: str) -> None:
    for mlp in find_mlps(dense(name)):
        gate, up, down = (getattr(mlp, projection).weight.detach() for projection in PROJECTIONS)
        expected = [
            math.sqrt(
                sum(float(value) ** 2 for value in gate[neuron])
                + sum(float(value) ** 2 for value in up[neuron])
                + sum(float(value) ** 2 for value in down[:, neuron])
            )
            for neuron in range(48)
        ]
        np.testing.assert_allclose(importance_of(mlp, "l2").detach().numpy(), expected, rtol=1e-12)


def test_l2_importance_of_half_precision_weights_is_summed_in_double_precision() -> None:
    mlp = deepcopy(find_mlps(dense("llama"))[0]).to(torch.bfloat16)
    exact = deepcopy(mlp).double()
    assert torch.equal(importance_of(mlp, "l2"), importance_of(exact, "l2"))


def test_random_importance_is_seeded_and_each_layer_and_seed_its_own_stream() -> None:
    mlp = find_mlps(dense("llama"))[0]
    draws = {
        (seed, layer): importance_of(mlp, "random", seed, layer)
        for seed in (0, 1)
        for layer in (0, 1)
    }
    for (seed, layer), draw in draws.items():
        assert torch.equal(draw, importance_of(mlp, "random", seed, layer))
        assert draw.shape == (48,)
    orders = {tuple(torch.argsort(draw).tolist()) for draw in draws.values()}
    assert len(orders) == 4
    correlations = torch.corrcoef(torch.stack(list(draws.values()))) - torch.eye(4)
    assert correlations.abs().max() < 0.5


def test_random_importance_is_a_stream_of_its_own_and_stays_what_it_was() -> None:
    # A study with random scores is only the same study while the same neurons go.
    mlp = find_mlps(dense("llama"))[0]
    assert importance_of(mlp, "random", 3, 1)[:3].tolist() == FIRST_DRAWS


def test_random_importance_draws_nothing_from_global_generators() -> None:
    mlp = find_mlps(dense("llama"))[0]
    torch.manual_seed(1)
    np.random.seed(1)
    first = importance_of(mlp, "random", 0, 0)
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(first, importance_of(mlp, "random", 0, 0))


@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
@pytest.mark.parametrize("name", ["llama", "llama with biases", "olmo2"])
def test_activation_norms_equal_a_plain_loop_over_separate_sequences(
    name: str, batch_tokens: int
) -> None:
    # Each node of a tree once, and no padding: the biases would give padding activations too.
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    found = activation_norms(dense(name), trees, batch_tokens)
    for norms, expected in zip(found, plain_activation_norms(name), strict=True):
        torch.testing.assert_close(norms, expected, rtol=1e-9, atol=0)


@cache
def plain_activation_norms(name: str) -> list[torch.Tensor]:
    squares = [torch.zeros(48, dtype=torch.float64) for _ in find_mlps(dense(name))]
    for question in QUESTIONS:
        shared, wholes = sequences(tiny_tokenizer(), question, "cloze")
        for number, tokens in enumerate(wholes):
            caught = activations_of(dense(name), tokens)
            first = 0 if number == 0 else shared
            for layer, activations in enumerate(caught):
                for position in range(first, len(tokens) - 1):
                    squares[layer] += activations[position] ** 2
    return [total.sqrt() for total in squares]


def activations_of(model: Any, tokens: Sequence[int]) -> list[torch.Tensor]:
    """What each layer's `down_proj` reads: [tokens, neurons] a layer."""
    caught: list[torch.Tensor] = []
    handles = [
        mlp.down_proj.register_forward_pre_hook(lambda _, given: caught.append(given[0][0]))
        for mlp in find_mlps(model)
    ]
    plain_logits(model, tokens)
    for handle in handles:
        handle.remove()
    return caught


def test_activation_norms_leave_no_hook_and_no_graph_behind() -> None:
    found = activation_norms(dense("llama"), [Tree((1, 2), ((3,),))])
    for mlp, norms in zip(find_mlps(dense("llama")), found, strict=True):
        assert not mlp.down_proj._forward_pre_hooks
        assert not norms.requires_grad


def test_activation_importance_is_the_activation_norm_times_the_columns_norm() -> None:
    mlp = find_mlps(dense("llama"))[0]
    norms = torch.rand(48, dtype=torch.float64)
    down = mlp.down_proj.weight.detach()
    expected = [
        float(norms[neuron]) * math.sqrt(sum(float(value) ** 2 for value in down[:, neuron]))
        for neuron in range(48)
    ]
    found = importance_of(mlp, "activation", norms=norms).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# Statistics of models whose earlier layers are pruned already


@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
@pytest.mark.parametrize("name", ["llama with biases", "olmo2", "gemma2"])
def test_sequential_norms_are_those_of_the_model_with_the_earlier_layers_pruned(
    name: str, batch_tokens: int
) -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    kept = torch.arange(0, 48, 3)
    walk = SequentialNorms(deepcopy(dense(name)), trees, batch_tokens)
    first, second = walk.norms(0, []), walk.norms(1, [kept])
    torch.testing.assert_close(first, activation_norms(dense(name), trees)[0], rtol=1e-6, atol=0)
    smaller = deepcopy(dense(name))
    gone = [neuron for neuron in range(48) if neuron not in kept.tolist()]
    with torch.no_grad():
        find_mlps(smaller)[0].down_proj.weight[:, gone] = 0
    expected = activation_norms(smaller, trees)[1]
    torch.testing.assert_close(second, expected, rtol=1e-6, atol=0)
    assert not torch.allclose(second, activation_norms(dense(name), trees)[1], rtol=1e-3)


def test_sequential_pruning_chooses_each_layer_by_what_the_pruned_ones_send_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for sequential in (False, True):
        write_params(workplace, prune={"sequential": sequential})
        out = f"out-{sequential}"
        for score in ("activation", "l2"):
            assert prune(monkeypatch, workplace, "llama", "0.5", f"{out}-{score}", score) == 0
        model = load_model(workplace / f"{out}-activation", "float32", "cpu")
        found[sequential] = [mlp.gate_proj.weight for mlp in find_mlps(model)]
    # The first layer has none before it, and l2 looks at weights alone.
    assert torch.equal(found[False][0], found[True][0])
    assert not torch.equal(found[False][1], found[True][1])
    assert contents(workplace / "out-False-l2") == contents(workplace / "out-True-l2")
    model = load_model(workplace / "llama", "float32", "cpu")
    kept: list[torch.Tensor] = []
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    for layer, mlp in enumerate(find_mlps(model)):
        smaller = deepcopy(model)
        for earlier, neurons in zip(find_mlps(smaller), kept, strict=False):
            gone = [neuron for neuron in range(48) if neuron not in neurons.tolist()]
            with torch.no_grad():
                earlier.down_proj.weight[:, gone] = 0
        norms = activation_norms(smaller, trees)[layer]
        kept.append(kept_neurons(importance_of(mlp, "activation", norms=norms), 24))
        assert torch.equal(found[True][layer], mlp.gate_proj.weight[kept[-1]])


@pytest.mark.parametrize("score", ["l2", "random"])
def test_scores_of_weights_alone_load_no_model(
    score: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert prune(monkeypatch, workplace, "llama", "0.5", "out", score) == 0


# Which neurons stay


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]), min_size=1, max_size=40), st.data())
@settings(deadline=None)
def test_kept_neurons_are_the_top_ones_of_equal_ones_the_first(
    importance: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(importance)))
    scores = torch.tensor(importance, dtype=torch.float64)
    assert kept_neurons(scores, count).tolist() == top(scores, count)


@pytest.mark.parametrize("name", ["llama", "olmo2"])
@pytest.mark.parametrize("score", ["l2", "random", "activation"])
def test_kept_neurons_of_each_score_are_those_of_a_plain_loop(name: str, score: str) -> None:
    mlps = find_mlps(dense(name))
    norms = plain_activation_norms(name)
    for layer, mlp in enumerate(mlps):
        importance = {
            "l2": importance_of(mlp, "l2"),
            "random": importance_of(mlp, "random", 3, layer),
            "activation": importance_of(mlp, "activation", norms=norms[layer]),
        }[score]
        assert len(set(importance.tolist())) == 48
        assert kept_neurons(importance, 30).tolist() == top(importance, 30)


@given(
    st.integers(1, 12000),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 300),
)
@settings(deadline=None)
def test_kept_count_is_the_nearest_multiple_and_never_none(
    neurons: int, sparsity: float, multiple_of: int
) -> None:
    if multiple_of > neurons:
        with pytest.raises(UserError, match="multiple_of"):
            kept_count(neurons, sparsity, multiple_of)
        return
    count = kept_count(neurons, sparsity, multiple_of)
    wanted = (1 - sparsity) * neurons
    assert count % multiple_of == 0 or count == neurons
    assert min(multiple_of, neurons) <= count <= neurons
    assert abs(count - wanted) <= multiple_of / 2 + 1e-6 or count == multiple_of


@pytest.mark.parametrize(
    ("neurons", "sparsity", "multiple_of", "expected"),
    [
        (1536, 0.5, 16, 768),
        (1536, 0.1, 16, 1376),
        (11008, 0.84, 128, 1792),
        (48, 0.999, 16, 16),
        (48, 0.9, 48, 48),
        (40, 0.01, 16, 32),
        (47, 0.01, 16, 47),
    ],
)
def test_kept_count_by_hand(neurons: int, sparsity: float, multiple_of: int, expected: int) -> None:
    assert kept_count(neurons, sparsity, multiple_of) == expected


def test_a_multiple_larger_than_a_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"multiple_of is 49, but a layer has only 48 neurons"):
        kept_count(48, 0.5, 49)


def test_importances_of_too_few_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        pruned(dense("llama"), [torch.arange(48.0)], 20)


# Counts


def parameters_by_formula(config: Any) -> tuple[int, int]:
    """Parameters of the model and of its MLPs, from the configuration alone."""
    hidden, neurons, layers = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
    )
    size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = size * config.num_attention_heads, size * config.num_key_value_heads
    attention = 2 * hidden * queries + 2 * hidden * keys
    if getattr(config, "attention_bias", False):
        attention += queries + 2 * keys + hidden
    norms = {"olmo2": 2 * hidden + queries + keys, "qwen3": 2 * hidden + 2 * size}
    norms["gemma2"] = 4 * hidden
    mlp = 3 * hidden * neurons
    if getattr(config, "mlp_bias", False):
        mlp += 2 * neurons + hidden
    embeddings = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    layer = attention + mlp + norms.get(config.model_type, 2 * hidden)
    return embeddings + layers * layer + hidden, layers * mlp


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_and_retention_equal_the_formulas(name: str) -> None:
    config = deepcopy(dense(name).config)
    whole, mlps = parameters_by_formula(config)
    assert (count_parameters(dense(name)), count_mlp_parameters(dense(name))) == (whole, mlps)
    smaller = pruned(dense(name), [torch.arange(48.0)] * 2, 20)
    config.intermediate_size = 20
    kept, kept_mlps = parameters_by_formula(config)
    assert (count_parameters(smaller), count_mlp_parameters(smaller)) == (kept, kept_mlps)
    if not getattr(config, "mlp_bias", False):
        assert count_mlp_parameters(smaller) / count_mlp_parameters(dense(name)) == 20 / 48


# The saved folder

LOAD_WITHOUT_THIS_PROJECT = """
import sys
import numpy, torch
sys.modules["regrow"] = None
try:
    import regrow
except ImportError:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    for folder in sys.argv[1:]:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
        with torch.no_grad():
            numpy.save(folder + "/logits.npy", model(torch.arange(5, 45)[None]).logits[0].numpy())
"""


def in_memory(model: Any, kept: Sequence[torch.Tensor]) -> Any:
    """The plain reference: the same model with smaller matrices, without a folder of it."""
    smaller = deepcopy(model)
    for mlp, neurons in zip(find_mlps(smaller), kept, strict=True):
        for projection in (mlp.gate_proj, mlp.up_proj):
            projection.weight = nn.Parameter(projection.weight[neurons])
            if projection.bias is not None:
                projection.bias = nn.Parameter(projection.bias[neurons])
        mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight[:, neurons].contiguous())
    smaller.config.intermediate_size = len(kept[0])
    return smaller


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shard", ["50GB", "20KB"])
@pytest.mark.parametrize("name", MODELS)
def test_a_pruned_folder_has_the_bytes_that_save_pretrained_writes(
    name: str, shard: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "PART", 4096)  # parts of some ten rows
    single = deepcopy(dense(name)).float()
    single.save_pretrained(tmp_path / "dense", max_shard_size=shard)
    kept = [torch.arange(3, 23), torch.arange(0, 40, 2)]
    (tmp_path / "dense" / "generation_config.json").write_text('{"max_length": 77}')
    model = load_model(tmp_path / "dense", dtype, "cpu")
    in_memory(model, kept).save_pretrained(tmp_path / "expected", max_shard_size=shard)
    write_pruned(tmp_path / "dense", kept, tmp_path / "out", dtype, shard)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_teacher_that_lacks_a_matrix_is_named_and_nothing_is_written(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tiny_config("llama"))
    gone = "model.layers.1.mlp.up_proj.weight"
    state = {name: value for name, value in model.state_dict().items() if name != gone}
    model.save_pretrained(workplace / "llama", state_dict=state)
    assert f"llama lack {gone}" in str(prune(monkeypatch, workplace, "llama", "0.4", "out"))
    assert not (workplace / "out").exists()


def test_a_saved_pruned_model_is_smaller_and_loads_with_plain_transformers(tmp_path: Path) -> None:
    written, expected = [], []
    for architecture in ("llama with biases", "olmo2"):
        model = tiny_model(tiny_config(architecture))
        save_model(model, tiny_tokenizer(), tmp_path / f"dense {architecture}")
        kept = [
            kept_neurons(importance_of(mlp, "l2"), 12).sort().values for mlp in find_mlps(model)
        ]
        written.append(tmp_path / f"pruned {architecture}")
        write_pruned(tmp_path / f"dense {architecture}", kept, written[-1], "float32")
        tiny_tokenizer().save_pretrained(written[-1])
        expected.append(plain_logits(in_memory(model, kept), TEXT).numpy())
        before, after = (
            (tmp_path / f"{kind} {architecture}" / "model.safetensors").stat().st_size
            for kind in ("dense", "pruned")
        )
        gone = 2 * (3 * 32 * 36 + (2 * 36 if architecture != "olmo2" else 0))
        assert before - after == pytest.approx(4 * gone, abs=256)  # the header names shapes
    subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_THIS_PROJECT, *map(str, written)],
        check=True,
        cwd=tmp_path,
    )
    for folder, logits in zip(written, expected, strict=True):
        np.testing.assert_allclose(np.load(folder / "logits.npy"), logits, rtol=0, atol=1e-5)


# The stage


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with params.yaml, questions.jsonl and a model folder `llama`."""
    write_params(tmp_path)
    write_questions(tmp_path / "questions.jsonl", QUESTIONS)
    save_model(tiny_model(tiny_config("llama")), tiny_tokenizer(), tmp_path / "llama")
    return tmp_path


def prune(
    monkeypatch: Any, folder: Path, teacher: str, sparsity: str, out: str, score: str = "l2"
) -> str | int:
    return regrow(
        monkeypatch,
        folder,
        *("prune", "--teacher", teacher, "--score", score, "--sparsity", sparsity),
        *("--questions", "questions.jsonl", "--out", out),
    )


@pytest.mark.parametrize("score", ["l2", "random", "activation"])
def test_prune_writes_the_model_that_the_score_asks_for(
    score: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(workplace, prune={"seed": 5, "multiple_of": 8})
    assert prune(monkeypatch, workplace, "llama", "0.4", "out", score) == 0
    assert prune(monkeypatch, workplace, "llama", "0.4", "again", score) == 0
    model = load_model(workplace / "llama", "float32", "cpu")
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    norms = activation_norms(model, trees)
    found = load_model(workplace / "out", "float32", "cpu")
    for layer, (old, new) in enumerate(zip(find_mlps(model), find_mlps(found), strict=True)):
        importance = {
            "l2": importance_of(old, "l2"),
            "random": importance_of(old, "random", 5, layer),
            "activation": importance_of(old, "activation", norms=norms[layer]),
        }[score]
        assert torch.equal(new.gate_proj.weight, old.gate_proj.weight[top(importance, 32)])
    one, two = (
        {path.name: path.read_bytes() for path in (workplace / out).iterdir()}
        for out in ("out", "again")
    )
    assert one == two


@pytest.mark.parametrize("sparsity", ["1.0", "-0.1", "0", "nan"])
def test_prune_refuses_a_sparsity_that_is_no_fraction(
    sparsity: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = prune(monkeypatch, workplace, "llama", sparsity, "out")
    assert str(said).startswith("regrow prune: --sparsity (sweep.sparsity) is ")
    assert "must lie between 0 and 1" in str(said)
    assert sorted(path.name for path in workplace.iterdir()) == [
        "llama",
        "params.yaml",
        "questions.jsonl",
    ]


UNGATED = [
    ("gpt2", "ln_1, attn, ln_2, mlp"),
    ("gpt_neox", "attention, mlp"),
    ("opt", "self_attn, activation_fn, self_attn_layer_norm, fc1, fc2"),
]


@pytest.mark.parametrize(("name", "children"), UNGATED)
def test_a_model_whose_mlps_are_not_gated_is_named_with_layer_and_modules(
    name: str, children: str, ungated: dict[str, Any]
) -> None:
    model = AutoModelForCausalLM.from_config(ungated[name])
    with pytest.raises(UserError) as caught:
        find_mlps(model)
    said = str(caught.value)
    assert said.startswith(f"layer 0 of this {name} model has no single gated MLP")
    assert all(projection in said for projection in PROJECTIONS)
    assert all(child in said for child in children.split(", "))


@pytest.mark.parametrize(("name", "children"), UNGATED)
def test_prune_says_that_a_model_is_not_gated_and_writes_nothing(
    name: str,
    children: str,
    ungated: dict[str, Any],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_model(AutoModelForCausalLM.from_config(ungated[name]), tiny_tokenizer(), workplace / name)
    before = sorted(workplace.rglob("*"))
    said = str(prune(monkeypatch, workplace, name, "0.5", "new folder/out"))
    assert said.startswith(f"regrow prune: layer 0 of this {name} model")
    assert "\n" not in said
    assert sorted(workplace.rglob("*")) == before


def test_a_layer_of_another_kind_is_named_by_its_number() -> None:
    model = tiny_model(tiny_config("llama"))
    model.model.layers[1].mlp.up_proj = nn.Identity()
    with pytest.raises(UserError, match="layer 1 of this llama model"):
        find_mlps(model)
