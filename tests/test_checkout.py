"""The tests themselves, where a checkout lies in a place that is not like a developer's home."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import FOLDER, copy_project

PASSED_THERE = (
    "test_faults.py::test_an_output_folder_without_the_right_to_write_is_named",
    "test_pipeline.py::test_a_number_as_dvc_writes_it_is_a_number",
)


def test_they_pass_in_a_folder_of_ones_own_without_a_home_and_without_a_name_for_git(
    tmp_path: Path,
) -> None:
    """As for root in a container: the folder is closed to all others."""
    root = tmp_path / "closed" / FOLDER
    copy_project(root, "pyproject.toml", "tests")
    root.parent.chmod(0o700)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "HOME" and not name.startswith(("GIT_", "XDG_", "PYTEST_"))
    }
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        (
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *(
                "--basetemp",
                str(tmp_path / "of the tests"),
                *(f"tests/{one}" for one in PASSED_THERE),
            ),
        ),
        cwd=root,
        env=kept | nobody | {"PYTHONPATH": "src"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(PASSED_THERE)} passed" in done.stdout
