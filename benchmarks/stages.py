"""The stages' commands, on files of the benchmark."""

from pathlib import Path

from benchmarks.common import Bench, Files

Command = list[str | Path]


def questions(out: Path) -> Command:
    """The stage `questions`."""
    return ["questions", "--questions", out / "questions", "--labels", out / "labels"]


def teacher_logits(teacher: Path, asked: Path, out: Path) -> Command:
    """The stage `teacher_logits`."""
    return [
        "teacher_logits", "--teacher", teacher, "--questions", asked,
        "--out", out, "--choices", out.with_suffix(".jsonl"),
    ]  # fmt: skip


def finetune(bench: Bench, sparsity: float, asked: Path, labels: Path, count: int) -> Command:
    """The stage `finetune`."""
    return [
        "finetune", "--pruned", bench.pruned(sparsity), "--questions", asked,
        "--labels", labels, "--score", bench.score, "--sparsity", str(sparsity),
        "--train-size", str(count), "--seed", "0",
        "--out", bench.scratch / "finetuned", "--log", bench.scratch / "log",
    ]  # fmt: skip


def distill(bench: Bench, sparsity: float, record: Path, asked: Path, count: int) -> Command:
    """The stage `distill`."""
    return [
        "distill", "--pruned", bench.pruned(sparsity), "--questions", asked,
        "--labels", asked.with_name("labels.jsonl"),
        "--teacher-logits", record, "--teacher", bench.teacher,
        "--score", bench.score, "--sparsity", str(sparsity),
        "--train-size", str(count), "--seed", "0",
        "--out", bench.scratch / "distilled", "--log", bench.scratch / "log",
    ]  # fmt: skip


def evaluate(model: Path, files: Files, folder: Path) -> Command:
    """The stage `evaluate`; the first question is for calibration, and the others are the test's.

    Its predictions go to `predictions.parquet` in `folder`.
    """
    for kind, source in (("questions", files.questions), ("labels", files.labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        for split, part in (("calibration", lines[:1]), ("test", lines[1:])):
            (folder / kind / f"{split}.jsonl").write_text("".join(part), encoding="utf-8")
    (folder / "transfer").mkdir(exist_ok=True)
    return [
        "evaluate", "--model", model, "--questions", folder / "questions",
        "--labels", folder / "labels", "--transfer", folder / "transfer",
        "--predictions", folder / "predictions.parquet", "--metrics", folder / "metrics.json",
    ]  # fmt: skip


def compare(bench: Bench, predictions: Path) -> Command:
    """The stage `compare`."""
    out = bench.scratch / "compared"
    return [
        "compare", "--predictions", predictions, "--summary", out / "summary.json",
        "--metrics", out / "metrics", "--plots", out / "plots",
    ]  # fmt: skip
