"""Reading `params.yaml`: every fault of it is one sentence that names the key."""

import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from regrow.support.errors import UserError
from regrow.support.schema import Params

PARAMS_FILE = Path("params.yaml")
_read: dict[str, Any] = {}  # what this process read of it, by dotted key


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file; every fault is a `UserError` that names the key."""
    values = _values(path)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        faults = error.errors()
        listed = "; ".join(_sentence(fault) for fault in faults[:FAULTS])
        more = f"; and {len(faults) - FAULTS} more" if len(faults) > FAULTS else ""
        raise UserError(f"{path}: {listed}{more}") from None
    _read.clear()
    _read.update(_by_key(values))
    return params


def check_unchanged() -> None:
    """Refuse a result under DVC when a parameter that it depends on changed while it was made.

    DVC writes to dvc.lock what params.yaml says once a stage has ended, whatever the stage had
    read, and would then hold a result of the old value for one of the new.
    """
    # DVC tells its stages their names, as `finetune@0.2-600-0`, with dvc.yaml's path in front
    # where it was not started in its folder.
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2].partition("@")[0]
    if not stage or not _read:
        return
    now = dict(_by_key(_values(PARAMS_FILE)))
    tracked = _values(Path("dvc.yaml")).get("stages", {}).get(stage, {}).get("params", [])
    for key in sorted(_read.keys() | now.keys()):
        before, after = _read.get(key), now.get(key)
        if before != after and any(f"{key}.".startswith(f"{name}.") for name in tracked):
            raise UserError(
                f"{key} was changed in params.yaml while this ran, from {before} to {after}; what "
                f"was made is of {before} and is not recorded: run `dvc repro` again"
            )


def _values(path: Path) -> dict[str, Any]:
    """A YAML file's mapping, read by the library that DVC reads and writes it with."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); run this in the project's root"
        ) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line} is not UTF-8 ({error.reason})") from None
    try:
        # In its YAML 1.2, 1e-05 is a number.
        values = YAML(typ="safe", pure=True).load(text)
    except Exception as error:
        # Beside its own YAMLError it lets through whatever its constructors trip over: a
        # ValueError at a month 13, an AttributeError at `!!timestamp x`, a RecursionError.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not YAML: {reason}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold the sections {', '.join(Params.model_fields)}")
    return values


def _by_key(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _by_key(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


# What a message shows of a value and of a list of faults. A few lines of YAML can hold a list
# whose text would fill the memory, by naming lists of lists of lists.
FAULTS = 20
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 20, 20
_SHORT.maxstring = _SHORT.maxother = 200


def _sentence(fault: Any) -> str:
    key = ".".join(str(part)[:200] for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a parameter (is it misspelt?); {_allowed(fault['loc'][:-1])}"
    if fault["type"] == "missing":
        return f"{key} is missing; add it"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not key:
        return message
    given = fault["input"]
    simple = isinstance(given, str | int | float | list)
    shown = f" (it is {_SHORT.repr(given)})" if simple else ""
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _allowed(section: tuple[str | int, ...]) -> str:
    model: Any = Params
    for part in section:
        # `evaluate.transfer` is a mapping, whose keys are names of the person's own.
        of_name = isinstance(model, type) and issubclass(model, BaseModel)
        model = model.model_fields[part].annotation if of_name else model.__args__[1]
    name = ".".join(str(part) for part in section) or "params.yaml"
    return f"{name} holds {', '.join(model.model_fields)}"
