"""The files of a set of results, read without the schema that wrote them: results outlive it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.support.errors import UserError

MISSING = "run `make repro` to make it, or name a folder of results that holds it"
Json = Mapping[str, Any]


def read_json(path: Path) -> Json:
    """The object in a JSON file; a `UserError` names a file that is missing or holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path} is missing; {MISSING}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {MISSING}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; {MISSING}")
    return value


@contextmanager
def in_form(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file's values into a `UserError` that names the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not have the form that this version writes "
            f"({type(error).__name__}: {error}); {MISSING}"
        ) from None
