"""Keeping a study's results, and the report's and the controls' view of them."""

import yaml

from regrow.support.params import read_params


def test_results_are_those_of_the_sweep_alone(study) -> None:
    study.set(sweep__sparsity=[0.5])
    study.repro()
    study.run("python", "-m", "regrow", "doctor", "--record", "environment.json", PYTHONPATH="src")
    done = study.run("python", "-m", "regrow", "collect", "--out", "results/mine", PYTHONPATH="src")
    assert not done.stdout
    kept = study.root / "results" / "mine"
    assert read_params(kept / "params.yaml").sweep.sparsity == [0.5]
    files = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    assert {"metrics/compare/claims.json", "metrics/importance.json"} <= files
    assert "metrics/evaluate/pruned/l2-0.5.json" in files
    assert "predictions/distill/l2-0.5-8-0.parquet" in files
    assert "plots/training/finetune/l2-0.5-8-0/plots/metrics/loss.tsv" in files
    assert not [path for path in files if "0.25" in path or "safetensors" in path]
    listed = [f"results/mine/{path}" for path in sorted(files)]
    assert not study.run("git", "check-ignore", *listed, check=False).stdout
    stages = yaml.safe_load((kept / "dvc.lock").read_text("utf-8"))["stages"]
    assert {"distill@l2-0.5-8-0", "evaluate@distill-l2-0.5-8-0", "compare"} <= stages.keys()
    assert not [name for name in stages if "0.25" in name]
    for path in files - {"params.yaml", "dvc.lock"}:
        source = study.root / ("data" if path.startswith("predictions") else "") / path
        assert (kept / path).read_bytes() == source.read_bytes()


def test_collecting_before_a_run_names_what_is_missing(new_study, tmp_path) -> None:
    study = new_study(tmp_path)
    done = study.run(
        "python", "-m", "regrow", "collect", "--out", "kept", check=False, PYTHONPATH="src"
    )
    assert done.returncode
    assert "dvc.lock cannot be read" in done.stdout and "run `dvc repro` first" in done.stdout
    assert not (study.root / "kept").exists()
