"""What dvc.yaml says of each stage, and what the code says."""

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regrow.support.schema import Params

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, not yet multiplied by its matrix."""

    name: str
    command: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module in `regrow.stages` that its command runs."""
        words = self.command.split()
        return words[words.index("regrow") + 1]

    @property
    def code(self) -> set[str]:
        """Its dependencies on code."""
        return {path for path in self.deps if path.startswith("src/")}

    @property
    def data(self) -> set[str]:
        """Its dependencies on data."""
        return set(self.deps) - self.code

    def options(self) -> dict[str, str]:
        """Its command's options."""
        words = self.command.split()
        return {word: value for word, value in itertools.pairwise(words) if word.startswith("--")}


def read_stages(path: Path = ROOT / "dvc.yaml") -> dict[str, Stage]:
    """Read the stages of a dvc.yaml."""
    described = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    return {
        name: Stage(
            name,
            stage["cmd"],
            tuple(stage["deps"]),
            tuple(stage["params"]),
            tuple(
                next(iter(out)) if isinstance(out, dict) else out
                for kind in ("outs", "metrics", "plots")
                for out in stage.get(kind, [])
            ),
        )
        for name, stage in described.items()
    }


# Code


def imported_files(stage: str) -> set[str]:
    """Files of this package that `python -m regrow STAGE` may import, also inside functions."""
    found: set[Path] = set()
    modules = ["regrow.__main__", f"regrow.stages.{stage}"]
    while modules:
        path = _file(modules.pop())
        if path is not None and path not in found:
            found.add(path)
            modules += _imports(path)
    return {path.relative_to(ROOT).as_posix() for path in found}


def _file(module: str) -> Path | None:
    path = SOURCE / f"{module.replace('.', '/')}.py"
    return path if path.is_file() else None


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# Parameters


def leaves(key: str = "") -> set[str]:
    """The parameters that a key of params.yaml stands for: itself, or those of a whole section."""
    section: Any = Params
    for part in key.split(".") if key else []:
        section = section.model_fields[part].annotation
    if not hasattr(section, "model_fields"):
        return {key}
    return set().union(*(leaves(f"{key}.{name}" if key else name) for name in section.model_fields))


def parameters_read(stage: str) -> set[str]:
    """Keys that a stage reads: `params.SECTION.KEY` or `read_params().SECTION` in its module.

    A section handed on as a whole counts as read as a whole. `params` itself may only be handed
    to functions of the same module.
    """
    tree = ast.parse((SOURCE / "regrow" / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    reader = _Reader({node.name for node in tree.body if isinstance(node, ast.FunctionDef)})
    reader.visit(tree)
    return reader.keys


class _Reader(ast.NodeVisitor):
    def __init__(self, functions: set[str]) -> None:
        self.functions = functions
        self.keys: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names = []
        base: ast.expr = node
        while isinstance(base, ast.Attribute):
            names.append(base.attr)
            base = base.value
        if _is_params(base):
            self.keys.add(".".join(reversed(names)))
        else:
            self.visit(base)

    def visit_Call(self, node: ast.Call) -> None:
        local = isinstance(node.func, ast.Name) and node.func.id in self.functions
        for part in (node.func, *node.args, *(keyword.value for keyword in node.keywords)):
            if not (local and _is_params(part)):
                self.visit(part)

    def visit_Assign(self, node: ast.Assign) -> None:
        # `params = read_params()`; anything else that takes all of it is found by visit_Name.
        if not (isinstance(node.value, ast.Call) and _is_params(node.value)):
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        assert node.id != "params", f"line {node.lineno}: params is handed on as a whole"


def _is_params(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "read_params"
    return isinstance(node, ast.Name) and node.id == "params"
