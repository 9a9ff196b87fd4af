"""dvc.yaml against the code: what each stage depends on is what it imports and reads."""

import ast
import re

import pytest

from pipeline import ROOT, SOURCE, imported_files, leaves, parameters_read, read_stages

STAGES = read_stages()
NO_DEPENDENCY = {"resume.interval"}  # it changes no result, so it reruns no stage


@pytest.mark.parametrize("name", STAGES)
def test_code_among_the_deps_is_the_import_closure(name):
    stage = STAGES[name]
    needed = imported_files(stage.module)
    assert not needed - stage.code, "add these to the deps of the stage"
    assert not stage.code - needed, "the stage does not import these: take them from its deps"


def test_packages_hold_no_code():
    # They are left out of the deps for that.
    for path in (SOURCE / "regrow").rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{path} holds more than a docstring"
        assert ast.get_docstring(ast.Module(body, [])), f"{path} holds more than a docstring"


@pytest.mark.parametrize("name", STAGES)
def test_params_are_those_that_the_stage_reads(name):
    stage = STAGES[name]
    tracked = set().union(*map(leaves, stage.params))
    read = set().union(*map(leaves, parameters_read(stage.module)))
    assert not read - tracked - NO_DEPENDENCY, "add these to the params of the stage"
    assert not tracked - read, "the stage does not read these: take them from its params"


def test_every_parameter_is_read_by_a_stage_or_is_part_of_its_command():
    tracked = {leaf for stage in STAGES.values() for key in stage.params for leaf in leaves(key)}
    for stage in STAGES.values():
        tracked |= set(re.findall(r"\$\{(\w+\.\w+)\}", stage.command)) & leaves()
    assert tracked == leaves() - NO_DEPENDENCY


def test_only_stages_read_the_parameters_as_a_whole():
    for path in (SOURCE / "regrow").glob("*.py"):
        if path.name != "params.py":
            names = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom) and node.module == "regrow.params"
                for alias in node.names
            }
            assert not names & {"Params", "read_params"}, path


@pytest.mark.parametrize("name", STAGES)
def test_the_command_names_what_the_stage_reads_and_writes(name):
    stage = STAGES[name]
    options = stage.options()
    named = {path for path in options.values() if "/" in path}
    declared = stage.data | set(stage.outs)

    def related(one, other):
        return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")

    for path in named:
        assert any(related(path, other) for other in declared), f"{path} is no dep and no out"
    # `compare` names the folder that holds its curves and its figures.
    for path in declared:
        assert any(related(path, other) for other in named | {"plots"}), f"cmd lacks {path}"


def test_no_stage_of_distillation_depends_on_labels():
    for name in ("fetch", "teacher_logits", "prune", "distill"):
        assert not [path for path in STAGES[name].deps if "labels" in path], name


def test_outputs_of_the_cache_are_ignored_by_git_at_the_root():
    # Else DVC would write .gitignore files beside them, one of them in data/predictions.
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/data/", "/models/"} <= set(ignored)
