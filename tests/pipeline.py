"""What dvc.yaml says of each stage, and what the code says."""

import ast
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regrow.support.schema import Params

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "regrow"
ROOMS = (
    *("support", "tasks", "plot", "model", "sources", "prune", "retrain", "distill", "evaluate"),
    *("importance", "compare", "device", "report", "plan", "stages", "commands"),
)
"""Ground floor first."""


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


def closure(stage: str) -> set[str]:
    """Files that a stage's own file may import, also inside functions, and itself."""
    found: set[Path] = set()
    waiting = [PACKAGE / "stages" / f"{stage}.py"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imports(path)
    return {path.relative_to(ROOT).as_posix() for path in found}


def modules(path: Path, at_once: bool = False) -> list[str]:
    """What a file imports, inside functions too, or only what it does `at_once`."""
    found: list[str] = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
            found.append(str(node.module))
    return list(dict.fromkeys(found))


def imports(path: Path, at_once: bool = False) -> list[Path]:
    """Files of this package that a file imports; a package's own file holds no code."""
    files = [SOURCE / f"{module.replace('.', '/')}.py" for module in modules(path, at_once)]
    return [file for file in files if file.is_file()]


def room(path: Path) -> str:
    """The room that a file of this package lies in."""
    return path.relative_to(PACKAGE).parts[0]


# Parameters


def leaves(key: str = "") -> set[str]:
    """The parameters that a key of params.yaml stands for: itself, or those of a whole section.

    `finetune.learning_rate.${item.score}` is one rate of the parameter `finetune.learning_rate`.
    """
    key = key.partition(".${")[0]
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
    tree = ast.parse((PACKAGE / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
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
