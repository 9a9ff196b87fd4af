"""Print what the bytes of a run hang on, and compare it with what the committed results had."""

from collections.abc import Sequence
from pathlib import Path

from regrow.report.console import console, print_tables
from regrow.report.parts import Table
from regrow.support import environment
from regrow.support.environment import HARMLESS
from regrow.support.files import read_json, write_json
from regrow.support.params import read_params

PORTABILITY = Path("benchmarks/portability.json")
FIXED = (
    "Fixed by every stage that runs a model (src/regrow/model/runtime.py), whatever the machine: "
    "the number of threads, torch's deterministic algorithms, every seed. Not fixed, for no "
    "program can: the vector instructions that torch, MKL and oneDNN choose by processor."
)


def main(results: Path = Path("environment.json"), record: Path | None = None) -> None:
    """Say whether a run here gives the bytes of the committed results, and else what may differ.

    Args:
        results: how the results that lie here were made.
        record: write how results are made here, and compare nothing.
    """
    params = read_params()
    here = environment.describe(params.compute)
    if record is not None:
        write_json(record, here)
        return
    there = environment.read(results)
    differing = environment.differences(here, there)
    rows = []
    for name in here | there:
        sign = f"differs{', harmless' * (name in HARMLESS)}" if name in differing else ""
        rows.append([name, here.get(name, "not set"), there.get(name, "not set"), sign])
    seeded = ("data", "teacher", "prune", "sweep", "compare")
    seeds = ", ".join(f"{name}.seed {getattr(params, name).seed}" for name in seeded)
    print_tables([Table("What bytes hang on", ["", "here", str(results), ""], rows, look="words")])
    for said in (
        FIXED,
        f"Seeds, each the start of streams of its own: {seeds}.",
        bfloat16(params.compute.device),
        verdict(differing, PORTABILITY),
    ):
        console().print(said)


def bfloat16(device: str) -> str:
    """Whether `compute.mixed_precision: bfloat16` is quick here."""
    if not environment.has_bfloat16_products(device):
        return (
            f"No instructions for bfloat16 products on {device}: leave compute.mixed_precision "
            "null, for without them such a product is a hundred times slower."
        )
    return f"bfloat16 products: {device} has instructions for them."


def verdict(differing: Sequence[str], portability: Path) -> str:
    """What the differences mean for the bytes and, as far as that was measured, for accuracies."""
    telling = [name for name in differing if name not in HARMLESS]
    if not telling:
        return "Equal in all that counts: a run here gives the very bytes of these results."
    said = f"Other bytes are to be expected, for these differ: {', '.join(telling)}. "
    advice = "How much accuracies move is measured by `python -m benchmarks.portability`"
    if not portability.exists():
        return f"{said}{advice}."
    measured = read_json(portability, advice)
    largest = measured["largest"]
    return (
        f"{said}By how much, as measured in {portability} with {measured['questions']} test "
        f"questions ({', '.join(measured['settings'])}): the teacher's accuracy moved by up to "
        f"{largest['teacher']:.1f} points, a retrained model's by up to "
        f"{largest['retrained']:.1f}, and KL - CE by up to {largest['difference']:.1f}. That is "
        "another draw of training's noise, as another seed is: the intervals over seeds hold it, "
        "those of one seed do not."
    )
