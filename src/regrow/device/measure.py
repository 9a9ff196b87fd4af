"""How fast a machine runs a file and what it takes: each measurement in a process of its own."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.support.environment import cpu_flags, processor
from regrow.support.errors import UserError

FIRST, PREFILL, DECODE = 32, 512, 128  # tokens
NOISY = 0.15  # of the median, between the largest and the smallest repetition
METER = Path("/sys/class/powercap")
UNITS = {
    "load_s": "seconds from the file to a context that can decode",
    "first_token_s": f"seconds from a prompt of {FIRST} tokens to the first token",
    "prefill_per_s": f"tokens a second of a prompt of {PREFILL}",
    "decode_per_s": f"tokens a second, one after the other, {DECODE} of them",
    "cpu_s": "CPU seconds of the whole process",
    "wall_s": "seconds of the whole process",
    "peak_mb": "largest resident memory of the process, 10^6 bytes",
    "joules": "energy of the processor while the process ran, of all that ran on it",
}


def measure(path: Path, threads: int) -> dict[str, float]:
    """Measure one file in this process, which should be a fresh one: the keys of `UNITS`.

    Prompts are token ids of no meaning; a model's speed does not hang on them.
    """
    from regrow.device.runtime import decode, new_context, open_model

    found: dict[str, float] = {}
    with _timed(found, "load_s", 0):
        model = open_model(path)
        context = new_context(model, threads, PREFILL)
    size = model.get_vocab().n_vocab
    prompt = [(number * 7919 + 101) % size for number in range(PREFILL)]

    def run(tokens: Sequence[int]) -> Any:
        last = len(tokens) - 1
        return decode(context, [(token, i, [0], i == last) for i, token in enumerate(tokens)])(last)

    run(prompt[:16])  # reads every weight from the disk
    context.kv_cache_clear(False)
    with _timed(found, "first_token_s", 0):
        token = int(run(prompt[:FIRST]).argmax())
    context.kv_cache_clear(False)
    with _timed(found, "prefill_per_s", PREFILL):
        decode(context, [(token, i, [0], False) for i, token in enumerate(prompt)])
        context.synchronize()
    context.kv_cache_clear(False)
    run(prompt[:FIRST])
    with _timed(found, "decode_per_s", DECODE):
        for place in range(FIRST, FIRST + DECODE):
            decode(context, [(token, place, [0], True)])
        context.synchronize()
    found["peak_mb"] = _peak_bytes() / 1e6
    return found


@contextmanager
def _timed(found: dict[str, float], name: str, tokens: int) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    found[name] = tokens / seconds if tokens else seconds


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        raise UserError("resident memory is read from /proc, which this system does not have")
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0])


def in_fresh_process(path: Path, threads: int) -> dict[str, float]:
    """`measure` in a process of its own, with the seconds and joules of the whole of it."""
    before, joules = os.times(), read_meter()
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "regrow.device.measure", path, str(threads)],
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing more is said"])[-1]
        raise UserError(f"{path} could not be measured: {said}")
    cpu = sum(getattr(after, k) - getattr(before, k) for k in ("children_user", "children_system"))
    found = {**json.loads(done.stdout.splitlines()[-1]), "wall_s": wall, "cpu_s": cpu}
    if joules is not None and (now := read_meter()) is not None and now >= joules:
        found["joules"] = now - joules
    return dict(found)


def read_meter() -> float | None:
    """Joules that the processors have counted (RAPL), or None where there is no meter to read."""
    try:
        packages = [p for p in METER.glob("intel-rapl:*") if p.name.count(":") == 1]
        counts = [int((package / "energy_uj").read_text()) for package in packages]
    except (OSError, ValueError):
        return None
    return sum(counts) / 1e6 if counts else None


def repeat(
    files: Mapping[str, Path], threads: Sequence[int], repetitions: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure files in turn, all of them once before any of them again.

    Returns:
        By file and number of threads, each figure of `UNITS`: `median`, `low` and `high`, and
        whether it is `noisy`: `high` - `low` is more than `NOISY` of the median.
    """
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for number in range(repetitions):
        for name, path in files.items():
            for count in threads:
                runs.setdefault((name, count), []).append(in_fresh_process(path, count))
        print(f"Repetition {number + 1} of {repetitions} is done.", flush=True)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, count), several in runs.items():
        found.setdefault(name, {})[str(count)] = {
            key: spread([run[key] for run in several]) for key in UNITS if key in several[0]
        }
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The median of repetitions with the smallest and the largest, and whether they agree."""
    median, low, high = statistics.median(values), min(values), max(values)
    shown = {"median": median, "low": low, "high": high}
    rounded = {name: float(f"{value:.4g}") for name, value in shown.items()}
    return {**rounded, "noisy": high - low > NOISY * median}


def describe_machine() -> dict[str, Any]:
    """The processor, its features and its load now, memory, the runtime, and the meter."""
    from importlib.metadata import version

    wanted = re.compile(r"avx|amx|fma|f16c|sve|asimd|neon|i8mm|bf16")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "features": sorted(flag for flag in cpu_flags() if wanted.search(flag)),
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6),
        "system": f"{platform.system()} {platform.machine()}",
        "runtime": f"cyllama {version('cyllama')}",
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "energy": "RAPL" if read_meter() is not None else "no meter",
    }


def machine_name(machine: Mapping[str, Any]) -> str:
    """A name for a file of results, such as `amd-epyc-2`: the processor and its cores."""
    words = re.sub(r"\(.*?\)|@.*|CPU|Processor", " ", machine["processor"])
    return "-".join([*re.findall(r"[a-z0-9]+", words.lower()), str(machine["cores"])])


if __name__ == "__main__":
    try:
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
    except UserError as error:
        sys.exit(str(error))
