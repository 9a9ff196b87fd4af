"""`python -m benchmarks.stage NOTE FIRST STAGE …`: a stage as `python -m regrow STAGE …` runs it.

Writes to the file NOTE when the function FIRST (`module:function`) was called for the first time,
which is when the first batch begins, and at the end the most memory held. The clock is the
system's monotonic one, so that whoever started this process can tell how long it took. FIRST may
be `-`; with a `!` behind it, the process ends there.

Nothing is imported here that the stage would not import: that would be part of the time.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import runpy
import sys
import time
from types import ModuleType
from typing import Any


def main() -> None:
    """Run the stage that the arguments name."""
    note, first, *arguments = sys.argv[1:]
    found: dict[str, float] = {}
    if first != "-":
        module, _, function = first.removesuffix("!").partition(":")

        def called() -> None:
            found.setdefault("first", time.monotonic())
            if first.endswith("!"):
                write(note, found)
                os._exit(0)

        sys.meta_path.insert(0, Watch(module, function, called))
    sys.argv = ["regrow", *arguments]
    try:
        runpy.run_module("regrow", run_name="__main__", alter_sys=True)
    finally:
        write(note, found)


def write(note: str, found: dict[str, float]) -> None:
    """Write the note, with the peak of memory; every process of a stage writes one of its own."""
    from benchmarks.machine import peak_memory

    note += os.environ.get("RANK", "")
    with open(note, "w", encoding="utf-8") as file:  # noqa: PTH123, for pathlib takes a moment
        json.dump(found | {"peak_bytes": peak_memory()}, file)


class Watch(importlib.abc.MetaPathFinder):
    """When the module is imported, wrap its function."""

    def __init__(self, module: str, function: str, called: Any) -> None:
        self.module = module
        self.function = function
        self.called = called

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, with a loader that wraps when it is done."""
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            wrapped = getattr(module, self.function)

            def watched(*given: Any, **named: Any) -> Any:
                self.called()
                return wrapped(*given, **named)

            setattr(module, self.function, watched)

        loader.exec_module = exec_module
        return spec


if __name__ == "__main__":
    main()
