"""The real model, killed twice and once: the bytes of the committed study's checkpoints."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conftest import ROOT

RUN = "0.2-600-0"
STARTS = ("--pruned", "models/pruned/0.2", "--questions", "data/questions/train.jsonl")
STAGES = {
    "finetune": ("finetuned", 2, ("--labels", "data/labels/train.jsonl")),
    "distill": ("distilled", 1, ("--teacher-logits", "data/teacher_logits")),
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_real_model_killed_goes_on_to_the_same_bytes(stage: str, tmp_path: Path) -> None:
    folder, kills, own = STAGES[stage]
    expected = ROOT / "models" / folder / RUN / "model.safetensors"
    if not expected.is_file():
        pytest.skip("the default study's checkpoints are not here; `make repro` makes them")
    for name in ("models", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["resume"]["interval"] = 10.0
    yaml.dump(params, tmp_path / "params.yaml")
    command = [sys.executable, "-m", "regrow", stage, *STARTS, *own, "--train-size", "600"]
    command += ["--seed", "0", "--out", "out/model", "--log", "out/log"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    draw = random.Random(stage)
    for _ in range(kills):
        with (tmp_path / "printed").open("a", encoding="utf-8") as printed:
            process = subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=printed, stderr=printed
            )
            time.sleep(draw.uniform(30, 60))
            process.send_signal(signal.SIGKILL)
            process.wait()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "goes on from its checkpoint-" in done.stdout
    assert (tmp_path / "out/model/model.safetensors").read_bytes() == expected.read_bytes()
    logged = ROOT / "plots/training" / folder / RUN
    for path in (path for path in logged.rglob("*") if path.is_file()):
        assert (tmp_path / "out/log" / path.relative_to(logged)).read_bytes() == path.read_bytes()
    assert not any((tmp_path / ".regrow").iterdir())
