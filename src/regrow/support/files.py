"""Reading YAML and JSON; writing outputs whole or not at all.

They are written beside their place, brought onto the disk, then renamed.
"""

import csv
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.support.errors import UserError, file_fault, one_line

FLOAT_DIGITS = 6  # of each reported number: far below any interval, far above rounding noise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or folder at; rename it to `path` on success.

    What was written is on the disk before it has its name. On an exception, also of renaming, it
    is removed and `path` is left as it was. One that says that the system did not let us write
    becomes a `UserError` that names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    _remove(beside)
    try:
        yield beside
        flush(beside)
        _put(beside, path)
        flush(path.parent, inside=False)
    except Exception as error:
        if said := file_fault(error, path):
            raise UserError(said) from error
        raise
    finally:
        _remove(beside)


def flush(path: Path, inside: bool = True) -> None:
    """Bring a file, or a folder's names and with `inside` all that it holds, onto the disk."""
    if inside and path.is_dir():
        for part in path.iterdir():
            flush(part)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused (`ValueError`)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write one or more rows under the keys of the first; None is an empty field."""
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, with its line breaks as they are."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def read_yaml(path: Path, advice: str) -> dict[str, Any]:
    """A YAML file's mapping, read by the library that DVC reads and writes params.yaml with.

    Raises `UserError` where there is none; `advice` is what it says to do.
    """
    from ruamel.yaml import YAML

    # In its YAML 1.2, 1e-05 is a number.
    return _read(path, "YAML", YAML(typ="safe", pure=True).load, advice)


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """A JSON file's object; `UserError` as of `read_yaml`."""
    return _read(path, "JSON", json.loads, advice)


def _read(path: Path, kind: str, parse: Callable[[str], Any], advice: str) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {advice}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line} is not UTF-8 ({error.reason}); {advice}") from None
    try:
        values = parse(text)
    except Exception as error:
        # Beside its own YAMLError YAML lets through whatever its constructors trip over: a
        # ValueError at a month 13, an AttributeError at `!!timestamp x`, a RecursionError.
        raise UserError(f"{path} is not {kind}: {one_line(error)}; {advice}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys with values; {advice}")
    return values


@contextmanager
def in_form(path: Path, advice: str) -> Iterator[None]:
    """Turn what goes wrong in reading a file's values into a `UserError` that names the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"{path} does not have the form that this version reads ({said}); {advice}"
        ) from None


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def rounded(value: float) -> float:
    """`value` to `FLOAT_DIGITS` significant digits, so that equal results are equal text."""
    return float(f"{value:.{FLOAT_DIGITS}g}")


def as_json(value: Any) -> Any:
    """What a JSON or CSV file says: rounded numbers, and null for what cannot be had (NaN).

    A tuple with names, such as an interval, is its parts by name, and null where the first of them
    cannot be had.
    """
    if isinstance(value, Mapping):
        return {name: as_json(part) for name, part in value.items()}
    if hasattr(value, "_asdict"):
        return None if math.isnan(value[0]) else as_json(value._asdict())
    if isinstance(value, float):
        return None if math.isnan(value) else rounded(value)
    return value


def _put(beside: Path, path: Path) -> None:
    """Rename; only a file can take the place of another in one step."""
    if not path.is_dir() and not beside.is_dir():
        beside.replace(path)
        return
    before = path.with_name(f".{path.name}.before.partial")
    _remove(before)
    if path.exists() or path.is_symlink():
        path.rename(before)
    try:
        beside.rename(path)
    except BaseException:
        if before.exists() or before.is_symlink():
            before.rename(path)
        raise
    _remove(before)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
