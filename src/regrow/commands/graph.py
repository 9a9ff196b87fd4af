"""Draw the stages of dvc.yaml and what flows between them, as Mermaid."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regrow.support.errors import UserError
from regrow.support.files import read_yaml, write_text

BLOCK = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def main(page: Path | None = None) -> None:
    """Draw one node a stage, whatever its matrix; arrows that follow from others are left out.

    Args:
        page: a page of Markdown whose drawing to replace; without it, the drawing is printed.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        arrows = [
            # A cell's stage in dvc.yaml: `prune` of `prune@l2-0.2`.
            (source.name.partition("@")[0], end.name.partition("@")[0])
            for end, source in repo.index.graph.edges
        ]
    drawn = mermaid(read_yaml(Path("dvc.yaml"), "run this in the project's root")["stages"], arrows)
    if page is None:
        print(drawn, end="")
        return
    text = page.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise UserError(f"{page} holds no block ```mermaid to draw in; add an empty one")
    write_text(page, BLOCK.sub(lambda _: drawn, text, count=1))


def mermaid(stages: Mapping[str, Mapping[str, Any]], arrows: Sequence[tuple[str, str]]) -> str:
    """The drawing of dvc.yaml's `stages`; `arrows` lead from who writes a file to who reads it."""
    import networkx

    lines = ["flowchart LR"]
    for name, stage in stages.items():
        axes = ", ".join(stage.get("matrix", {}))
        lines.append(f'  {name}["{name}<br><small>{axes}</small>"]' if axes else f"  {name}")
    graph = networkx.transitive_reduction(networkx.DiGraph(list(arrows)))
    places = {name: place for place, name in enumerate(stages)}
    for source, end in sorted(graph.edges, key=lambda arrow: tuple(places[one] for one in arrow)):
        lines.append(f"  {source} --> {end}")
    return "\n".join(lines) + "\n"
