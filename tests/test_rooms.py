"""The rooms of src/regrow, and dvc.yaml against them: who imports, reads and names what."""

import ast
import re
import subprocess
import sys
from functools import cache

import pytest
import yaml

from pipeline import (
    PACKAGE,
    ROOMS,
    ROOT,
    closure,
    imports,
    leaves,
    modules,
    parameters_read,
    read_stages,
    room,
)

STAGES = read_stages()
NO_DEPENDENCY = {"resume.interval"}  # it changes no result, so it reruns no stage
# With `prune.steps` above 1 these two prune on between trainings. The stage `prune` then writes the
# hash of this room into its output, on which both depend, so that an edit of it reruns them; with
# one step they never run it, and an edit of a score must not rerun them (tests/test_gradual.py).
THROUGH_ITS_OUTPUT = {"finetune": "src/regrow/prune/", "distill": "src/regrow/prune/"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
MODULES = [path for path in FILES if path.name != "__init__.py"]


def name(path):
    return path.relative_to(PACKAGE).as_posix()


# The rooms


def test_every_file_lies_in_a_room():
    assert {room(path) for path in FILES} <= set(ROOMS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_arrow_runs_up_and_so_there_is_no_circle():
    up = [
        f"{name(path)} imports {name(imported)}"
        for path in MODULES
        for imported in imports(path)
        if ROOMS.index(room(imported)) > ROOMS.index(room(path))
    ]
    assert not up


def test_stages_and_commands_do_not_import_each_other():
    # A stage is a file of its own in dvc.yaml; what two of them share lies in a room.
    across = [
        f"{name(path)} imports {name(imported)}"
        for path in MODULES
        for imported in imports(path)
        if room(imported) in ("stages", "commands") and imported != path
    ]
    assert not across


def test_packages_hold_no_code():
    # They are among no stage's imports for that.
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1 and ast.get_docstring(ast.Module(body, [])), f"{path} holds code"


def test_only_stages_and_commands_read_the_parameters():
    for path in MODULES:
        # `plan` is given a study's parameters as a whole, for it is about all of its stages.
        if room(path) not in ("support", "stages", "commands", "plan"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            assert not names & {"Params", "read_params"}, path


PATHS = re.compile(r"(data|models|metrics|plots|results|studies)/|(params|dvc)\.yaml$|dvc\.lock$")


def test_only_stages_and_commands_know_paths():
    # `support` reads params.yaml for them, and `report` what a folder of results is made of.
    named = [
        f"{name(path)}, line {node.lineno}: {node.value}"
        for path in MODULES
        if room(path) not in ("support", "report", "stages", "commands")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and PATHS.match(node.value)
    ]
    assert not named


def test_no_module_is_long():
    long = {name(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert not {path: lines for path, lines in long.items() if lines > 350}
    assert len((ROOT / "dvc.yaml").read_text("utf-8").splitlines()) <= 350


# The stages


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_code_among_the_deps_is_the_import_closure(stage):
    exempt = ("src/regrow/support/", THROUGH_ITS_OUTPUT.get(stage.name, "src/regrow/support/"))
    needed = {path for path in closure(stage.module) if not path.startswith(exempt)}

    def covers(dep, path):
        return path == dep or path.startswith(f"{dep}/")

    lacking = {path for path in needed if not any(covers(dep, path) for dep in stage.code)}
    assert not lacking, "add these to the deps of the stage"
    idle = {dep for dep in stage.code if not any(covers(dep, path) for path in needed)}
    assert not idle, "the stage does not import these: take them from its deps"
    assert all((ROOT / dep).exists() for dep in stage.code)


HEAVY = {
    "torch": {
        *("teacher", "teacher_logits", "prune", "importance", "finetune", "distill", "evaluate")
    },
    "transformers": {"prune", "importance"},
    "matplotlib": {"importance"},
    "datasets": set(),
    "sklearn": set(),
}
"""What takes long to import, and the stages that do so whatever they are told to do."""


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_imports_stay_out_of_stages_that_do_not_need_them(library):
    @cache
    def loads(path):
        named = {module.partition(".")[0] for module in modules(path, at_once=True)}
        return library in named or any(map(loads, imports(path, at_once=True)))

    stages = {stage.module for stage in STAGES.values()}
    assert {name for name in stages if loads(PACKAGE / "stages" / f"{name}.py")} == HEAVY[library]


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_params_are_those_that_the_stage_reads(stage):
    tracked = set().union(*map(leaves, stage.params))
    read = set().union(*map(leaves, parameters_read(stage.module)))
    assert not read - tracked - NO_DEPENDENCY, "add these to the params of the stage"
    assert not tracked - read, "the stage does not read these: take them from its params"


def test_a_rate_is_tracked_for_the_score_of_the_run_alone():
    described = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    for loss in ("finetune", "distill"):
        assert f"{loss}.learning_rate.${{item.score}}" in described[loss]["params"]


def test_every_parameter_is_read_by_a_stage_or_is_part_of_its_command():
    tracked = {leaf for stage in STAGES.values() for key in stage.params for leaf in leaves(key)}
    for stage in STAGES.values():
        tracked |= set(re.findall(r"\$\{(\w+\.\w+)\}", stage.command)) & leaves()
    assert tracked == leaves() - NO_DEPENDENCY


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_the_command_names_what_the_stage_reads_and_writes(stage):
    named = {path for path in stage.options().values() if "/" in path}
    declared = stage.data | set(stage.outs)

    def related(one, other):
        return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")

    for path in named:
        assert any(related(path, other) for other in declared), f"{path} is no dep and no out"
    for path in declared:
        if not path.startswith("data/sources/"):  # links for DVC to follow; no stage reads them
            assert any(related(path, other) for other in named), f"cmd lacks {path}"


def test_no_stage_of_distillation_depends_on_labels():
    for stage in ("fetch", "teacher_logits", "prune", "distill"):
        named = [path for path in STAGES[stage].deps if "labels" in path]
        # `distill-all.jsonl` is empty, as tests of the stage `questions` hold.
        own = ["data/labels/distill-${distill.branches}.jsonl"] if stage == "distill" else []
        assert named == own, stage


# The drawing


def graph(*options):
    command = [sys.executable, "-m", "regrow", "graph", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_graph_in_the_docs_is_that_of_dvc_yaml():
    done = graph()
    assert done.returncode == 0, done.stderr
    assert set(STAGES) <= set(re.findall(r"^  (\w+)", done.stdout, re.MULTILINE))
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    assert f"```mermaid\n{done.stdout}```\n" in page, "run `regrow graph --page docs/design.md`"


def test_a_page_without_a_drawing_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Nothing.\n", "utf-8")
    done = graph("--page", str(page))
    assert done.returncode == 1 and "holds no block ```mermaid" in done.stderr
    assert page.read_text("utf-8") == "Nothing.\n"
