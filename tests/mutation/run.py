"""Would the tests notice a mistake? Mutants of the modules in modules.yaml, and how many they kill.

cosmic-ray changes one operator, number, comparison or the like at a time, and the module's own
tests run on the changed code: a mutant that fails them is killed. What the tests do not notice is
either not tested or no mistake (equivalent.yaml lists those, with the reason).

`make mutation` runs a seeded sample of all mutants.
"""

import argparse
import ast
import importlib.metadata
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, WorkerOutcome, WorkItem, WorkResult
from scipy.stats import binomtest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PRELOADED = ROOT / "tests" / "preloaded.py"
LOADED = (
    "_pytest.assertion.rewrite",
    "hypothesis.extra.numpy",
    "mapie.classification",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.calibration",
    "sklearn.metrics",
    "transformers.models.gemma2.modeling_gemma2",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "transformers.models.mistral.modeling_mistral",
    "transformers.models.olmo2.modeling_olmo2",
    "transformers.models.opt.modeling_opt",
    "transformers.models.qwen3.modeling_qwen3",
    "yaml",
)
"""What the tests of these modules import, loaded once for all mutants."""


@dataclass(frozen=True)
class Module:
    """A module under test, in a copy of the project of its own."""

    name: str
    folder: Path
    tests: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def session(self) -> Path:
        """cosmic-ray's list of mutants and results."""
        return self.folder / "session.sqlite"

    @property
    def path(self) -> str:
        """The file that is changed."""
        return f"src/regrow/{self.name}.py"

    @property
    def command(self) -> str:
        """How its tests are run: as `make test` does, up to the first that fails."""
        options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=ci", "--tb=line"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        left_out = [f"--deselect={file}::{test}" for file in self.tests for test in self.without]
        program = [sys.executable, "-S", "-E", str(PRELOADED), "-m", "pytest"]
        return shlex.join([*program, *self.tests, *options, *left_out])


@dataclass(frozen=True)
class Mutant:
    """A change, and what became of it: killed, timeout or survived."""

    module: str
    operator: str
    line: int
    before: str
    after: str
    outcome: str


def main() -> None:
    """Run the sample, print the survivors, and write the figures."""
    settings = yaml.safe_load((HERE / "modules.yaml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=[], help="these alone; nothing is written")
    parser.add_argument("--sample", type=int, default=settings["sample"], help="mutants to run")
    parser.add_argument("--jobs", type=int, default=2, help="modules at a time")
    parser.add_argument("--out", type=Path, help="where the figures go")
    asked = parser.parse_args()
    chosen = {
        name: values
        for name, values in settings["modules"].items()
        if name in (asked.modules or settings["modules"])
    }
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as short:
        scratch = Path(short)
        modules = [prepared(name, values, scratch / name) for name, values in chosen.items()]
        population = choose(modules, asked.sample, settings["seed"])
        with (
            preloaded(scratch / "socket") as environment,
            ThreadPoolExecutor(asked.jobs) as pool,
        ):
            # The longest first, so that the processors end together.
            order = sorted(modules, key=lambda module: -population[module.name])
            list(pool.map(lambda module: run(module, settings["patience"], environment), order))
        mutants = [mutant for module in modules for mutant in results(module)]
    equivalent = yaml.safe_load((HERE / "equivalent.yaml").read_text(encoding="utf-8"))
    found = figures(mutants, population, equivalent)
    found["seed"] = settings["seed"]
    found["minutes"] = round((time.monotonic() - started) / 60, 1)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    print(text)
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")


def prepared(name: str, values: dict[str, Any], folder: Path) -> Module:
    """A copy of the project, and cosmic-ray's list of the module's mutants in it."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return Module(name, folder, tuple(values["tests"]), tuple(values["without"]))


def choose(modules: Sequence[Module], sample: int, seed: int) -> dict[str, int]:
    """Have cosmic-ray list all mutants, and skip those not drawn; return how many there are."""
    listed: list[tuple[Module, WorkItem]] = []
    for module in modules:
        write_config(module, 1)
        cosmic_ray(module, "init", os.environ)
        source = (module.folder / module.path).read_text(encoding="utf-8")
        inside = annotations(source)
        with use_db(module.session, WorkDB.Mode.open) as session:
            for item in session.work_items:
                if any(first <= spec_of(item).start_pos < last for first, last in inside):
                    skip(session, item)
                else:
                    listed.append((module, item))
    listed.sort(key=lambda entry: (entry[0].name, *place(spec_of(entry[1]))))
    drawn = random.Random(seed).sample(listed, min(sample, len(listed)))
    kept = {(module.name, item.job_id) for module, item in drawn}
    for module in modules:
        with use_db(module.session, WorkDB.Mode.open) as session:
            for owner, item in listed:
                if owner is module and (module.name, item.job_id) not in kept:
                    skip(session, item)
    return dict(Counter(module.name for module, _ in listed))


def place(spec: MutationSpec) -> tuple[Any, ...]:
    """What tells the mutants of a module apart, in the same order every time."""
    arguments = json.dumps(spec.operator_args, sort_keys=True)
    return spec.operator_name, arguments, spec.occurrence


def spec_of(item: WorkItem) -> MutationSpec:
    """The one change of a mutant."""
    (spec,) = item.mutations
    return spec


def skip(session: WorkDB, item: WorkItem) -> None:
    """Mark a mutant as not to be run."""
    session.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where types stand; `int | None` with another operator is a mistake that Python itself finds.

    To count them as killed would flatter the tests.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr):
                assert part.end_lineno is not None and part.end_col_offset is not None
                first = (part.lineno, part.col_offset)
                found.append((first, (part.end_lineno, part.end_col_offset)))
    return found


def write_config(module: Module, timeout: int) -> None:
    """cosmic-ray's settings for a module."""
    (module.folder / "session.toml").write_text(
        f"[cosmic-ray]\n"
        f'module-path = "{module.path}"\n'
        f"timeout = {timeout}.0\n"
        f"excluded-modules = []\n"
        f"test-command = {json.dumps(module.command)}\n"
        f'[cosmic-ray.distributor]\nname = "local"\n',
        encoding="utf-8",
    )


def cosmic_ray(module: Module, what: str, environment: Any) -> None:
    """`cosmic-ray init` or `cosmic-ray exec`."""
    subprocess.run(
        [sys.executable, "-m", "cosmic_ray.cli", what, "session.toml", "session.sqlite"],
        cwd=module.folder,
        env=environment,
        check=True,
    )


@contextmanager
def preloaded(address: Path) -> Iterator[dict[str, str]]:
    """The environment in which tests run in forks of a process that has torch loaded."""
    environment = {
        **os.environ,
        "PYTHONPATH": "src",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PRELOADED_PYTHON": str(address),
    }
    command = [sys.executable, str(PRELOADED), "--serve", str(address), *LOADED]
    server = subprocess.Popen(command, env=environment)
    try:
        while not address.exists():
            if server.poll() is not None:
                sys.exit("mutation: the process that runs the tests did not start")
            time.sleep(0.1)
        yield environment
    finally:
        server.kill()
        server.wait()


def run(module: Module, patience: int, environment: dict[str, str]) -> None:
    """Run a module's mutants; its tests must pass on the unchanged code, before and after."""
    timeout = max(30, math.ceil(patience * unchanged(module, environment)))
    write_config(module, timeout)
    # cosmic-ray ends the process that waits for the tests, and not the fork that runs them.
    cosmic_ray(module, "exec", environment | {"PRELOADED_SECONDS": str(timeout + 5)})
    unchanged(module, environment)


def unchanged(module: Module, environment: dict[str, str]) -> float:
    """How long the module's tests take without a mutant.

    Ends everything where they fail then: they would kill every mutant.
    """
    started = time.monotonic()
    done = subprocess.run(
        shlex.split(module.command),
        cwd=module.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"mutation: the tests of {module.name} fail as it is:\n{done.stdout}{done.stderr}")
    seconds = time.monotonic() - started
    print(f"{module.name}: {seconds:.1f} s unchanged", file=sys.stderr)
    return seconds


def results(module: Module) -> list[Mutant]:
    """What became of the mutants that were run."""
    with use_db(module.session, WorkDB.Mode.open) as session:
        done = sorted(session.completed_work_items, key=lambda pair: place(spec_of(pair[0])))
    ran = [pair for pair in done if pair[1].worker_outcome != WorkerOutcome.SKIPPED]
    # A change that cosmic-ray itself fails to make (of exceptions listed behind a star) is none.
    made = [(item, result) for item, result in ran if result.diff is not None]
    if len(made) < len(ran):
        print(f"{module.name}: {len(ran) - len(made)} could not be made", file=sys.stderr)
    return [mutant(module, spec_of(item), result) for item, result in made]


def mutant(module: Module, spec: MutationSpec, result: WorkResult) -> Mutant:
    """A mutant's change and outcome, from cosmic-ray's record.

    A run that neither passed nor says that a test failed shows nothing, and ends everything.
    """
    output = result.output or ""
    if output == "timeout":
        outcome = "timeout"
    elif not result.is_killed:
        outcome = "survived"
    elif re.search(r"^(FAILED|ERROR) ", output, re.MULTILINE):
        outcome = "killed"
    else:
        sys.exit(f"mutation: no result of {module.name} {spec}:\n{result.diff}\n{output}")
    lines = (result.diff or "").splitlines()
    before, after = (
        " ".join(line[1:].strip() for line in lines if re.match(rf"\{sign}(?!\{sign})", line))
        for sign in "-+"
    )
    operator = spec.operator_name.removeprefix("core/")
    return Mutant(module.name, operator, spec.start_pos[0], before, after, outcome)


def figures(
    mutants: Sequence[Mutant], population: dict[str, int], equivalent: Sequence[dict[str, str]]
) -> dict[str, Any]:
    """The counts of each module and of all, the kill rates, and the survivors."""
    reasons = {(one["module"], one["before"], one["after"]): one["reason"] for one in equivalent}
    counts = {
        name: counted([one for one in mutants if one.module == name], total, reasons)
        for name, total in population.items()
    }
    survivors = [
        {
            "module": one.module,
            "line": one.line,
            "before": one.before,
            "after": one.after,
            "equivalent": reasons.get((one.module, one.before, one.after)),
        }
        for one in mutants
        if one.outcome == "survived"
    ]
    return {
        "cosmic_ray": importlib.metadata.version("cosmic-ray"),
        "total": counted(mutants, sum(population.values()), reasons),
        "modules": counts,
        "survivors": survivors,
    }


def counted(
    mutants: Sequence[Mutant], population: int, reasons: dict[tuple[str, str, str], str]
) -> dict[str, Any]:
    """Counts, and the share killed with its exact 95 % interval; a timeout is a kill.

    Survivors that are equivalent count as survivors.
    """
    outcomes = Counter(one.outcome for one in mutants)
    survived = [one for one in mutants if one.outcome == "survived"]
    killed = len(mutants) - len(survived)
    interval = binomtest(killed, len(mutants)).proportion_ci(0.95, "exact") if mutants else None
    return {
        "mutants": population,
        "sampled": len(mutants),
        "killed": outcomes["killed"],
        "timeout": outcomes["timeout"],
        "survived": len(survived),
        "equivalent": sum((one.module, one.before, one.after) in reasons for one in survived),
        "kill_rate": round(killed / len(mutants), 4) if mutants else None,
        "interval": [round(interval.low, 4), round(interval.high, 4)] if interval else None,
    }


if __name__ == "__main__":
    main()
