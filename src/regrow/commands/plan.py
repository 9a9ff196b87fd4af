"""Print what a study takes before it runs: memory, disk, operations, time, and whether it fits."""

import os
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from regrow.plan.fit import Machine, advice
from regrow.plan.loads import Questions, trees_of
from regrow.plan.study import GIBI, SPEEDS, Rates, Row, Study, rows
from regrow.report.console import console, print_tables
from regrow.report.parts import Table
from regrow.support.errors import UserError
from regrow.support.files import in_form, read_json, write_json
from regrow.support.params import PARAMS_FILE, read_params
from regrow.support.schema import Compute, Params

TERA = 1e12
# Operations a second that are stated where none are measured. An H100 does 989 TFLOP/s in
# bfloat16 at most (its data sheet, without sparsity), of which trainings reach some 40 %.
STATED = {"cuda": 400 * TERA, "cpu": 0.04 * TERA}
START, DISK = 10.0, 0.5e9
SIZES = ("Device, GiB", "Host, GiB", "Disk, GiB")
HEAD = ("Stage", "Run", "Runs", *SIZES, "PFLOP", "Time each", "Fits")


def main(
    study: Path = PARAMS_FILE,
    devices: Annotated[int | None, typer.Option(min=1)] = None,
    memory: float | None = None,
    rate: float | None = None,
    measure: bool = False,
    out: Path | None = None,
) -> None:
    """Print what every stage of a study takes, from its configuration and questions alone.

    Args:
        study: the study's file.
        devices: how many; without it, compute.processes.
        memory: GiB a device; without it, this machine's.
        rate: TFLOP/s a device; without it, a stated one.
        measure: time a few steps and batches on this machine.
        out: a JSON file to write too.
    """
    params = read_params(study)
    if devices is not None and devices != params.compute.processes:
        asked = {"processes": devices, "shard": devices > 1}
        params = params.model_copy(update={"compute": params.compute.model_copy(update=asked)})
    machine = _machine(params.compute, devices, memory)
    config, named = _configuration(params, study)
    planned = Study(params, config, _questions(params, study), _stated(params.compute, rate))
    if measure:
        from regrow.plan.measure import measured

        planned = replace(planned, rates=measured(planned))
    found = rows(planned)
    stages = [
        {name: value for name, value in vars(row).items() if name != "peak"}
        | {"advice": advice(row, params.compute, machine)}
        for row in found
    ]
    total, notes = _total(found), _notes(planned, machine, named)
    faults = list(dict.fromkeys(row["advice"] for row in stages if row["advice"]))
    lines = [
        [*_fields(row), f"no, see {faults.index(row['advice']) + 1}" if row["advice"] else "yes"]
        for row in stages
    ]
    whole = {"stage": "all, one after the other", "what": "", **total}
    lines.append([*_fields(whole), "no" if faults else "yes"])
    print_tables([Table(str(study), HEAD, lines)])
    for note in [*(f"{number}: {fault}." for number, fault in enumerate(faults, 1)), *notes]:
        console().print(note)
    if out is not None:
        known = {"notes": notes, "machine": asdict(machine), "rates": asdict(planned.rates)}
        write_json(out, {**known, "stages": stages, "total": total})


# What is known


def _same(params: Params, *sections: str) -> bool:
    """Whether models/ and data/ are of this study: params.yaml says the same in these sections."""
    try:
        here = read_params()
    except UserError:
        return False
    return all(getattr(here, section) == getattr(params, section) for section in sections)


def _configuration(params: Params, study: Path) -> tuple[Any, str]:
    """The model's configuration, and where it is from."""
    from transformers import AutoConfig

    from regrow.model.folders import loading

    path = Path("models/base/config.json")
    if not _same(params, "model") or not path.is_file():
        path = study.with_suffix(".config.json")
    source = params.model.source
    advice = f"run `dvc repro fetch`, or put the published config.json of {source} there"
    values = read_json(path, advice)
    with loading(f"{path} is no configuration of a model"):
        config = AutoConfig.for_model(**values)
    said = f" ({values['_published']})" if "_published" in values else ""
    return config, f"{path}{said}"


def _questions(params: Params, study: Path) -> Questions:
    """How long the questions are, in tokens."""
    base, train = Path("models/base"), Path("data/questions/train.jsonl")
    if _same(params, "model", "data") and train.is_file() and base.is_dir():
        from regrow.model.folders import load_tokenizer
        from regrow.model.setup import read_trees

        _, trees = read_trees(train, load_tokenizer(base), params.prompt.format)
        return Questions(trees, f"all {len(trees)} questions of {train}")
    path = study.with_suffix(".lengths.json")
    advice = (
        "run `dvc repro fetch questions`, or put a sample of their lengths there: `lengths`, as "
        "[[context, [choice, …]], …] in tokens, and `_source`"
    )
    values = read_json(path, advice)
    with in_form(path, advice):
        trees, source = trees_of(values["lengths"]), values["_source"]
        if not trees or not all(tree.context and all(tree.branches) for tree in trees):
            raise ValueError("a length is 0")
    return Questions(trees, f"{path}, {len(trees)} questions ({source})")


def _stated(compute: Compute, rate: float | None) -> Rates:
    speed = STATED["cpu"] * compute.threads if compute.device == "cpu" else STATED["cuda"]
    source = "stated"
    if rate is not None:
        speed, source = rate * TERA, "stated by --rate"
    return Rates(dict.fromkeys(SPEEDS, speed), START, DISK, source)


def _machine(compute: Compute, devices: int | None, memory: float | None) -> Machine:
    host: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if compute.device != "cpu" and memory is None:
        import torch

        if not torch.cuda.is_available():
            raise UserError("no GPU is here: say with --memory how many GiB one has")
        memory = torch.cuda.get_device_properties(compute.device).total_memory / GIBI
    each = host if memory is None else int(memory * GIBI)
    return Machine(devices or compute.processes, each)


# What is said


def _notes(study: Study, machine: Machine, named: str) -> list[str]:
    compute, rates = study.compute, study.rates
    speeds = ", ".join(f"{name} {speed / TERA:.3g}" for name, speed in rates.speed.items())
    kind = "the machine's memory" if compute.device == "cpu" else f"{machine.devices} device(s)"
    return [
        f"Model: {study.params.model.source}; its shapes are from {named}.",
        f"Questions: {study.questions.source}.",
        f"Engine: {', '.join(f'{key} {value}' for key, value in compute)}; "
        f"{machine.memory / GIBI:.0f} GiB of {kind}.",
        f"Rates ({rates.source}): {speeds} TFLOP/s a device; {rates.start:.0f} s to start a stage; "
        f"{rates.disk / 1e9:.2g} GB/s of disk. Downloads are not counted.",
    ]


def _fields(row: dict[str, Any]) -> list[str]:
    sizes = [f"{row[key] / GIBI:.2f}" if row[key] else "" for key in ("device", "host", "disk")]
    flops = f"{row['flops'] / 1e15:.3g}" if row["flops"] else ""
    time = "" if row["seconds"] is None else str(timedelta(seconds=round(row["seconds"])))
    return [row["stage"], row["what"], str(row["runs"]), *sizes, flops, time]


def _total(found: list[Row]) -> dict[str, Any]:
    """Of all runs: the most memory; the sum of operations, time and disk, with one state."""
    return {
        "runs": sum(row.runs for row in found),
        "device": max(row.device for row in found),
        "host": max(row.host for row in found),
        "disk": sum(row.disk * row.runs for row in found) + max(row.state for row in found),
        "flops": sum(row.flops * row.runs for row in found),
        "seconds": sum((row.seconds or 0) * row.runs for row in found),
    }
