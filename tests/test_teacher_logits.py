"""The teacher's record gives back what the teacher said, and both KLs are what they claim."""

import hashlib
import json
import math
import os
import shutil
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from regrow.distill.divergence import DIVERGENCES, forward_kl, jensen_shannon, reverse_kl
from regrow.distill.reader import Record, Targets
from regrow.distill.record import Layout
from regrow.distill.writer import record
from regrow.evaluate.ranking import first_ranked
from regrow.model import folders
from regrow.model.folders import save_model, tensor_parts
from regrow.model.forward import OutputLayer, output_layer, read_output_layer, row_logits
from regrow.model.scoring import score_choices
from regrow.model.trees import Positions, Tree, build_trees, by_tokens, flat_rows, pack
from regrow.retrain.cross_entropy import cross_entropy
from regrow.support.errors import UserError
from regrow.support.resume import Unfinished
from regrow.tasks.questions import read_labels, write_questions
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

IDS = [question.id for question in QUESTIONS]
TEMPERATURES = [1.0, 2.0, 4.0]
VOCABULARY = len(tiny_tokenizer())


@cache
def teacher() -> Any:
    return tiny_model(tiny_config("olmo2"))


@cache
def student() -> Any:
    return tiny_model(tiny_config("olmo2"), seed=1)


@cache
def live(which: Any, positions: Positions, question: int) -> torch.Tensor:
    """A model's logits at a question's rows, from plain sequences: [rows, vocabulary] double."""
    shared, wholes = sequences(tiny_tokenizer(), QUESTIONS[question], "cloze")
    first = 0 if positions == "all" else shared - 1
    parts = [plain_logits(which, wholes[0])[first:shared]]
    parts += [plain_logits(which, tokens)[shared:-1] for tokens in wholes]
    return torch.cat(parts).double()


def write_record(out: Path, positions: Positions = "answer", batch_tokens: int = 1024) -> Record:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    with TemporaryDirectory() as scratch:
        state = unkept(Path(scratch))
        record(teacher(), IDS, trees, positions, out, state, batch_tokens)
    return opened(out)


def opened(folder: Path) -> Record:
    """A record of `teacher`."""
    return Record(folder, lambda: output_layer(teacher()))


def targets_of(found: Record, ids: Sequence[str], temperature: float) -> Targets:
    """The teacher's distributions of some questions, one after the other."""
    return found.targets(np.concatenate([found.rows(identity) for identity in ids]), temperature)


def unkept(scratch: Path) -> Unfinished:
    """State that is never saved."""
    return Unfinished(scratch, math.inf)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Records by their settings, made once; copy a folder to change it."""
    folder = tmp_path_factory.mktemp("records")

    @cache
    def make(positions: Positions = "answer") -> Path:
        write_record(folder / positions, positions)
        return folder / positions

    return make


def reference_kl(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T^2 KL(teacher || student), each row, by torch's own function on whole logits."""
    return temperature**2 * F.kl_div(
        (student_logits / temperature).log_softmax(-1),
        (teacher_logits / temperature).log_softmax(-1),
        reduction="none",
        log_target=True,
    ).sum(-1)


def exact_targets(logits: torch.Tensor, temperature: float) -> Targets:
    """Targets as a record gives them, without the rounding of its storage."""
    return Targets((logits / temperature).log_softmax(-1), temperature)


def random_logits(seed: int, rows: int = 4, vocabulary: int = 12, spread: float = 3.0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)


# KL from a record


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_kl_from_a_record_equals_kl_div_on_live_teacher_logits(
    positions: Positions, temperature: float, records: Any
) -> None:
    found = opened(records(positions))
    for place, identity in enumerate(IDS):
        logits = live(student(), positions, place)
        expected = reference_kl(logits, live(teacher(), positions, place), temperature).sum()
        targets = targets_of(found, [identity], temperature)
        # The record holds single precision.
        assert float(forward_kl(logits, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_kl_of_several_questions_is_the_sum_in_the_order_asked(records: Any) -> None:
    found = opened(records())
    asked = [4, 0, 5, 0]
    logits = torch.cat([live(student(), "answer", place) for place in asked])
    expected = sum(
        float(reference_kl(live(student(), "answer", p), live(teacher(), "answer", p), 1.0).sum())
        for p in asked
    )
    targets = targets_of(found, [IDS[place] for place in asked], 1.0)
    assert float(forward_kl(logits, targets)) == pytest.approx(expected, rel=1e-5)


def test_kl_of_a_model_with_itself_is_nothing(records: Any) -> None:
    logits = live(teacher(), "answer", 0)
    assert abs(float(forward_kl(logits, targets_of(opened(records()), IDS[:1], 1.0)))) < 1e-5
    assert float(forward_kl(logits, exact_targets(logits, 2.0))) == pytest.approx(0, abs=1e-12)


# The other divergences


def reference_divergence(
    name: str, student_logits: torch.Tensor, teacher_logits: torch.Tensor, targets: Targets
) -> torch.Tensor:
    """From the formulas, on probabilities: T^2 times the divergence, a number a row."""
    p, q = (
        (logits / targets.temperature).softmax(-1) for logits in (teacher_logits, student_logits)
    )
    mean = (p + q) / 2
    rows = {
        "forward_kl": (p * (p / q).log()).sum(-1),
        "reverse_kl": (q * (q / p).log()).sum(-1),
        "jensen_shannon": ((p * (p / mean).log()).sum(-1) + (q * (q / mean).log()).sum(-1)) / 2,
    }
    return targets.temperature**2 * rows[name]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_each_divergence_equals_its_formula_and_its_gradient_finite_differences(
    name: str, temperature: float
) -> None:
    teacher_logits, logits = random_logits(0), random_logits(1).requires_grad_()
    targets = exact_targets(teacher_logits, temperature)
    expected = reference_divergence(name, logits, teacher_logits, targets).sum()
    torch.testing.assert_close(DIVERGENCES[name](logits, targets), expected, rtol=1e-10, atol=0)
    assert torch.autograd.gradcheck(lambda given: DIVERGENCES[name](given, targets), logits)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_each_divergence_of_some_rows_and_the_others_is_that_of_all(
    name: str, records: Any
) -> None:
    found = opened(records())
    logits = torch.cat([live(student(), "answer", place) for place in range(len(IDS))])
    rows = np.concatenate([found.rows(identity) for identity in IDS])
    whole = DIVERGENCES[name](logits, found.targets(rows, 2.0))
    parts = [
        DIVERGENCES[name](logits[part], found.targets(rows[part], 2.0))
        for part in (slice(0, 10), slice(10, None))
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-6, atol=0)
    at_most = math.log(2) * 4 * len(rows) if name == "jensen_shannon" else math.inf
    assert 0 < float(whole) <= at_most


def test_jensen_shannon_near_the_teacher_is_a_quarter_of_either_kl() -> None:
    teacher_logits = random_logits(0)
    targets = exact_targets(teacher_logits, 1.0)
    near = teacher_logits + 1e-3 * random_logits(1)
    quarter = float(jensen_shannon(near, targets))
    for kl in (forward_kl, reverse_kl):
        assert quarter == pytest.approx(float(kl(near, targets)) / 4, rel=0.01)


# Gradients


def test_the_gradient_of_kl_is_t_times_the_difference_of_the_distributions() -> None:
    teacher_logits, logits = random_logits(0), random_logits(1).requires_grad_()
    forward_kl(logits, exact_targets(teacher_logits, 2.0)).backward()
    expected = 2.0 * ((logits / 2).softmax(-1) - (teacher_logits / 2).softmax(-1))
    torch.testing.assert_close(logits.grad, expected.detach(), rtol=0, atol=1e-12)


def test_the_gradient_of_cross_entropy_matches_finite_differences() -> None:
    tokens = torch.tensor([0, 3, 3, 11])
    logits = random_logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: cross_entropy(given, tokens), logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_half_precision_logits_are_summed_in_single_precision(dtype: Any) -> None:
    logits = random_logits(1, vocabulary=5000).to(dtype)
    targets = exact_targets(random_logits(0, vocabulary=5000).float(), 1.0)
    tokens = torch.tensor([0, 1, 2, 3])
    assert torch.equal(forward_kl(logits, targets), forward_kl(logits.float(), targets))
    assert torch.equal(cross_entropy(logits, tokens), cross_entropy(logits.float(), tokens))


# The record's rows


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_rows_come_in_the_order_of_the_questions_whatever_the_batches(
    positions: Positions, batch_tokens: int, tmp_path: Path
) -> None:
    found = write_record(tmp_path / "record", positions, batch_tokens)
    assert json.loads((tmp_path / "record" / "ids.json").read_text(encoding="utf-8")) == IDS
    offsets = np.load(tmp_path / "record" / "offsets.npy")
    counts = [len(live(teacher(), positions, place)) for place in range(len(IDS))]
    assert offsets.tolist() == [0, *np.cumsum(counts)]
    assert (found.layout.positions, found.layout.vocabulary) == (positions, VOCABULARY)
    assert found.layout.rows == sum(counts)
    expected = torch.cat([live(teacher(), positions, place) for place in range(len(IDS))])
    log_probs = targets_of(found, IDS, 1.0).log_probs
    np.testing.assert_allclose(log_probs, expected.log_softmax(-1), rtol=0, atol=2e-4)


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_nodes_are_the_tokens_that_the_teacher_read(positions: Positions, records: Any) -> None:
    expected: list[int] = []
    for question in QUESTIONS:
        shared, wholes = sequences(tiny_tokenizer(), question, "cloze")
        expected += wholes[0][0 if positions == "all" else shared - 1 : shared]
        for tokens in wholes:
            expected += tokens[shared:-1]
    assert np.load(records(positions) / "nodes.npy").tolist() == expected


def test_equal_runs_give_equal_bytes(tmp_path: Path, records: Any) -> None:
    write_record(tmp_path / "record")
    one, two = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (records(), tmp_path / "record")
    )
    assert one == two
    assert set(one) == {"record.json", "ids.json", "offsets.npy", "nodes.npy", "states.npy"}
    for name in set(one) - {"record.json", "ids.json"}:
        column = np.load(tmp_path / "record" / name, mmap_mode="r")
        assert len(one[name]) == column.offset + column.nbytes, name


@pytest.mark.parametrize("harm", ["none", "empty", "halved", "another shape", "another row"])
def test_a_record_that_was_interrupted_ends_in_the_same_bytes(
    harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopping(Unfinished):
        """Saves whenever it can, and stops behind the second time."""

        def write(self, progress: Any) -> None:
            super().write(progress)
            if len(progress) == 2:
                raise KeyboardInterrupt

    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    given = (IDS, trees, "answer", tmp_path / "record")
    (tmp_path / "state").mkdir()
    with pytest.raises(KeyboardInterrupt):
        record(teacher(), *given, Stopping(tmp_path / "state", 0.0), 100)
    assert not (tmp_path / "record").exists()
    (column,) = (tmp_path / "state").rglob("states.npy")
    values = np.load(column)
    if harm in ("empty", "halved"):
        os.truncate(column, 0 if harm == "empty" else column.stat().st_size // 2)
    elif harm == "another shape":
        np.save(column, values[:, :-1])
    elif harm == "another row":
        first = by_tokens(trees, 100)[0][0]
        np.save(column, np.where(np.arange(len(values)) == first_row(trees, first), 0, values.T).T)
    scores = record(teacher(), *given, Unfinished(tmp_path / "state", math.inf), 100)
    batches = len(by_tokens(trees, 100))
    assert batches > 2, "there was nothing to go on with"
    said = capsys.readouterr().out
    assert (f"goes on behind 2 of {batches} batches" in said) == (harm == "none")
    for found, expected in zip(scores, score_choices(teacher(), trees), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    write_record(tmp_path / "whole", "answer", 100)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "record" / path.name).read_bytes() == path.read_bytes()


def first_row(trees: Sequence[Tree], place: int) -> int:
    """Where in a record of `answer` positions a question's rows begin."""
    return sum(len(tree.rows("answer")) for tree in trees[:place])


# Reading


def test_reading_takes_the_rows_asked_for_and_not_the_file(tmp_path: Path) -> None:
    rows, vocabulary, hidden, questions = 40_000, 10, 25_000, 1000
    folder = tmp_path / "record"
    folder.mkdir()
    output = OutputLayer(torch.nn.Linear(hidden, vocabulary, bias=False), None)
    digest = hashlib.sha256(output.linear.weight.detach().numpy().tobytes()).hexdigest()
    layout = Layout("answer", vocabulary, rows, hidden, "float32", digest)
    (folder / "record.json").write_text(json.dumps(asdict(layout)), encoding="utf-8")
    ids = [str(number) for number in range(questions)]
    (folder / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    np.save(folder / "offsets.npy", np.arange(questions + 1, dtype=np.int64) * 40)
    np.save(folder / "nodes.npy", np.zeros(rows, dtype=np.int32))
    # 4 GB, of which the disk holds nothing.
    np.lib.format.open_memmap(folder / "states.npy", "w+", np.float32, (rows, hidden))
    tracemalloc.start()
    try:
        targets = targets_of(Record(folder, lambda: output), ["17", "999"], 1.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert targets.log_probs.shape == (80, vocabulary)
    assert peak < 10 * 80 * hidden * 4


def test_a_record_serves_any_temperature(records: Any) -> None:
    targets = targets_of(opened(records()), IDS[:1], 3.0)
    expected = (live(teacher(), "answer", 0) / 3).log_softmax(-1)
    torch.testing.assert_close(targets.log_probs.double(), expected, rtol=0, atol=2e-4)


# The teacher behind it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_record_gives_back_the_teachers_own_logits(
    family: str, dtype: Any, tmp_path: Path
) -> None:
    model = tiny_model(tiny_config(family)).to(dtype)
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    record(model, IDS, trees, "all", tmp_path / "record", unkept(tmp_path))
    found = Record(tmp_path / "record", lambda: output_layer(model))
    assert found.layout.dtype == str(dtype).removeprefix("torch.")
    for place, tree in enumerate(trees):
        batch = pack([tree])
        with torch.no_grad():
            logits = row_logits(model, batch, flat_rows(batch, [tree], "all")).float()
        targets = targets_of(found, IDS[place : place + 1], 1.0)
        # Other rows stand beside these in a batch, which may round otherwise.
        within = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 2e-1}[dtype]
        torch.testing.assert_close(targets.log_probs, logits.log_softmax(-1), rtol=0, atol=within)


def test_a_record_takes_a_state_a_row(records: Any) -> None:
    states = np.load(records() / "states.npy")
    assert states.shape[1] == teacher().config.hidden_size
    assert states.dtype == np.float32


def test_a_record_of_another_teacher_is_refused(records: Any) -> None:
    with pytest.raises(UserError, match="not made with this teacher's output matrix"):
        Record(records(), lambda: output_layer(student()))


@pytest.mark.parametrize("shard", ["50GB", "20KB"])
@pytest.mark.parametrize("family", ["llama", "olmo2", "gemma2"])
def test_of_the_teachers_weights_only_the_output_matrix_is_read(
    family: str, shard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tiny_config(family)).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "20KB")
    read: list[str] = []

    def noted(folder: Path, name: str, dtype: str) -> Any:
        read.append(name)
        return tensor_parts(folder, name, dtype)

    monkeypatch.setattr(folders, "tensor_parts", noted)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    found = read_output_layer(tmp_path, "float32", "cpu")
    tied = model.config.tie_word_embeddings
    assert read == ["model.embed_tokens.weight" if tied else "lm_head.weight"]
    states = torch.randn(3, 32)
    assert torch.equal(found(states), output_layer(model.float())(states))


def test_a_teacher_without_an_output_matrix_is_named(tmp_path: Path) -> None:
    model = tiny_model(tiny_config("olmo2"))
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(UserError, match=r"lack lm_head\.weight .*fetch them again"):
        read_output_layer(tmp_path, "float32", "cpu")


def test_no_record_is_made_of_an_output_layer_with_a_bias(tmp_path: Path) -> None:
    model = tiny_model(tiny_config("llama"))
    model.lm_head.bias = torch.nn.Parameter(torch.ones(VOCABULARY))
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    with pytest.raises(UserError, match="has a bias, which no record holds"):
        record(model, IDS, trees, "all", tmp_path / "record", unkept(tmp_path))
    assert not any(tmp_path.iterdir())


COLUMNS = ("offsets", "nodes", "states")


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        (name, harm)
        for name in ("record.json", "ids.json", *(f"{column}.npy" for column in COLUMNS))
        for harm in ("missing", "halved", "empty", "not what it says")
    ],
)
def test_a_record_with_a_harmed_file_is_named(
    name: str, harm: str, records: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(records(), tmp_path / "record")
    path = folder / name
    whole = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        rest = {"halved": whole[: len(whole) // 2], "empty": b""}
        path.write_bytes(rest.get(harm, b"\xff\xfe nothing of the kind"))
    with pytest.raises(UserError, match="run the stage teacher_logits again") as caught:
        opened(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_record_with_a_column_of_another_length_is_named(
    name: str, records: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(records(), tmp_path / "record")
    np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:-1])
    with pytest.raises(UserError, match="no whole record") as caught:
        opened(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("harm", ["starts late", "ends early", "goes back"])
def test_offsets_that_do_not_lead_through_the_rows_are_named(
    harm: str, records: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(records(), tmp_path / "record")
    offsets = np.load(folder / "offsets.npy")
    place = {"starts late": 0, "ends early": -1, "goes back": 2}[harm]
    offsets[place] += {"starts late": 1, "ends early": -1, "goes back": 10**6}[harm]
    np.save(folder / "offsets.npy", offsets)
    with pytest.raises(UserError, match=f"does not lead from 0 to {opened(records()).layout.rows}"):
        opened(folder)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("harm", ["type", "width", "order", "last byte", "version"])
def test_a_column_of_another_form_is_named(
    harm: str, name: str, records: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(records(), tmp_path / "record")
    path = folder / f"{name}.npy"
    column = np.load(path)
    if harm == "last byte":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "type":
        np.save(path, column.astype(np.float64))
    elif harm == "version":
        with path.open("wb") as file:
            np.lib.format.write_array(file, column, (2, 0))
    elif harm == "width":
        np.save(path, np.stack([column, column], -1))
    elif column.ndim > 1:
        np.save(path, np.asfortranarray(column))
    else:
        return
    said = "(lacks its last 1 bytes|holds .*, not |is of another version)"
    with pytest.raises(UserError, match=rf"{name}\.npy {said}"):
        opened(folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"vocabulary": 0}, "must be numbers above 0"),
        ({"rows": 0}, "must be numbers above 0"),
        ({"hidden": True}, "hidden, vocabulary and rows must be numbers above 0"),
        ({"dtype": "float8"}, "dtype is 'float8', not one of float32"),
        ({"positions": "some"}, "positions is 'some'"),
    ],
)
def test_a_layout_with_another_value_is_named(
    changed: dict[str, Any], said: str, records: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(records(), tmp_path / "record")
    layout = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    (folder / "record.json").write_text(json.dumps(layout | changed), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        opened(folder)


@pytest.mark.parametrize(
    "fields", [{"rows": None}, {"colour": "red"}, None, []], ids=["lacks", "adds", "null", "list"]
)
def test_a_record_whose_layout_has_other_fields_is_named(
    fields: Any, records: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(records(), tmp_path / "record")
    layout = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    if fields == {"rows": None}:
        del layout["rows"]
    else:
        layout = {**layout, **fields} if isinstance(fields, dict) else fields
    (folder / "record.json").write_text(json.dumps(layout), encoding="utf-8")
    with pytest.raises(UserError, match="no whole record"):
        opened(folder)


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_a_record_of_these_questions_and_tokens_is_accepted(
    positions: Positions, records: Any
) -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    opened(records(positions)).check(IDS, trees)
    opened(records(positions)).check(IDS[2:4], trees[2:4])


@pytest.mark.parametrize(
    ("tokenizer", "format"),
    [({"bos": True}, "cloze"), ({"across_words": True}, "cloze"), ({}, "letters")],
)
def test_a_record_of_other_tokens_is_refused(
    tokenizer: dict[str, bool], format: Any, records: Any
) -> None:
    folder = records("all")
    trees = build_trees(tiny_tokenizer(**tokenizer), QUESTIONS, format)
    with pytest.raises(UserError, match=f"holds question {IDS[0]} in other tokens") as caught:
        opened(folder).check(IDS, trees)
    assert str(folder) in str(caught.value)


def test_a_record_of_other_questions_is_refused(records: Any) -> None:
    folder = records()
    trees = build_trees(tiny_tokenizer(), QUESTIONS[:1], "cloze")
    with pytest.raises(UserError, match="holds no question unheard of") as caught:
        opened(folder).check(["unheard of"], trees)
    assert str(folder) in str(caught.value)


def test_a_question_whose_choices_changed_is_refused(records: Any) -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    swapped: Sequence[Any] = [trees[4], *trees[1:]]
    with pytest.raises(UserError, match="in other tokens"):
        opened(records()).check(IDS, swapped)


# The stage


def test_the_stage_records_what_the_parameters_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(tmp_path, teacher_logits={"positions": "all"})
    write_questions(tmp_path / "questions.jsonl", QUESTIONS)
    save_model(teacher(), tiny_tokenizer(), tmp_path / "teacher")
    arguments = ("--teacher", "teacher", "--questions", "questions.jsonl", "--out", "record")
    choices = tmp_path / "choices.jsonl"
    assert regrow(monkeypatch, tmp_path, "teacher_logits", *arguments, "--choices", choices) == 0
    scores = score_choices(teacher(), build_trees(tiny_tokenizer(), QUESTIONS, "cloze"))
    lengths = [[len(choice) for choice in question.choices] for question in QUESTIONS]
    assert read_labels(choices, QUESTIONS) == list(first_ranked(scores, lengths, "per_character"))
    found = opened(tmp_path / "record")
    assert found.layout.positions == "all"
    logits = live(student(), "all", 0)
    expected = reference_kl(logits, live(teacher(), "all", 0), 1.0).sum()
    kl = forward_kl(logits, targets_of(found, IDS[:1], 1.0))
    assert float(kl) == pytest.approx(float(expected), rel=1e-5)
