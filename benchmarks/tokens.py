"""Time and memory over the tokens of a question: the same questions, with stems said over again."""

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Bench, Files, StageRun
from benchmarks.growth import lines
from benchmarks.results import Row
from benchmarks.stages import distill, evaluate, teacher_logits

GROUP = "tokens"
FOLDS = (1, 2, 4)


def rows(bench: Bench) -> Iterator[Row]:
    """The stages that run the study's model, on questions of three lengths."""
    asked = bench.take("train", max(1, bench.questions // 2))
    by_tokens = {}
    for folds in FOLDS:
        files = longer(asked, folds, bench.scratch / f"stems-{folds}")
        by_tokens[count_tokens(bench, files.questions)] = files
    sparsity = bench.params.sweep.sparsity[0]

    def record(tokens: int) -> Path:
        return bench.scratch / f"record-{tokens}"

    def run_teacher_logits(tokens: int) -> StageRun:
        command = teacher_logits(bench.teacher, by_tokens[tokens].questions, record(tokens))
        return bench.stage(*command, watch=True)

    def run_distill(tokens: int) -> StageRun:
        files = by_tokens[tokens]
        command = distill(bench, sparsity, record(tokens), files.questions, files.count)
        return bench.stage(*command, watch=True)

    def run_evaluate(tokens: int) -> StageRun:
        folder = bench.scratch / f"evaluated-{tokens}"
        return bench.stage(*evaluate(bench.teacher, by_tokens[tokens], folder), watch=True)

    runs = {
        "teacher_logits": run_teacher_logits,
        "evaluate": run_evaluate,
        "distill": run_distill,
    }
    for name, run in runs.items():
        yield from lines(GROUP, name, "tokens", list(by_tokens), run, None)


def longer(asked: Files, folds: int, folder: Path) -> Files:
    """The same questions and labels, every stem said `folds` times."""
    folder.mkdir()
    changed = Files(folder / "questions.jsonl", folder / "labels.jsonl", asked.count)
    changed.labels.write_bytes(asked.labels.read_bytes())
    with changed.questions.open("w", encoding="utf-8") as file:
        for line in asked.questions.read_text(encoding="utf-8").splitlines():
            question = json.loads(line)
            question["stem"] = " ".join([question["stem"]] * folds)
            file.write(f"{json.dumps(question, ensure_ascii=False)}\n")
    return changed


def count_tokens(bench: Bench, questions: Path) -> int:
    """The tokens that a model reads of all the questions' trees."""
    from regrow.model.folders import load_tokenizer
    from regrow.model.trees import build_trees
    from regrow.tasks.questions import read_questions

    tokenizer = load_tokenizer(bench.teacher)
    trees = build_trees(tokenizer, read_questions(questions), bench.params.prompt.format)
    return sum(tree.nodes for tree in trees)
