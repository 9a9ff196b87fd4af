"""`python -m benchmarks.worker MODULE:FUNCTION SETTINGS`: a contestant in its own process.

The function is given the settings (JSON) once; it loads what it needs and returns what is known by
then, and a function that does the timed work once. Each line on standard input asks for one run,
and each answer is one line of JSON on standard output. Whatever libraries print goes to standard
error.
"""

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.machine import peak_memory

Run = Callable[[], dict[str, Any]]
Prepared = tuple[dict[str, Any], Run]


def main() -> None:
    """Prepare, then run as often as asked."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    prepare: Callable[[dict[str, Any]], Prepared] = getattr(importlib.import_module(module), name)
    facts, run = prepare(json.loads(sys.argv[2]))
    print(json.dumps(facts), file=answers, flush=True)
    for _ in sys.stdin:
        gc.collect()
        _forget_peak()
        found = run()
        print(json.dumps(found | {"peak_bytes": peak_memory()}), file=answers, flush=True)


def _forget_peak() -> None:
    """Make the peak that is read next that of the next run (Linux)."""
    with suppress(OSError):  # not allowed everywhere; then it is the peak of all runs
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main()
