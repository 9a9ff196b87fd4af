"""lm-evaluation-harness as a contestant: a task of its own, made of the same questions."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluate import CHECKED, best
from benchmarks.worker import Prepared

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
TRIED = 24  # questions that a batch size is tried on


def theirs(settings: dict[str, Any]) -> Prepared:
    """lm-evaluation-harness on a task of its own made of the same questions and prompts."""
    import torch
    from lm_eval.evaluator import simple_evaluate  # type: ignore[import-not-found]
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

    from regrow.model.trees import build_trees
    from regrow.plan.shapes import costs, trees_forward
    from regrow.tasks.questions import read_questions

    compute = settings["params"]["compute"]
    torch.set_num_threads(compute["threads"])
    harness = HFLM(
        pretrained=settings["model"],
        dtype=compute["dtype"],
        device=compute["device"],
        batch_size=BATCH_SIZES[0],
    )
    config = task_config(settings)
    manager = TaskManager(include_defaults=False)
    (task,) = manager.load([config])["tasks"].values()
    task.build_all_requests()
    requests = task.instances
    choices = [len(question.choices) for question in read_questions(Path(settings["questions"]))]

    def score(wanted: Sequence[Any]) -> tuple[float, list[float]]:
        started = time.perf_counter()
        answered = harness.loglikelihood(wanted, disable_tqdm=True)
        return time.perf_counter() - started, [float(log_prob) for log_prob, _ in answered]

    few = requests[: sum(choices[:TRIED])]
    seconds = []
    score(few)
    for size in BATCH_SIZES:
        harness.batch_size_per_gpu = size
        seconds.append(min(score(few)[0] for _ in range(2)))
    fastest = BATCH_SIZES[best([-value for value in seconds])]
    harness.batch_size_per_gpu = fastest

    def run() -> dict[str, Any]:
        passed, flat = score(requests)
        taken = iter(flat)
        return {"seconds": passed, "log_probs": [[next(taken) for _ in range(n)] for n in choices]}

    checked = simple_evaluate(
        model=harness, tasks=[config], task_manager=manager, limit=CHECKED, bootstrap_iters=0
    )["results"][config["task"]]
    number = min(CHECKED, len(choices))
    # The operations that the task needs are the same for everybody.
    trees = build_trees(
        harness.tokenizer, read_questions(Path(settings["questions"])), settings["format"]
    )
    facts = {
        "operations": trees_forward(costs(harness.model), trees, "answer"),
        "batch_size": fastest,
        "batch_sizes": list(BATCH_SIZES),
        "seconds": seconds,
        "checked": number,
        "accuracies": [
            round(checked["acc,none"] * number),
            # A letter is as long as another; then only `acc` means something.
            round(checked["acc_norm,none"] * number),
        ],
    }
    return facts, run


def task_config(settings: dict[str, Any]) -> dict[str, Any]:
    """A task of the harness with this project's prompts, its data as a JSON file."""
    from regrow.tasks.prompts import context, continuations
    from regrow.tasks.questions import read_labels, read_questions

    asked = read_questions(Path(settings["questions"]))
    answers = read_labels(Path(settings["labels"]), asked)
    path = Path(settings["scratch"]) / f"harness-{settings['format']}.jsonl"
    rows = []
    for question, answer in zip(asked, answers, strict=True):
        listed = context(question, "letters").partition("\n")[2].removesuffix("Answer:")
        rows.append(
            {
                "stem": question.stem,
                "listed": listed,
                "options": [text[1:] for text in continuations(question, settings["format"])],
                "gold": answer,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    listed = "{{listed}}" if settings["format"] == "letters" else ""
    return {
        "task": f"regrow_{settings['format']}",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(path)},
            "cache_dir": f"{settings['scratch']}/datasets",
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": f"Question: {{{{stem}}}}\n{listed}Answer:",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "target_delimiter": " ",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
