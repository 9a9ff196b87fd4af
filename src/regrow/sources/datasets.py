"""A data set of others (JSONL, parquet, arrow) → questions and answers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from regrow.sources.layouts import labelled, layout_of
from regrow.support.errors import UserError
from regrow.tasks.questions import Placed, Question, check_ids, json_lines

SOURCE_SUFFIXES = (".jsonl", ".parquet", ".arrow")


def read_source(path: Path) -> tuple[list[Question], list[int]]:
    """Read a labelled data set: its questions and, for each, the index of the right choice.

    The file is `.jsonl` (one object a line), `.parquet` or `.arrow`, with the fields of one of
    `LAYOUTS`. `choices{label, text}` may be a list of pairs or a pair of lists; `question` may
    also hold `stem` and `choices`, as in CommonsenseQA's own files.

    PIQA and Social IQa have no ids, so a question's id is the number of its row, from 1 (unless
    there is an `id` after all). It is the same wherever the file is, in each of the three kinds
    of file, and it tells apart the rows that Social IQa repeats word for word, as a hash of the
    text would not.

    Raises `UserError` naming file and line (or row, from 1) at the first fault, such as an answer
    that is held back (PIQA's label -1, Social IQa's empty one).
    """
    # A pipe or a device of such a name would be read for ever.
    if path.suffix not in SOURCE_SUFFIXES or not path.is_file():
        raise UserError(f"{path} is not a data set; name one {', '.join(SOURCE_SUFFIXES)} file")
    rows = json_lines(path) if path.suffix == ".jsonl" else _table_rows(path)
    placed: list[Placed] = []
    answers = []
    for number, (place, row) in enumerate(rows, start=1):
        question, answer = labelled(place, row, number)
        placed.append((place, question))
        answers.append(answer)
    check_ids(placed)
    return [question for _, question in placed], answers


def _table_rows(path: Path) -> Iterator[Placed]:
    import pyarrow

    number = 0
    try:
        for batch in _batches(path):
            # A stream is mapped as it is; offsets that lead out of it would end the process.
            batch.validate(full=True)
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name}, row {number}", row
    # Values without a like in Python: a text that is no UTF-8, a date in the year 5,000,000.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name} cannot be read as {path.suffix[1:]} ({reason})") from None


def _batches(path: Path) -> Iterator[Any]:
    """Yield record batches of the columns that are needed, a part of the file at a time."""
    import pyarrow

    if path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            columns = _columns(path.name, file.schema_arrow.names)
            yield from file.iter_batches(columns=columns)
        return
    with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
        columns = _columns(path.name, stream.schema.names)
        for batch in stream:
            yield batch.select(columns)


def _columns(place: str, present: Sequence[str]) -> list[str]:
    """Return which of a table's columns to read."""
    layout = layout_of(place, present)
    lacking = [name for name in layout.fields if name not in present]
    if lacking:
        needed = ", ".join(layout.fields)
        raise UserError(f"{place} has no column {lacking[0]!r}; it needs {needed}")
    columns = [name for name in present if name == "id" or name in layout.fields]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise UserError(f"{place} has the column {twice[0]!r} twice; it needs one of each")
    return columns
