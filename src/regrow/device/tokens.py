"""A tokenizer as llama.cpp holds it, and questions in tokens."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gguf

from regrow.support.errors import UserError
from regrow.support.files import in_form, read_json
from regrow.tasks.questions import json_lines, write_lines

GPT2 = ("ByteLevel", True)  # with GPT-2's own pattern
BYTES = ("ByteLevel", False)
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}|"
    r" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[tuple[tuple[str, Any], ...], str] = {
    (GPT2,): "gpt-2",
    (("Digits", True), GPT2): "smollm",
    (("Split", _WORDS.format(digits="{1,3}")), BYTES): "dbrx",  # OLMo 2's and GPT-4's
    (("Split", _WORDS.format(digits="")), BYTES): "qwen2",
}
"""llama.cpp's names, by the rules of a tokenizer.json; tests compare the tokens of each."""


@dataclass(frozen=True)
class Asked:
    """A question in tokens, with what its prediction says beside the scores.

    texts: context and choice, a text a choice. context, branches: token ids; every text is the
    context with one branch. characters: of each choice, without the leading space.
    """

    id: str
    split: str
    answer: int
    texts: Sequence[str]
    context: Sequence[int]
    branches: Sequence[Sequence[int]]
    characters: Sequence[int]


def write_asked(path: Path, asked: Sequence[Asked]) -> None:
    """Write questions in tokens, one a line."""
    write_lines(path, map(asdict, asked))


def read_asked(path: Path) -> list[Asked]:
    """Read what `write_asked` wrote."""
    with in_form(path, "make it again"):
        found = [Asked(**row) for _, row in json_lines(path)]
    if not found:
        raise UserError(f"{path} holds no question; make it again")
    return found


def source_pre_tokenizer(base: Path) -> str | None:
    """What the GGUF file that `base` was made from calls its pre-tokenizer, if it was one."""
    path = base / "gguf.json"
    return read_json(path, "make it again")["tokenizer.ggml.pre"] if path.exists() else None


def add_tokenizer(
    writer: Any, folder: Path, config: Mapping[str, Any], pre_tokenizer: str | None
) -> None:
    """Write the byte-level BPE tokenizer of `folder/tokenizer.json`.

    Raises:
        UserError: there is none, it is of another kind, or its rules are not in `PRE_TOKENIZERS`
            and `pre_tokenizer` is None.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
        tokenizer, values = Tokenizer.from_str(text), json.loads(text)
    except Exception as error:  # tokenizers raises Exception itself
        raise UserError(f"{path} holds no tokenizer ({error})") from None
    rules = _rules(values["pre_tokenizer"] or {})
    if values["model"]["type"] != "BPE" or "ByteLevel" not in {kind for kind, _ in rules}:
        raise UserError(f"{path} is no byte-level BPE tokenizer, and no other can be exported")
    name = pre_tokenizer or PRE_TOKENIZERS.get(rules)
    if name is None:
        raise UserError(
            f"{path} splits a text by rules that no pre-tokenizer of llama.cpp is known for; take "
            "a model whose tokenizer is GPT-2's, SmolLM2's, OLMo 2's or Qwen's"
        )
    if name == "dbrx" and values["model"].get("ignore_merges"):
        name = "llama-bpe"  # the same rules, and whole words of the vocabulary are not merged
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a").ids
    leading = framed[: framed.index(bare[0])]
    if len(leading) > 1:
        raise UserError(f"{path} puts {len(leading)} tokens before a text; llama.cpp puts one")
    tokens, kinds = _vocabulary(values, config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = values["model"]["merges"]
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    )
    writer.add_add_bos_token(bool(leading))
    first = leading[0] if leading else config.get("bos_token_id")
    last = config.get("eos_token_id")
    for add, token in (
        (writer.add_bos_token_id, first),
        (writer.add_eos_token_id, last[0] if isinstance(last, list) and last else last),
        (writer.add_pad_token_id, config.get("pad_token_id")),
    ):
        if token is not None:
            add(token)
    template = folder / "chat_template.jinja"
    if template.exists():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def _vocabulary(values: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every token id's text and kind; ids that the tokenizer does not use are marked so."""
    added = {token["id"]: token for token in values["added_tokens"]}
    by_id = {token: text for text, token in values["model"]["vocab"].items()}
    by_id |= {token: entry["content"] for token, entry in added.items()}
    texts, kinds = [], []
    for token in range(size):
        kind = gguf.TokenType.NORMAL if token in by_id else gguf.TokenType.UNUSED
        if token in added:
            special = added[token]["special"]
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
        texts.append(by_id.get(token, f"[PAD{token}]"))
        kinds.append(int(kind))
    return texts, kinds


def _rules(given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A tokenizer.json's pre-tokenizer as `PRE_TOKENIZERS` names it."""
    if given.get("type") == "Sequence":
        return tuple(rule for part in given["pretokenizers"] for rule in _rules(part))
    kind = str(given.get("type"))
    details = {
        "ByteLevel": given.get("use_regex", True),
        "Digits": given.get("individual_digits"),
        "Split": given.get("pattern", {}).get("Regex"),
    }
    return ((kind, details.get(kind)),)
