"""Where time and memory go, and what was tried against it: why a target is met or missed.

The profiler slows small operations down more than large ones, so shares of matrix products are
rather low than high. What was tried is timed without it.
"""

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import evaluate, training
from benchmarks.common import GIBI, Bench, Files
from benchmarks.contest import Contestant, Entry, NotMeasuredError, Outcome
from benchmarks.results import Measure, Note, Row
from benchmarks.worker import Prepared

GROUP = "breakdown"
PROFILED = 4  # batches: the profiler keeps each call of each operator
SIDE_BY_SIDE = 2
COMPILED = "seconds_to_compile"
"""What an operator of torch does, by the words in its name; the first that fits."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product",),
    "optimizer and gradient norm": ("_fused_adamw", "linalg_vector_norm", "_foreach"),
    "filling, adding and copying": ("fill_", "zero_", "aten::add", "copy_", "index"),
}
OTHER = "norms, rotary embedding, activations, losses and all else"


def rows(bench: Bench) -> Iterator[Row]:
    """Shares of a forward pass and of both losses' steps; memory; and what did not help."""
    few = min(bench.questions, PROFILED * bench.params.training.batch_size)
    asked, train = bench.take("test", few), bench.take("train", few)
    profiled = {
        "forward, cloze": ("evaluate", _evaluation(bench, asked)),
        "training step, cross-entropy": ("training", _training(bench, train, "ce", "profiled-ce")),
        "training step, KL from the record": (
            "training",
            _training(bench, train, "kl", "profiled-kl"),
        ),
    }
    for name, (module, settings) in profiled.items():
        entry = Entry("benchmarks.breakdown:profiled", settings | {"module": module})
        yield _shares(name, bench.contest({"ours": entry})["ours"])
    yield _start(bench)
    most = training.MOST_STEPS * bench.params.training.batch_size
    yield from _tried(bench, bench.take("train", min(bench.questions, most)))


def _evaluation(bench: Bench, files: Files) -> dict[str, Any]:
    return bench.settings(
        model=bench.teacher, questions=files.questions, labels=files.labels, format="cloze"
    )


def _training(bench: Bench, files: Files, kind: str, place: str) -> dict[str, Any]:
    scratch = bench.scratch / place
    scratch.mkdir()
    return bench.settings(
        scratch=scratch,
        student=bench.pruned(bench.params.sweep.sparsity[0]),
        teacher=bench.teacher,
        questions=files.questions,
        labels=files.labels,
        kind=kind,
    )


def _shares(name: str, outcome: Outcome) -> Row:
    name = f"where the time goes: {name}"
    try:
        values = {kind: outcome.series(kind) for kind in (*KINDS, OTHER)}
    except NotMeasuredError as fault:
        return Row(group=GROUP, name=name, not_measured=str(fault))
    measures = {
        kind: Measure(what="in matrix products", unit="%", values=found)
        for kind, found in values.items()
    }
    first, *others = measures
    return Row(
        group=GROUP,
        name=name,
        ours=measures[first],
        notes={f"% in {kind}": measures[kind].median for kind in others},
    )


def _start(bench: Bench) -> Row:
    """What a training process holds before its first step."""
    name = "distill, before its first step: memory"
    settings = bench.settings(student=bench.pruned(bench.params.sweep.sparsity[0]))
    try:
        facts = bench.once("benchmarks.breakdown:started", settings)
    except NotMeasuredError as fault:
        return Row(group=GROUP, name=name, not_measured=str(fault))
    held = facts.pop("all")
    notes: dict[str, Note] = {f"GiB after {what}": value for what, value in facts.items()}
    return Row(
        group=GROUP,
        name=name,
        ours=Measure(what="regrow", unit="GiB", values=[held]),
        notes=notes,
    )


def _tried(bench: Bench, files: Files) -> Iterator[Row]:
    """`torch.compile`, and two processes of one thread in the place of one of two."""
    targets = {
        "plain": "benchmarks.training:ours",
        "compiled": "benchmarks.breakdown:compiled",
        "pair": "benchmarks.breakdown:pair",
    }
    outcomes = bench.contest(
        {
            kind: Entry(target, _training(bench, files, "kl", kind))
            for kind, target in targets.items()
        }
    )
    plain = outcomes["plain"]
    named = {
        "compiled": "with torch.compile",
        "pair": f"{SIDE_BY_SIDE} runs side by side, a thread each",
    }
    for kind, what in named.items():
        name = f"training step, KL from the record: {what}"
        outcome = outcomes[kind]
        try:
            yield Row(
                group=GROUP,
                name=name,
                ours=Measure(what=what, unit="examples/s", values=outcome.series("examples")),
                against=Measure(what="plain", unit="examples/s", values=plain.series("examples")),
                ratio="ours / against",
                notes={COMPILED: outcome.facts[COMPILED]} if COMPILED in outcome.facts else {},
            )
        except NotMeasuredError as fault:
            yield Row(group=GROUP, name=name, not_measured=str(fault))


# Contestants


def profiled(settings: dict[str, Any]) -> Prepared:
    """Another contestant, under torch's profiler: percent of the time by kind of operator."""
    from torch.profiler import ProfilerActivity, profile

    module = {"evaluate": evaluate, "training": training}[settings["module"]]
    _, run = module.ours(settings)

    def under_profiler() -> dict[str, Any]:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            run()
        spent = dict.fromkeys((*KINDS, OTHER), 0.0)
        for event in found.key_averages():
            spent[kind_of(event.key)] += event.self_cpu_time_total
        whole = sum(spent.values())
        return {kind: 100 * value / whole for kind, value in spent.items()}

    return {}, under_profiler


def kind_of(operator: str) -> str:
    """The kind of an operator, by its name."""
    for kind, words in KINDS.items():
        if any(word in operator for word in words):
            return kind
    return OTHER


def started(settings: dict[str, Any]) -> Prepared:
    """The resident memory of a process that is about to train, in GiB."""
    facts = {}
    from regrow.model.folders import load_model
    from regrow.model.runtime import fix_runtime
    from regrow.retrain.trainer import train
    from regrow.support.schema import Params

    assert train
    facts["its imports"] = _resident()
    params = Params.model_validate(settings["params"])
    fix_runtime(params.compute, 0)
    model = load_model(Path(settings["student"]), params.compute.dtype, params.compute.device)
    # Weights are mapped: they are held once they are read.
    assert sum(float(weight.sum()) for weight in model.parameters())
    facts["reading the model"] = facts["all"] = _resident()
    return facts, dict


def compiled(settings: dict[str, Any]) -> Prepared:
    """This project's trainer on a model whose layers `torch.compile` has fused."""
    import torch

    from regrow.model import folders

    load = folders.load_model

    def load_compiled(folder: Path, dtype: str, device: str) -> Any:
        model = load(folder, dtype, device)
        if folder == Path(settings["student"]):
            layers = model.base_model
            layers.forward = torch.compile(layers.forward, dynamic=True)
        return model

    folders.load_model = load_compiled
    facts, run = training.ours(settings)
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    began = time.perf_counter()
    run()
    facts[COMPILED] = first - (time.perf_counter() - began)
    return facts, run


def pair(settings: dict[str, Any]) -> Prepared:
    """Two processes at once, of one thread each; examples a second of both together."""
    params = settings["params"]
    params |= {"compute": params["compute"] | {"threads": 1}}
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    contestants = []
    for number in range(SIDE_BY_SIDE):
        scratch = Path(settings["scratch"]) / f"side-{number}"
        scratch.mkdir()
        own = settings | {"params": params, "scratch": str(scratch)}
        contestants.append(Contestant(Entry("benchmarks.training:ours", own), variables))

    def run() -> dict[str, Any]:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            found = list(pool.map(Contestant.run, contestants))
        return {"examples": sum(one["examples"] for one in found)}

    return {}, run


def _resident() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / GIBI
    raise RuntimeError("/proc/self/status holds no VmRSS")
