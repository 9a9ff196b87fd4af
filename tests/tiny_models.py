"""Small random models and tokenizers of the kinds that the project meets, and plain references.

The references know no trees: every sequence goes alone through the unchanged model.
"""

import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from conftest import PARAMS
from regrow.tasks.prompts import context, continuations
from regrow.tasks.questions import Question

BOS, EOS = "<s>", "</s>"

QUESTIONS = (
    Question("two", "Where is a cup kept?", ("cupboard", "house by the sea")),
    Question("one token each", "Which of the two?", ("a", "b")),
    Question("long", "Well, " * 70 + "where do people rest?", ("park", "sea", "warm roof", "bank")),
    Question("repeated", "Where is money kept?", ("bank", "park", "bank", "the bank")),
    Question("prefixes", "Where do fish swim?", ("sea", "sea side", "sea side house")),
    Question("other letters", "Où dort le chat für alle?", ("Dächer", "早い", "toit")),
    Question("many", "Where would you look?", tuple(f"place {n}" for n in range(11))),
)
"""Of different numbers of choices and lengths."""

SENTENCES = (
    "Question: Where is a cup kept?\nAnswer: cupboard",
    "Question: Where do people rest?\nAnswer: park",
    "Question: Where do fish swim?\nAnswer: sea",
    "The fish swims by the house, the cat sleeps on the warm roof, and money is in the bank.",
)

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    # Large enough that tokens which should not be seen would be noticed.
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}

ARCHITECTURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {"tie_word_embeddings": True}),
    "llama with biases": (LlamaConfig, {"mlp_bias": True, "attention_bias": True}),
    "olmo2": (Olmo2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 8, "tie_word_embeddings": True}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    # A window longer than these questions, as in the published models.
    "mistral with a window": (MistralConfig, {"sliding_window": 900}),
    "gemma2": (
        Gemma2Config,
        {
            "head_dim": 8,
            "sliding_window": 900,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 8,
        },
    ),
}


def tiny_config(architecture: str, **changes: Any) -> Any:
    """The configuration of a small model, for the vocabulary of `tiny_tokenizer`."""
    kind, own = ARCHITECTURES[architecture]
    return kind(**{**SMALL, "vocab_size": len(tiny_tokenizer()), **own, **changes})


def tiny_model(config: Any, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A model with no parameter at a value that would hide a mistake (norms at 1, biases at 0)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.to(dtype).eval()


@cache
def tiny_tokenizer(bos: bool = False, eos: bool = False, across_words: bool = False) -> Any:
    """A byte-level BPE tokenizer of about 330 tokens.

    Args:
        bos: put a BOS token before every text.
        eos: put an EOS token behind every text.
        across_words: let tokens hold parts of two words, as ": sea".
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=not across_words
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if bos or eos:
        frame = [BOS] * bos + ["$A"] + [EOS] * eos
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(frame), special_tokens=[(BOS, 0), (EOS, 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS
    )


def sequences(
    tokenizer: Any, question: Question, prompt_format: Any
) -> tuple[int, list[tuple[int, ...]]]:
    """How many tokens all choices share with the context, and every context + choice in tokens."""
    stem = context(question, prompt_format)
    texts = [stem, *(stem + choice for choice in continuations(question, prompt_format))]
    encoded = [tuple(tokenizer(text)["input_ids"]) for text in texts]
    last = tokenizer.eos_token_id
    encoded = [tokens[:-1] if tokens[-1] == last else tokens for tokens in encoded]
    shared = 0
    while len({tokens[shared : shared + 1] for tokens in encoded}) == 1:
        shared += 1
    return shared, encoded[1:]


@torch.no_grad()
def plain_logits(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """[tokens, vocabulary]: one sequence through the unchanged model."""
    logits: torch.Tensor = model(torch.tensor([list(tokens)])).logits[0]
    return logits


def plain_scores(model: Any, tokenizer: Any, question: Question, format: Any) -> list[float]:
    """The summed log-probability of each choice, from one sequence a choice."""
    shared, wholes = sequences(tokenizer, question, format)
    scores = []
    for tokens in wholes:
        log_probs = plain_logits(model, tokens).double().log_softmax(-1)
        scores.append(
            sum(float(log_probs[at - 1, tokens[at]]) for at in range(shared, len(tokens)))
        )
    return scores


def write_params(folder: Path, **sections: dict[str, Any]) -> None:
    """Write the tests' params.yaml into `folder`, with keys of some sections changed."""
    params = {name: {**values, **sections.get(name, {})} for name, values in PARAMS.items()}
    params["model"]["source"] = params["data"]["source"] = "file:nothing"
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def regrow(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: Any) -> str | int:
    """`python -m regrow ARGUMENTS…` in `folder`, in this process; return what it exits with."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["regrow", *map(str, arguments)])
    with runtime_restored():
        try:
            runpy.run_module("regrow", run_name="__main__")
        except SystemExit as error:
            return error.code or 0
    return 0


@contextmanager
def runtime_restored() -> Iterator[None]:
    """Leave torch's settings and generator as they were."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
