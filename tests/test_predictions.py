"""Predictions survive the disk exactly, and a file that is not predictions is named."""

import dataclasses
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regrow.evaluate.predictions import Predictions, read_predictions, write_predictions
from regrow.support.errors import UserError

PREDICTIONS = Predictions(
    ids=["a", "b", "ü"],
    splits=["calibration", "test", "test"],
    answers=[1, 0, 2],
    log_probs=[[-1.5, -0.1 - 0.2], [-3.0, -4.0, -1e-300], [-7.0, -8.0, -9.0, -1e300]],
    tokens=[[1, 2], [1, 1, 3], [1, 1, 1, 1]],
    characters=[[4, 8], [3, 2, 12], [5, 5, 5, 1]],
    parameters=134_515_008,
    mlp_parameters=79_626_240,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "0.2-600-0.parquet"
    write_predictions(path, PREDICTIONS)
    assert read_predictions(path) == PREDICTIONS


def test_equal_predictions_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_predictions(tmp_path / name, PREDICTIONS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_no_questions_is_a_file_too(tmp_path: Path) -> None:
    nothing = PREDICTIONS.of_split("no such split")
    write_predictions(tmp_path / "none", nothing)
    assert len(read_predictions(tmp_path / "none")) == 0


def test_of_split_keeps_order_and_sizes() -> None:
    test = PREDICTIONS.of_split("test")
    assert test.ids == ["b", "ü"]
    assert test.answers == [0, 2]
    assert test.parameters == PREDICTIONS.parameters


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.parquet does not exist; `dvc repro`"):
        read_predictions(tmp_path / "teacher.parquet")


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_truncated_file_is_named(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "0.2.parquet"
    write_predictions(path, PREDICTIONS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match=r"0\.2\.parquet is not a whole parquet file"):
        read_predictions(path)


def test_another_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.2.parquet"
    pq.write_table(pa.table({"id": ["a"], "score": [0.5]}), path)
    with pytest.raises(UserError, match=r"0\.2\.parquet does not hold predictions: its columns"):
        read_predictions(path)


def test_missing_parameter_count_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.2.parquet"
    write_predictions(path, PREDICTIONS)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    with pytest.raises(UserError, match=r"0\.2\.parquet does not hold predictions"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"answers": [1, 0]}, "3 ids but 2 answers"),
        ({"answers": [1, 3, 2]}, "question b has 3 choices and answer 3"),
        ({"answers": [-1, 0, 2]}, "answer -1"),
        ({"splits": ["calibration", "test", "train"]}, "question ü is of split 'train'"),
        ({"ids": ["a", "b", "b"]}, "id occurs twice"),
        ({"tokens": [[1, 2], [1, 1], [1, 1, 1, 1]]}, "question b has 3 choices and tokens"),
        ({"characters": [[4, 0], [3, 2, 12], [5, 5, 5, 1]]}, r"characters \[4, 0\]"),
        (
            {"log_probs": [[-1.0, math.nan], [-3.0, -4.0, -1.0], [-7.0] * 4]},
            "question a a log-probability that is not a finite number; its training diverged",
        ),
        ({"parameters": -1}, "parameters is negative"),
    ],
)
def test_contradictions_are_not_written(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    path = tmp_path / "x.parquet"
    write_predictions(path, PREDICTIONS)
    before = path.read_bytes()
    with pytest.raises(UserError, match=fault):
        write_predictions(path, dataclasses.replace(PREDICTIONS, **change))  # type: ignore[arg-type]
    assert path.read_bytes() == before
