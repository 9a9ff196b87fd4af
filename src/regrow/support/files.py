"""Writing outputs whole or not at all: write beside, then rename."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.support.errors import UserError, file_fault


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or folder at; rename it to `path` on success.

    On an exception what was written is removed and `path` is left as it was. One that says that
    the system did not let us write becomes a `UserError` that names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    _remove(beside)
    try:
        yield beside
        _remove(path)
        beside.rename(path)
    except Exception as error:
        if said := file_fault(error, path):
            raise UserError(said) from error
        raise
    finally:
        _remove(beside)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused (`ValueError`)."""
    with replacing(path) as beside:
        beside.write_text(
            json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


FLOAT_DIGITS = 6  # of each reported number: far below any interval, far above rounding noise


def rounded(value: float) -> float:
    """`value` to `FLOAT_DIGITS` significant digits, so that equal results are equal text."""
    return float(f"{value:.{FLOAT_DIGITS}g}")
