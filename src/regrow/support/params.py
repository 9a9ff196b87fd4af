"""Reading `params.yaml`: every fault of it is one sentence that names the key."""

import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from regrow.support.errors import UserError
from regrow.support.files import read_yaml
from regrow.support.schema import Params

PARAMS_FILE = Path("params.yaml")
ADVICE = f"run this in the project's root; it holds {', '.join(Params.model_fields)}"
_read: dict[Path, dict[str, Any]] = {}  # the file that this process read, by dotted key


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file; every fault is a `UserError` that names the key."""
    values = read_yaml(path, ADVICE)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        faults = error.errors()
        listed = "; ".join(_sentence(fault) for fault in faults[:FAULTS])
        more = f"; and {len(faults) - FAULTS} more" if len(faults) > FAULTS else ""
        raise UserError(f"{path}: {listed}{more}") from None
    _read.clear()
    _read[path] = dict(by_key(values))
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
    file, known = next(iter(_read.items()))
    now = dict(by_key(read_yaml(file, ADVICE)))
    described = read_yaml(Path("dvc.yaml"), ADVICE)["stages"].get(stage, {})
    named: list[str] = []
    for entry in described.get("params", []):
        of_file = entry if isinstance(entry, dict) else {PARAMS_FILE.as_posix(): [entry]}
        named += of_file.get(file.as_posix(), [])
    # `finetune.learning_rate.${item.score}` names one rate of those that are compared here.
    tracked = [name.partition(".${")[0] for name in named]
    for key in sorted(known.keys() | now.keys()):
        before, after = known.get(key), now.get(key)
        if before != after and any(f"{key}.".startswith(f"{name}.") for name in tracked):
            raise UserError(
                f"{key} was changed in params.yaml while this ran, from {before} to {after}; what "
                f"was made is of {before} and is not recorded: run `dvc repro` again"
            )


def by_key(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by their dotted keys; a section that holds none is a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from by_key(value, f"{section}{name}.")
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
