"""Time and memory over the number of questions, and over the rows of the sweep."""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import GIBI, Bench, StageRun, fitted
from benchmarks.contest import NotMeasuredError
from benchmarks.results import Measure, Note, Row, Target
from benchmarks.stages import compare, distill, evaluate, questions, teacher_logits
from benchmarks.worker import Prepared

GROUP = "growth"
WORDS = ("river", "lamp", "bridge", "cold", "market", "paper", "slow", "garden", "winter", "stone")
FLAT = Target.most(1.1, "flat: <= 1.1x")
CEILING = Target.most(2e9 / GIBI, "<= 2 GB")
MANY = 100_000
FOLDS = (1, 2, 4)

Run = Callable[[int], StageRun]


def rows(bench: Bench) -> Iterator[Row]:
    """The study's model over questions, the statistics over questions and rows, and 100,000."""
    sizes = [max(1, bench.questions // 2) * fold for fold in FOLDS]
    for name, run in _with_model(bench).items():
        yield from lines(GROUP, name, "questions", sizes, run, FLAT)
    for name, run in _over_questions(bench).items():
        yield from lines(GROUP, name, "questions", [2 * size for size in sizes], run, None)
    for name, run in _over_sweep(bench).items():
        yield from lines(GROUP, name, "rows of the sweep", [4 * fold for fold in FOLDS], run, None)
    yield from many(bench)


def lines(
    group: str, name: str, what: str, sizes: Sequence[int], run: Run, flat: Target | None
) -> Iterator[Row]:
    """Two lines of the table: seconds and memory at the sizes, with a fitted line each.

    Args:
        group: the part that they belong to.
        name: what runs.
        what: what grows, in the plural.
        sizes: the smallest first.
        run: runs it at a size.
        flat: the target for memory, if it must not grow.
    """
    try:
        runs = [run(size) for size in sizes]
    except NotMeasuredError as fault:
        yield Row(group=group, name=f"{name} over {what}", not_measured=str(fault))
        return
    one = what.partition(" ")[0].removesuffix("s")
    seconds = [done.seconds for done in runs]
    peaks = [done.peak_bytes / GIBI for done in runs]
    fixed, each = fitted(sizes, seconds)
    yield Row(
        group=group,
        name=f"{name} over {what}: time",
        ours=Measure(what="regrow, fitted line", unit=f"ms/{one}", values=[1e3 * each]),
        notes={"sizes": list(sizes), "seconds": seconds, "fitted_seconds_at_0": fixed},
    )
    fixed, each = fitted(sizes, peaks)
    notes: dict[str, Note] = {
        "sizes": list(sizes),
        "gib": peaks,
        "fitted_gib_at_0": fixed,
        f"fitted_kib_a_{one}": each * 2**20,
    }
    own = [done.own_bytes for done in runs]
    if all(own):
        notes["gib_without_mapped_files"] = [(value or 0) / GIBI for value in own]
    yield Row(
        group=group,
        name=f"{name} over {what}: memory at {sizes[-1]} and at {sizes[0]}",
        ours=Measure(what="regrow, most", unit="GiB", values=[peaks[-1]]),
        against=Measure(what="regrow, fewest", unit="GiB", values=[peaks[0]]),
        ratio="ours / against",
        target=flat,
        notes=notes,
    )


def _with_model(bench: Bench) -> dict[str, Run]:
    """The stages that run the study's model, at so many of its train questions."""
    sparsity = bench.params.sweep.sparsity[0]

    def record(size: int) -> Path:
        return bench.scratch / f"record-growth-{size}"

    def run_teacher_logits(size: int) -> StageRun:
        files = bench.take("train", size)
        command = teacher_logits(bench.teacher, files.questions, record(size))
        return bench.stage(*command, watch=True)

    def run_distill(size: int) -> StageRun:
        files = bench.take("train", size)
        command = distill(bench, sparsity, record(size), files.questions, files.count)
        return bench.stage(*command, watch=True)

    def run_evaluate(size: int) -> StageRun:
        files = bench.take("train", size)
        command = evaluate(bench.teacher, files, bench.scratch / f"evaluated-{size}")
        return bench.stage(*command, watch=True)

    return {
        "teacher_logits": run_teacher_logits,
        "evaluate": run_evaluate,
        "distill": run_distill,
    }


def _over_questions(bench: Bench) -> dict[str, Run]:
    def made(size: int) -> tuple[Path, Mapping[str, Any]]:
        return simulated(bench, rows=4, test=size)

    return _statistics(bench, made)


def _over_sweep(bench: Bench) -> dict[str, Run]:
    def made(size: int) -> tuple[Path, Mapping[str, Any]]:
        return simulated(bench, rows=size, test=2 * bench.questions)

    return _statistics(bench, made)


def _statistics(
    bench: Bench, made: Callable[[int], tuple[Path, Mapping[str, Any]]]
) -> dict[str, Run]:
    """The stages that read predictions only."""

    def run_compare(size: int) -> StageRun:
        folder, changes = made(size)
        return bench.stage(*compare(bench, folder), changes=changes, watch=True)

    return {"compare": run_compare}


def many(bench: Bench) -> Iterator[Row]:
    """100,000 synthetic questions: the stage `questions`, a record of a tiny model, `compare`."""
    count = MANY if bench.questions >= 100 else 10 * bench.questions
    source = bench.scratch / "many.jsonl"
    write_synthetic(source, count + 2)
    data = {
        "source": f"file:{source}",
        "sha256": None,
        "test_source": None,
        "test_sha256": None,
        "train": count,
        "calibration": 1,
        "test": 1,
    }
    sweep = {"train_size": [1]}
    out = bench.scratch / "many"

    def run_questions() -> StageRun:
        changes = {"data": data, "sweep": sweep}
        return bench.stage(*questions(out), changes=changes, watch=True)

    def run_record() -> StageRun:
        model = bench.scratch / "tiny"
        bench.once("benchmarks.growth:tiny", {"out": str(model)})
        return bench.stage(
            *teacher_logits(model, out / "questions" / "train.jsonl", out / "record"), watch=True
        )

    def run_compare() -> StageRun:
        folder, changes = simulated(bench, rows=1, test=count)
        return bench.stage(*compare(bench, folder), changes=changes, watch=True)

    runs = {
        "questions": run_questions,
        "teacher_logits of a tiny model": run_record,
        "compare": run_compare,
    }
    for name, run in runs.items():
        row = Row(group=GROUP, name=f"{name}, {count:,} questions: peak memory", target=CEILING)
        try:
            done = run()
        except NotMeasuredError as fault:
            yield row.model_copy(update={"not_measured": str(fault)})
            continue
        notes: dict[str, Note] = {"seconds": done.seconds}
        if done.own_bytes:
            notes["gib_without_mapped_files"] = done.own_bytes / GIBI
        measure = Measure(what="regrow", unit="GiB", values=[done.peak_bytes / GIBI])
        yield row.model_copy(update={"ours": measure, "notes": notes})


# What is made up


def write_synthetic(path: Path, count: int) -> None:
    """Questions of five choices, as `data.source: file:` reads them."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            stem = " ".join(draw.choices(WORDS, k=draw.randint(8, 16)))
            choices = [
                f"{first} {second}" if draw.random() < 0.5 else second
                for first, second in zip(
                    draw.choices(WORDS, k=5), draw.sample(WORDS, 5), strict=True
                )
            ]
            row = {
                "id": f"{number:08x}",
                "stem": f"Where is the {stem}?",
                "choices": choices,
                "answer": draw.randrange(5),
            }
            file.write(json.dumps(row) + "\n")


def simulated(bench: Bench, rows: int, test: int) -> tuple[Path, dict[str, Any]]:
    """Predictions of a sweep of so many rows, and the parameters that name it."""
    folder = bench.scratch / f"predictions-{rows}-{test}"
    sweep = {
        "score": [bench.score],
        "sparsity": [round(0.9 * (number + 1) / rows, 4) for number in range(rows)],
        "train_size": [1],
        "seed": [0],
    }
    if not folder.is_dir():
        settings = {"folder": str(folder), "sweep": sweep, "test": test, "calibration": 200}
        bench.once("benchmarks.growth:simulate", settings)
    return folder, {"sweep": sweep}


def simulate(settings: dict[str, Any]) -> Prepared:
    """Write predictions of every model of a sweep, of questions with five choices."""
    import numpy as np

    from regrow.compare.study import run_names
    from regrow.evaluate.predictions import Predictions, write_predictions
    from regrow.support.schema import Sweep

    sweep = Sweep.model_validate(settings["sweep"])
    count = settings["calibration"] + settings["test"]
    draw = np.random.default_rng(0)
    answers = draw.integers(5, size=count)
    characters = draw.integers(3, 12, size=(count, 5)).tolist()
    common = draw.gumbel(size=(count, 5))
    common[np.arange(count), answers] += 1
    splits = ["calibration"] * settings["calibration"] + ["test"] * settings["test"]
    ids = [f"{number:08x}" for number in range(count)]
    for name in run_names(sweep):
        size = 1000 if name == "teacher" else 900
        write_predictions(
            Path(settings["folder"]) / f"{name}.parquet",
            Predictions(
                ids=ids,
                splits=splits,
                answers=answers.tolist(),
                log_probs=(common + draw.gumbel(size=(count, 5)) - 12).tolist(),
                tokens=[[1] * 5] * count,
                characters=characters,
                parameters=size,
                mlp_parameters=size // 2,
            ),
        )
    return {}, dict


def tiny(settings: dict[str, Any]) -> Prepared:
    """A random Llama of two layers, with a tokenizer trained on synthetic questions."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    out = Path(settings["out"])
    sample = out.with_suffix(".jsonl")
    write_synthetic(sample, 200)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with sample.open(encoding="utf-8") as file:
        texts = itertools.chain.from_iterable(
            [row["stem"], *row["choices"]] for row in map(json.loads, file)
        )
        tokenizer.train_from_iterator(texts, trainer)
    make: Any = PreTrainedTokenizerFast
    fast = make(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    fast.save_pretrained(out)
    return {"vocabulary": len(fast)}, dict
