"""Model folders: what comes in is what the weights say, and nothing in them is ever executed."""

import builtins
import json
import pickle  # to plant one that must not be read
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from regrow.model.folders import count_parameters, load_model, load_tokenizer, save_model
from regrow.sources.models import import_model
from regrow.support.errors import UserError
from tiny_models import ARCHITECTURES, plain_logits, tiny_config, tiny_model, tiny_tokenizer

TEXT = "Question: Where is a cup kept?\nAnswer: cupboard, für alle"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a saved model of an architecture; copy it to change it."""

    @cache
    def make(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp("saved") / architecture
        save_model(tiny_model(tiny_config(architecture)), tiny_tokenizer(), folder)
        return folder

    return make


@pytest.fixture
def llama(saved: Callable[[str], Path], tmp_path: Path) -> Path:
    """A saved Llama to harm."""
    return shutil.copytree(saved("llama"), tmp_path / "a llama")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_state(one: Any, other: Any) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# Saving and loading


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_saved_is_loaded(architecture: str, saved: Any) -> None:
    model = tiny_model(tiny_config(architecture))
    loaded = load_model(saved(architecture), "float32", "cpu")
    assert_same_state(model, loaded)
    assert type(loaded) is type(model)
    assert not loaded.training
    found = load_tokenizer(saved(architecture))
    assert found(TEXT)["input_ids"] == tiny_tokenizer()(TEXT)["input_ids"]


def test_equal_models_give_equal_bytes(saved: Any, tmp_path: Path) -> None:
    save_model(tiny_model(tiny_config("llama")), tiny_tokenizer(), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(saved("llama"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_model_is_loaded_in_the_precision_asked_for(dtype: str, saved: Any) -> None:
    model = load_model(saved("llama"), dtype, "cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_tied_embeddings_are_counted_once(saved: Any) -> None:
    tied = tiny_model(tiny_config("llama"))
    untied = tiny_model(tiny_config("llama", tie_word_embeddings=False))
    vocabulary, hidden = tied.get_input_embeddings().weight.shape
    assert count_parameters(untied) - count_parameters(tied) == vocabulary * hidden
    loaded = load_model(saved("llama"), "float32", "cpu")
    assert count_parameters(loaded) == count_parameters(tied)
    stored = load_file(saved("llama") / "model.safetensors")
    assert count_parameters(tied) == sum(tensor.numel() for tensor in stored.values())


# Folders of safetensors


def test_a_folder_of_safetensors_is_copied_as_it_is(llama: Path, tmp_path: Path) -> None:
    import_model(llama, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(llama)


def test_a_folder_of_several_safetensors_is_copied_and_loads(tmp_path: Path) -> None:
    model = tiny_model(tiny_config("olmo2"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    tiny_tokenizer().save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    import_model(tmp_path / "shards", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "shards")
    assert_same_state(model, load_model(tmp_path / "out", "float32", "cpu"))


class Planted:
    """An object whose unpickling writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def plant(folder: Path, trace: Path) -> set[str]:
    """Put pickles and code that would leave `trace` into a model folder; return their names."""
    names = {"pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl", "rng.pth"}
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Planted(trace)))
    code = f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
    for name in ("modeling_llama.py", "own.py"):
        (folder / name).write_text(code + "class Own: pass\n", encoding="utf-8")
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        values["auto_map"] = {
            "AutoConfig": "own.Own",
            "AutoModelForCausalLM": "own.Own",
            "AutoTokenizer": [None, "own.Own"],
        }
        (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return names | {"modeling_llama.py", "own.py"}


def test_pickles_and_code_are_not_copied_and_never_run(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    trace = tmp_path / "trace"
    planted = plant(llama, trace)
    pickle.loads((llama / "pytorch_model.bin").read_bytes())
    assert trace.exists(), "the pickle does nothing: this test would show nothing"
    trace.unlink()
    import_model(llama, tmp_path / "out")
    assert set(contents(llama)) - set(contents(tmp_path / "out")) == planted
    for folder in (llama, tmp_path / "out"):
        load_model(folder, "float32", "cpu")
        load_tokenizer(folder)
    assert not trace.exists()


def test_a_model_that_needs_code_of_its_own_is_refused_without_a_question(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(builtins, "input", lambda *question: asked.append(question) or "n")
    plant(llama, tmp_path / "trace")
    config = json.loads((llama / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "a kind of its own"
    (llama / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_model(llama, "float32", "cpu")
    assert str(llama) in str(caught.value)
    assert not asked
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("missing", ["config.json", "*.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused_and_nothing_is_written(
    missing: str, llama: Path, tmp_path: Path
) -> None:
    for path in llama.glob(missing):
        path.unlink()
    (llama / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        import_model(llama, tmp_path / "out")
    assert str(caught.value) == (
        f"{llama} holds no {missing}: a model folder needs config.json, a tokenizer and "
        "safetensors weights (pickled weights are never read)"
    )
    assert list(tmp_path.iterdir()) == [llama]


def test_what_is_no_model_is_refused_and_an_earlier_output_stays(
    llama: Path, tmp_path: Path
) -> None:
    import_model(llama, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.bin is no model: give a \.gguf file or a folder"):
        import_model(tmp_path / "model.bin", tmp_path / "out")
    assert contents(tmp_path / "out") == before


# Folders that do not load


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.9999])
def test_truncated_weights_are_refused_and_the_folder_named(share: float, llama: Path) -> None:
    weights = llama / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="holds no model that transformers can load") as caught:
        load_model(llama, "float32", "cpu")
    assert str(caught.value).startswith(str(llama))
    assert "\n" not in str(caught.value)


def test_a_missing_part_of_the_weights_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tiny_config("olmo2"))
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path, "float32", "cpu")


def test_weights_that_lack_a_matrix_are_refused(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight") as caught:
        load_model(llama, "float32", "cpu")
    assert str(llama) in str(caught.value)


def test_weights_of_other_shapes_than_the_configuration_says_are_refused(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text(encoding="utf-8"))
    config["intermediate_size"] += 8
    (llama / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="holds no model") as caught:
        load_model(llama, "float32", "cpu")
    assert str(llama) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "unheard of"}'])
def test_a_configuration_that_is_none_is_refused(text: str, llama: Path) -> None:
    (llama / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="holds no model") as caught:
        load_model(llama, "float32", "cpu")
    assert str(llama) in str(caught.value)


def test_a_folder_that_does_not_exist_or_holds_no_tokenizer_is_named(
    llama: Path, tmp_path: Path
) -> None:
    for load in (lambda folder: load_model(folder, "float32", "cpu"), load_tokenizer):
        with pytest.raises(UserError, match="nowhere"):
            load(tmp_path / "nowhere")
    for path in llama.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="a llama holds no tokenizer"):
        load_tokenizer(llama)


# GGUF


def rotary_pairs_together(weight: Any, heads: int) -> Any:
    """A query or key matrix in llama.cpp's order of rotary dimensions."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def rotary_halves_apart(weight: Any, heads: int) -> Any:
    """The inverse."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, module = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{NAMES[module]}.weight"


def write_gguf(path: Path, model: Any, kind: gguf.GGMLQuantizationType) -> dict[str, Any]:
    """Write a Llama and the tests' tokenizer; return what each matrix is worth after `kind`."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    state = json.loads(tiny_tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].__getitem__)
    kinds = [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(tokens) - 2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in state["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    worth = {}
    for name, parameter in model.named_parameters():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
            name.split(".")[-2]
        )
        values = parameter.detach().numpy()
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
            worth[name] = values
            continue
        stored = rotary_pairs_together(values, heads) if heads else values
        quantised = gguf.quants.quantize(stored, kind)
        writer.add_tensor(gguf_name(name), quantised, raw_dtype=kind)
        found = gguf.quants.dequantize(quantised, kind)
        worth[name] = rotary_halves_apart(found, heads) if heads else found
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return worth


@pytest.fixture
def in_blocks() -> Any:
    """A tied Llama whose matrices can be quantised: rows of whole blocks of 32."""
    return tiny_model(tiny_config("llama", intermediate_size=64))


@pytest.mark.parametrize("kind", ["F32", "Q4_1"])
def test_a_gguf_file_becomes_a_folder_of_the_weights_it_is_worth(
    kind: str, in_blocks: Any, tmp_path: Path
) -> None:
    worth = write_gguf(tmp_path / "model.gguf", in_blocks, gguf.GGMLQuantizationType[kind])
    import_model(tmp_path / "model.gguf", tmp_path / "out")
    import_model(tmp_path / "model.gguf", tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    model = load_model(tmp_path / "out", "float32", "cpu")
    found = dict(model.named_parameters())
    assert found.keys() == worth.keys()
    for name, values in worth.items():
        np.testing.assert_array_equal(found[name].detach().numpy(), values, err_msg=name)
    with torch.no_grad():
        for name, parameter in in_blocks.named_parameters():
            parameter.copy_(torch.from_numpy(worth[name]))
    tokens = range(5, 45)
    torch.testing.assert_close(
        plain_logits(model, tokens), plain_logits(in_blocks, tokens), rtol=0, atol=1e-4
    )
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer(TEXT)["input_ids"] == tiny_tokenizer()(TEXT)["input_ids"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_a_truncated_gguf_file_is_refused_and_named(
    share: float, in_blocks: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, in_blocks, gguf.GGMLQuantizationType.F32)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"model\.gguf"):
        import_model(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]
