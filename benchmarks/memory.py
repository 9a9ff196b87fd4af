"""`python -m benchmarks.memory`: peak memory of real stages beside what `plan` says of them.

Small random models of several sizes and kinds go through the stages themselves, each in processes
of its own, whose peak the system tells. Nothing of the study that lies here is read.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import Bench
from benchmarks.contest import environment
from benchmarks.machine import machine, versions
from benchmarks.results import Measure, Row, Target
from regrow.support.errors import UserError
from regrow.support.files import write_json
from regrow.support.params import PARAMS_FILE, read_params

MEBI = 2**20
OUT = Path("benchmarks/memory.json")
SPARSITY = 0.25
TORCHRUN = "python -m torch.distributed.run --nproc-per-node 2 --standalone -m --"
ONE, MANY = 0.15, 0.25  # how far a prediction may be off, for one process and for more


@dataclass(frozen=True)
class Case:
    """One configuration: a stage, a model, and what differs from the study in params.yaml.

    Attributes:
        name: for the reader.
        stage: `teacher_logits`, `prune`, `finetune`, `distill` or `evaluate`.
        kind: a model type of transformers.
        sizes: of its configuration.
        changes: sections of params.yaml.
    """

    name: str
    stage: str
    kind: str
    sizes: dict[str, Any]
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def processes(self) -> int:
        """How many processes it takes."""
        return int(self.changes.get("compute", {}).get("processes", 1))

    @property
    def batch_size(self) -> int:
        """Questions a step."""
        return int(self.changes.get("training", {}).get("batch_size", 8))

    @property
    def questions(self) -> int:
        """How many there are: two steps' full, for the first has no AdamW's states yet."""
        return 2 * self.batch_size if self.stage in ("finetune", "distill") else SCORED


def sizes(hidden: int, layers: int, vocabulary: int, tied: bool = True) -> dict[str, Any]:
    """A configuration with heads of 64 and MLPs of 2.75 times the width."""
    return {
        "hidden_size": hidden,
        "intermediate_size": hidden * 11 // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
    }


SMALL, WIDE = sizes(512, 8, 16384), sizes(768, 6, 8192)
DEEP, LARGE = sizes(512, 16, 8192, tied=False), sizes(768, 10, 32768)
FULL = sizes(4096, 1, 8192, tied=False) | {"intermediate_size": 11008}
TWO = {"processes": 2, "launch": TORCHRUN}
CASES = (
    Case("40 M parameters, 8 questions", "finetune", "llama", SMALL),
    Case("the same, 32 questions", "finetune", "llama", SMALL, {"training": {"batch_size": 32}}),
    Case(
        "the same, with checkpointing",
        "finetune",
        "llama",
        SMALL,
        {"training": {"batch_size": 32}, "compute": {"checkpointing": True}},
    ),
    Case(
        "the same, 4 at once",
        "finetune",
        "llama",
        SMALL,
        {"training": {"batch_size": 32}, "compute": {"micro_batch": 4}},
    ),
    Case("48 M, deep and untied", "distill", "olmo2", DEEP),
    Case("47 M, wide", "distill", "llama", WIDE, {"training": {"batch_size": 16}}),
    Case("99 M", "finetune", "olmo2", LARGE),
    Case("99 M", "distill", "olmo2", LARGE),
    Case("99 M, record", "teacher_logits", "llama", LARGE),
    Case("99 M, evaluation", "evaluate", "llama", LARGE),
    Case("48 M, evaluation", "evaluate", "olmo2", DEEP),
    Case("99 M, 2 processes", "finetune", "olmo2", LARGE, {"compute": TWO}),
    Case("99 M, 2 sharded", "finetune", "olmo2", LARGE, {"compute": TWO | {"shard": True}}),
    Case("48 M, 2 sharded", "distill", "olmo2", DEEP, {"compute": TWO | {"shard": True}}),
    Case(
        "47 M, 2 sharded, 32 questions",
        "finetune",
        "llama",
        WIDE,
        {"training": {"batch_size": 32}, "compute": TWO | {"shard": True}},
    ),
    Case("1 layer as wide as OLMo 2 7B's", "prune", "olmo2", FULL),
    Case("3 of them", "prune", "olmo2", FULL | {"num_hidden_layers": 3}),
)
SCORED = 64


@dataclass(frozen=True)
class Found:
    """Bytes of one process, predicted and measured."""

    name: str
    stage: str
    processes: int
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """By what share of the measured the prediction is off."""
        return self.predicted / self.measured - 1


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
    only: Annotated[str, typer.Option(help="Cases whose name or stage holds this.")] = "",
    docs: Annotated[Path | None, typer.Option(help="A page to put the table into.")] = None,
) -> None:
    """Measure every case and print it beside the prediction."""
    found = []
    for case in CASES:
        if only in f"{case.stage}: {case.name}":
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(case, Path(folder)))
            print(f"{found[-1].stage}: {found[-1].name}: {found[-1].error:+.1%}", flush=True)
    write_json(
        out,
        {
            "machine": machine(),
            "versions": versions(),
            "cases": [asdict(one) | {"error": round(one.error, 4)} for one in found],
        },
    )
    Console().print(table(found))
    if docs is not None:
        write_table(docs, found)


def write_table(page: Path, found: list[Found]) -> None:
    """Put the table between the markers of a page."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(cells(one)) + " |" for one in found]
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f"{page} holds no lines {BEGIN} and {END}; put them around the table")
    text = "\n".join(lines)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


ROWS = ("40 M parameters, 8 questions", "48 M, deep and untied", "48 M, evaluation")


def rows(bench: Bench) -> Iterator[Row]:
    """How far `plan` is off the memory of three cases; all of them are measured by `main`."""
    for case in CASES:
        if case.name in ROWS:
            folder = bench.scratch / f"memory-{ROWS.index(case.name)}"
            folder.mkdir()
            found = measure(case, folder)
            yield Row(
                group="memory",
                name=f"plan, peak memory of {case.stage}: {case.name}",
                ours=Measure(what="off by", unit="%", values=[100 * abs(found.error)]),
                target=Target.most(100 * ONE, f"<= {ONE:.0%}"),
                notes={
                    "MiB predicted": found.predicted / MEBI,
                    "MiB measured": found.measured / MEBI,
                },
            )


HEADINGS = ("Stage", "Model", "Processes", "Predicted, MiB", "Measured, MiB", "Error")
BEGIN, END = "<!-- memory: begin -->", "<!-- memory: end -->"


def cells(one: Found) -> tuple[str, ...]:
    """A row's texts, one for each of `HEADINGS`."""
    megabytes = (f"{size / MEBI:,.0f}" for size in (one.predicted, one.measured))
    return (one.stage, one.name, str(one.processes), *megabytes, f"{100 * one.error:+.1f} %")


def table(found: list[Found]) -> Table:
    """For the terminal: a row a case."""
    shown = Table(*HEADINGS)
    for one in found:
        shown.add_row(*cells(one))
    return shown


def measure(case: Case, folder: Path) -> Found:
    """Run a case's stage in `folder`."""
    params = _params(case)
    # JSON is YAML.
    (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    predicted = int(_ask("prepare", case, folder)["predicted"])
    if case.stage == "distill":
        _run(folder, params["compute"]["launch"], _command(case, "teacher_logits"))
    measured = _run(folder, params["compute"]["launch"], _command(case, case.stage))
    return Found(case.name, case.stage, case.processes, predicted, measured)


def _params(case: Case) -> dict[str, Any]:
    params = deepcopy(read_params(PARAMS_FILE).model_dump(mode="json"))
    params["compute"] |= {"threads": 1, "device": "cpu", "dtype": "float32"}
    params["compute"] |= {"mixed_precision": None, "launch": "python -m"}
    params["data"] |= dict.fromkeys(("train", "calibration", "test"), case.questions)
    params["training"]["batch_size"] = case.batch_size
    params["evaluate"]["transfer"] = {}
    params["teacher_logits"] = {"positions": "all"}
    params["finetune"] |= {"positions": "all", "learning_rate": {"l2": 1e-3}}
    params["distill"] |= {"branches": "all", "learning_rate": {"l2": 1e-3}}
    params["compare"] |= {"primary": [], "secondary": []}
    params["sweep"] = {
        **{"score": ["l2"], "sparsity": [SPARSITY], "train_size": [case.questions], "seed": [0]}
    }
    for section, values in case.changes.items():
        params[section] |= values
    return params


def _command(case: Case, stage: str) -> list[str]:
    """A stage's command line, as dvc.yaml has it."""
    questions, labels = "data/questions", "data/labels"
    key = f"l2-{SPARSITY}"
    retrain = [
        *("--pruned", f"models/pruned/{key}", "--questions", f"{questions}/train.jsonl"),
        *("--score", "l2", "--sparsity", str(SPARSITY), "--train-size", str(case.questions)),
        *("--seed", "0", "--out", "models/retrained", "--log", "log"),
        *("--labels", f"{labels}/train.jsonl"),
    ]
    record = ["--questions", f"{questions}/train.jsonl", "--out", "data/record"]
    commands = {
        "teacher_logits": ["--teacher", "models/teacher", *record, "--choices", "data/c.jsonl"],
        "prune": [
            *("--teacher", "models/teacher", "--score", "l2", "--sparsity", str(SPARSITY)),
            *("--questions", f"{questions}/train.jsonl", "--out", "models/again"),
        ],
        "finetune": retrain,
        "distill": [*retrain, "--teacher-logits", "data/record", "--teacher", "models/teacher"],
        "evaluate": [
            *("--model", f"models/pruned/{key}", "--questions", questions, "--labels", labels),
            *("--transfer", "data/transfer", "--predictions", "p.parquet", "--metrics", "m.json"),
        ],
    }
    return [stage, *commands[stage]]


def _run(folder: Path, launch: str, command: list[str]) -> int:
    """The most memory that any process of a stage held."""
    for note in folder.glob("note.json*"):
        note.unlink()
    _, *options = launch.split()
    program = [sys.executable, *options, "benchmarks.stage", "note.json", "-", *command]
    done = subprocess.run(
        program,
        cwd=folder,
        env=environment(1, folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    notes = folder.glob("note.json*")
    return max(int(json.loads(note.read_text("utf-8"))["peak_bytes"]) for note in notes)


def _ask(function: str, case: Case, folder: Path) -> dict[str, Any]:
    """What a contestant finds in a process of its own, so that this one stays small."""
    from benchmarks.contest import once

    given = {"case": asdict(case), "folder": str(folder)}
    return once(f"benchmarks.memory:{function}", given, environment(1, folder))


# In a process of its own


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Write models and questions to the folder, and predict the peak of the case's stage."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from regrow.model.trees import build_trees
    from regrow.plan.loads import Questions
    from regrow.plan.study import SPEEDS, Rates, Study, rows
    from regrow.prune.removal import kept_count
    from regrow.tasks.questions import write_labels, write_questions

    case, folder = Case(**settings["case"]), Path(settings["folder"])
    params = read_params(folder / "params.yaml")
    tokenizer = _tokenizer()
    config = AutoConfig.for_model(case.kind, **case.sizes, bos_token_id=0, eos_token_id=1)
    config.pad_token_id = 1
    width = kept_count(config.intermediate_size, SPARSITY, params.prune.multiple_of)
    torch.manual_seed(0)
    for name, neurons in (("teacher", config.intermediate_size), (f"pruned/l2-{SPARSITY}", width)):
        own = deepcopy(config)
        own.intermediate_size = neurons
        model = AutoModelForCausalLM.from_config(own, dtype=torch.float32)
        model.save_pretrained(folder / "models" / name)
        tokenizer.save_pretrained(folder / "models" / name)
    for split in ("train", "calibration", "test"):
        asked = list(_questions(split, case.questions))
        for kind in ("questions", "labels"):
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
        write_questions(folder / "data" / "questions" / f"{split}.jsonl", asked)
        write_labels(folder / "data" / "labels" / f"{split}.jsonl", asked, [0] * len(asked))
    (folder / "data" / "transfer").mkdir()
    trees = build_trees(tokenizer, asked, params.prompt.format)
    planned = Study(
        params,
        config,
        Questions(trees, "here"),
        Rates(dict.fromkeys(SPEEDS, 1.0), 1.0, 1.0, "none"),
    )
    (row,) = (row for row in rows(planned) if row.stage == case.stage)
    return {"predicted": row.device or row.host}, dict


WORDS = ("river", "cupboard", "morning", "people", "market", "window", "letter", "garden")


def _questions(split: str, count: int) -> Iterator[Any]:
    """Questions of some thirty words and five choices of three."""
    from regrow.tasks.questions import Question

    for number in range(count):
        words = [WORDS[(number * step + step) % len(WORDS)] for step in range(1, 24 + number % 8)]
        choices = [" ".join(words[place : place + 3]) + f" {place}" for place in range(5)]
        yield Question(f"{split}-{number}", f"Where does the {' '.join(words)} go?", tuple(choices))


def _tokenizer() -> Any:
    """A byte-level tokenizer of these words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [" ".join(WORDS), "Question: Where does the go?\nAnswer:"], trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


if __name__ == "__main__":
    typer.run(main)
