"""A data set of others (JSONL, parquet, arrow) → questions and answers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from regrow.sources.layouts import fields_of, labelled
from regrow.sources.splits import Labelled
from regrow.sources.uris import not_pinned, resolved
from regrow.support.errors import UserError, one_line
from regrow.support.schema import Columns
from regrow.tasks.questions import Placed, check_ids, json_lines

SOURCE_SUFFIXES = (".jsonl", ".parquet", ".arrow")


def read_pinned(uri: str, sha256: str | None, key: str, columns: Columns | None = None) -> Labelled:
    """Read the data set at `uri`, which the parameter `key` names, and say if it is not pinned."""
    with resolved(uri, sha256, key=key) as source:
        # So that sources without ids stay apart.
        prefix = "test-" if key == "data.test_source" else ""
        read = read_source(source.path, columns, prefix)
        if notice := not_pinned(source, key):
            print(notice)
        return read


def read_source(path: Path, columns: Columns | None = None, prefix: str = "") -> Labelled:
    """Read a labelled data set: its questions and, for each, the index of the right choice.

    The file is `.jsonl` (one object a line), `.parquet` or `.arrow`, with the fields of one of
    `LAYOUTS`, or those that `columns` names.

    A row without an `id`, as PIQA's and Social IQa's are, has the number of its row for one, from
    1, behind `prefix`: Social IQa repeats rows word for word.

    Raises `UserError` naming file and line (or row, from 1) at the first fault, such as an answer
    that is held back (PIQA's label -1, Social IQa's empty one).
    """
    # A pipe or a device of such a name would be read for ever.
    if path.suffix not in SOURCE_SUFFIXES or not path.is_file():
        raise UserError(f"{path} is not a data set; name one {', '.join(SOURCE_SUFFIXES)} file")
    rows = json_lines(path) if path.suffix == ".jsonl" else _table_rows(path, columns)
    read = [
        (place, labelled(place, row, f"{prefix}{number}", columns))
        for number, (place, row) in enumerate(rows, start=1)
    ]
    check_ids((place, question) for place, (question, _) in read)
    return Labelled([question for _, (question, _) in read], [answer for _, (_, answer) in read])


def _table_rows(path: Path, columns: Columns | None) -> Iterator[Placed]:
    import pyarrow

    number = 0
    try:
        for batch in _batches(path, columns):
            # A stream is mapped as it is; offsets that lead out of it would end the process.
            batch.validate(full=True)
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name}, row {number}", row
    # Values without a like in Python: a text that is no UTF-8, a date in the year 5,000,000.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        kind = path.suffix[1:]
        raise UserError(f"{path.name} cannot be read as {kind} ({one_line(error)})") from None


def _batches(path: Path, columns: Columns | None) -> Iterator[Any]:
    """Yield record batches of the columns that are read, a part of the file at a time."""
    import pyarrow

    if path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            names = _read_of(path.name, file.schema_arrow.names, columns)
            yield from file.iter_batches(columns=names)
        return
    with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
        names = _read_of(path.name, stream.schema.names, columns)
        for batch in stream:
            yield batch.select(names)


def _read_of(place: str, present: Sequence[str], columns: Columns | None) -> list[str]:
    names = [name for name in present if name in fields_of(columns)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{place} has the column {twice[0]!r} twice; it needs one of each")
    return names
