"""Tell causes apart: paired differences between runs of several studies, from their results."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.compare.controls import controls_json, read_answers, read_controls, read_settings
from regrow.report.words import interval, markdown, quantity
from regrow.support.files import write_json

HEAD = ("Question", "Difference", "Accuracy, points", "NLL, nats", "p", "p, Holm", "Verdict")


def main(
    results: Annotated[Path, typer.Option(help="Folder of the studies' results.")],
    controls: Annotated[Path, typer.Option(help="YAML file that names arms and contrasts.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Write every contrast's paired difference, and print them as Markdown tables."""
    asked = read_controls(controls)
    settings = read_settings(results / next(iter(asked.arms.values())).study / "params.yaml")
    found = controls_json(results, asked, read_answers(results, asked, settings), settings)
    write_json(out, found)
    arms = [
        [name, interval(arm["accuracy"]), quantity(arm["nll"], "choices")]
        for name, arm in found["arms"].items()
    ]
    print(markdown(("Arm", "Accuracy, %", "NLL, nats"), arms), end="\n\n")
    contrasts = [
        [
            contrast["question"],
            f"{contrast['arm']} - {contrast['other']}",
            interval(contrast["accuracy"], "+"),
            quantity(contrast["nll"], "choices", "+"),
            *(
                "cannot say" if p is None else f"{p:.2g}"
                for p in (contrast["p"], contrast["holm_p"])
            ),
            contrast["verdict"],
        ]
        for contrast in found["contrasts"]
    ]
    print(markdown(HEAD, contrasts))
