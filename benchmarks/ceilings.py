"""What this machine can do at most: matrix products in float32, and memory."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Bench
from benchmarks.contest import Entry, Outcome
from benchmarks.results import Measure, Row
from benchmarks.worker import Prepared

LARGE = (2048, 4096)
TOKENS = 2048  # what a batch of `evaluate` holds
LOGIT_ROWS = 512
NAME = "fp32 matrix product"


def rows(bench: Bench) -> Iterator[Row]:
    """The rate of each product, and of reading, copying and adding in memory."""
    settings = bench.settings(model=bench.teacher, tiny=bench.tiny)
    outcome = bench.contest({"ceilings": Entry("benchmarks.ceilings:everything", settings)})[
        "ceilings"
    ]
    for name in outcome.facts.get("names", []):
        unit = "GFLOP/s" if name.startswith(NAME) else "GB/s"
        yield Row(
            group="ceilings",
            name=name,
            ours=Measure(what="torch", unit=unit, values=outcome.series(name)),
            notes={"cpu_capability": outcome.facts["capability"]},
        )
    if outcome.fault is not None:
        yield Row(group="ceilings", name=NAME, not_measured=outcome.fault)


def entry(bench: Bench) -> Entry:
    """A contestant that gives the ceiling of a contest: the fastest product, in the same rounds."""
    settings = bench.settings(model=bench.teacher, tiny=bench.tiny)
    return Entry("benchmarks.ceilings:fastest", settings)


def ceiling(outcome: Outcome) -> Measure:
    """The rate of the fastest product in each round."""
    return Measure(
        what="fastest fp32 matrix product", unit="GFLOP/s", values=outcome.series("rate")
    )


def everything(settings: dict[str, Any]) -> Prepared:
    """A contestant that measures all of it in a run."""
    import torch

    torch.set_num_threads(settings["params"]["compute"]["threads"])
    products = _products(settings)
    size = 2**20 if settings["tiny"] else 2**27  # floats: 4 MiB, half a GiB
    memory = _memory(size)

    def run() -> dict[str, Any]:
        found = {name: _rate(work, count, settings) for name, (work, count) in products.items()}
        return found | {
            name: _rate(work, count, settings) for name, (work, count) in memory.items()
        }

    names = [*products, *memory]
    return {"names": names, "capability": torch.backends.cpu.get_cpu_capability()}, run


def fastest(settings: dict[str, Any]) -> Prepared:
    """A contestant that gives the rate of the fastest of all products."""
    import torch

    torch.set_num_threads(settings["params"]["compute"]["threads"])
    products = _products(settings)

    def run() -> dict[str, Any]:
        return {"rate": max(_rate(work, count, settings) for work, count in products.values())}

    return {}, run


Work = tuple[Callable[[], object], float]


def _products(settings: dict[str, Any]) -> dict[str, Work]:
    """Products of this model's shapes, of its output matrix, and large ones; with operations."""
    import torch

    config = json.loads((Path(settings["model"]) / "config.json").read_text(encoding="utf-8"))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    shapes = [
        (TOKENS, hidden, config["num_attention_heads"] * head),
        (TOKENS, hidden, config["num_key_value_heads"] * head),
        (TOKENS, hidden, inner),
        (TOKENS, inner, hidden),
        (LOGIT_ROWS, hidden, config["vocab_size"]),
        *((size, size, size) for size in LARGE),
    ]
    if settings["tiny"]:
        shapes = [(min(m, 128), min(k, 128), min(n, 128)) for m, k, n in shapes]
    works: dict[str, Work] = {}
    generator = torch.Generator().manual_seed(0)
    for m, k, n in shapes:
        left = torch.randn(m, k, generator=generator)
        right = torch.randn(n, k, generator=generator)  # as a linear layer holds it
        out = torch.empty(m, n)

        def work(left: Any = left, right: Any = right, out: Any = out) -> object:
            return torch.mm(left, right.T, out=out)

        works[f"{NAME}, {m} x {k} x {n}"] = (work, 2 * m * k * n / 1e9)
    return works


def _memory(size: int) -> dict[str, Work]:
    """Reading, copying and adding arrays of `size` floats; with the bytes read and written."""
    import torch

    first, second, out = torch.ones(size), torch.ones(size), torch.empty(size)
    gigabytes = size * 4 / 1e9
    return {
        "memory, read": (first.sum, gigabytes),
        "memory, copy": (lambda: out.copy_(first), 2 * gigabytes),
        "memory, add two": (lambda: torch.add(first, second, out=out), 3 * gigabytes),
    }


def _rate(work: Callable[[], object], amount: float, settings: dict[str, Any]) -> float:
    """How much of `amount` is done a second: the best of three, after one that warms up."""
    work()
    best = 0.0
    for _ in range(3):
        done, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < (0.001 if settings["tiny"] else 0.1):
            work()
            done += 1
        best = max(best, done * amount / passed)
    return best
