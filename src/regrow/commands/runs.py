"""Write the runs of the study in params.yaml for the device's pipeline."""

from pathlib import Path

from regrow.compare.study import run_names
from regrow.support.files import write_text
from regrow.support.params import read_params


def main(out: Path = Path("edge/runs.yaml")) -> None:
    """List teacher, pruned models and students of both losses, for the matrix of edge/dvc.yaml."""
    lines = [f"- {name}\n" for name in run_names(read_params().sweep)]
    note = "# The study's models, by `python -m regrow runs`; each is made in every format.\n"
    text = f"{note}runs:\n{''.join(lines)}"
    # A file that says the same is left alone.
    if not out.exists() or out.read_text(encoding="utf-8") != text:
        write_text(out, text)
