"""Faults of the machine, really brought about: each ends in one sentence and loses nothing."""

import ctypes
import errno
import os
import re
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from faults import contents, fill, mounted, run_apart, sentence
from regrow.distill import writer
from regrow.evaluate.predictions import Predictions, read_predictions, write_predictions
from regrow.model import scoring
from regrow.model.folders import load_model, save_model
from regrow.support.errors import UserError, file_fault, memory_fault
from regrow.support.files import write_json
from regrow.support.resume import STATES, Unfinished
from regrow.tasks.questions import Question, write_labels, write_questions
from tiny_models import QUESTIONS, tiny_config, tiny_model, tiny_tokenizer, write_params

ASKED = [
    Question(f"{copy}-{question.id}", question.stem, question.choices)
    for copy in range(3)
    for question in QUESTIONS
]
RUN = ("--train-size", len(ASKED), "--seed", 0, "--score", "l2", "--sparsity", 0.25)
TRAINED = ("--questions", "data/train.jsonl")
STAGES: dict[str, tuple[object, ...]] = {
    "finetune": (
        *("finetune", "--pruned", "base", *TRAINED, "--labels", "labels/train.jsonl", *RUN),
        *("--out", "out/result", "--log", "log"),
    ),
    "teacher_logits": (
        *("teacher_logits", "--teacher", "base", *TRAINED),
        *("--out", "out/result", "--choices", "choices.jsonl"),
    ),
    "evaluate": (
        *("evaluate", "--model", "base", "--questions", "data", "--labels", "labels"),
        *("--transfer", "transfer", "--predictions", "p.parquet", "--metrics", "out/result"),
    ),
}


slow = pytest.mark.slow


def answers(questions: list[Question]) -> list[int]:
    return [place % len(question.choices) for place, question in enumerate(questions)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the stages read; copy it to change it."""
    folder = tmp_path_factory.mktemp("faults") / "prepared"
    folder.mkdir()
    write_params(folder)
    for split, part in (("train", "t"), ("calibration", "c"), ("test", "e")):
        asked = [Question(f"{part}{q.id}", q.stem, q.choices) for q in ASKED]
        for name in ("data", "labels"):
            (folder / name).mkdir(exist_ok=True)
        write_questions(folder / "data" / f"{split}.jsonl", asked)
        write_labels(folder / "labels" / f"{split}.jsonl", asked, answers(asked))
    write_json(folder / "transfer" / "sets.json", {"sets": []})
    save_model(tiny_model(tiny_config("llama")), tiny_tokenizer(), folder / "base")
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Path:
    """A copy of what the stages read."""
    return shutil.copytree(prepared, tmp_path / "a place")


def change(folder: Path, **sections: dict[str, Any]) -> None:
    """Change keys of sections in params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text("utf-8"))
    for name, values in sections.items():
        params[name] = params.get(name, {}) | values
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


ANOTHER: dict[str, Any] = {
    "finetune": {"learning_rate": {"l2": 0.004}},
    "teacher_logits": {"positions": "all"},
    "prompt": {"format": "letters"},
}


@pytest.fixture(scope="module")
def usual(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """What a stage writes to `out` with `ANOTHER` parameters when nothing hinders it."""
    found: dict[str, dict[str, bytes]] = {}

    def of(stage: str) -> dict[str, bytes]:
        if stage not in found:
            folder = shutil.copytree(prepared, tmp_path_factory.mktemp("usual") / stage)
            change(folder, **ANOTHER)
            assert run_apart(folder, *STAGES[stage])[0] == 0
            found[stage] = contents(folder / "out")
        return found[stage]

    return of


def assert_hindered(place: Path, stage: str, strerror: str, hinder: Any) -> str:
    """A second run with other parameters fails with a sentence; the first one's output stays."""
    earlier = contents(place / "out")
    status, said = run_apart(place, *STAGES[stage], hinder=hinder)
    assert status == 1, said
    told = sentence(said)
    assert told.startswith(f"regrow {stage}: ") and strerror in told, said
    assert ".partial" not in told
    assert contents(place / "out") == earlier
    assert not list(place.rglob("*.partial"))
    return told


# Disks


@pytest.mark.parametrize(
    ("stage", "free"),
    [
        pytest.param("finetune", 20_000, marks=slow),
        ("teacher_logits", 8_000),
        pytest.param("evaluate", 0, marks=slow),
    ],
)
def test_a_full_disk_is_named_and_the_earlier_output_stays(
    stage: str, free: int, place: Path, usual: Callable[[str], Any]
) -> None:
    with mounted(place / "out", "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        assert run_apart(place, *STAGES[stage])[0] == 0
        change(place, **ANOTHER)
        ballast = fill(place / "out", free)
        told = assert_hindered(place, stage, "No space left on device; free some room", int)
        assert "out/result" in told
        ballast.unlink()
        assert run_apart(place, *STAGES[stage])[0] == 0
        assert contents(place / "out") == usual(stage)


@slow
@pytest.mark.parametrize(("stage", "free"), [("finetune", 200_000), ("teacher_logits", 8_000)])
def test_a_disk_too_full_for_state_is_named_and_the_state_before_is_gone_on_from(
    stage: str, free: int, place: Path, usual: Callable[[str], Any]
) -> None:
    change(place, **ANOTHER, resume={"interval": 0.0})
    (place / STATES).mkdir()
    with mounted(place / STATES, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        ballast = fill(place / STATES, free)
        (place / "out").mkdir()
        # torch, which writes the optimizer's file, does not say why it could not.
        words = "not written to its end" if stage == "finetune" else "No space left on device"
        told = assert_hindered(place, stage, words, int)
        assert str(STATES) in told
        ballast.unlink()
        status, said = run_apart(place, *STAGES[stage])
        assert status == 0, said
        assert contents(place / "out") == usual(stage)
        assert not any((place / STATES).iterdir())


@pytest.mark.parametrize(
    ("stage", "size"),
    [
        pytest.param("finetune", 20_000, marks=slow),
        ("teacher_logits", 2_000),
        pytest.param("evaluate", 100, marks=slow),
    ],
)
def test_a_file_larger_than_allowed_is_named_and_the_earlier_output_stays(
    stage: str, size: int, place: Path, usual: Callable[[str], Any]
) -> None:
    def hinder() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    assert run_apart(place, *STAGES[stage])[0] == 0
    change(place, **ANOTHER)
    assert_hindered(place, stage, os.strerror(errno.EFBIG), hinder)
    assert run_apart(place, *STAGES[stage])[0] == 0
    assert contents(place / "out") == usual(stage)


@slow
def test_an_output_folder_mounted_read_only_is_named(
    place: Path, usual: Callable[[str], Any]
) -> None:
    with mounted(place / "out", "-t", "tmpfs", "tmpfs"):
        assert run_apart(place, *STAGES["evaluate"])[0] == 0
        change(place, **ANOTHER)
        remount(place / "out", "ro")
        assert_hindered(place, "evaluate", "Read-only file system; mount that disk", int)
        remount(place / "out", "rw")
        assert run_apart(place, *STAGES["evaluate"])[0] == 0
        assert contents(place / "out") == usual("evaluate")


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def test_an_output_folder_without_the_right_to_write_is_named(
    place: Path, usual: Callable[[str], Any]
) -> None:
    assert run_apart(place, *STAGES["evaluate"])[0] == 0
    change(place, **ANOTHER)
    (place / "out").chmod(0o555)
    assert_hindered(place, "evaluate", "Permission denied; get the right to it", rights_bind)
    (place / "out").chmod(0o755)
    assert run_apart(place, *STAGES["evaluate"])[0] == 0
    assert contents(place / "out") == usual("evaluate")


def rights_bind() -> None:
    """Rights do not bind root, until it gives its capabilities up.

    It stays root, for as somebody else it could not read a checkout in a folder of root's own.
    """
    if os.geteuid() == 0:
        of = (ctypes.c_int * 2)(0x20080522, 0)  # the version of the call, and this process
        assert ctypes.CDLL(None).capset(of, (ctypes.c_int * 6)()) == 0


@pytest.mark.parametrize("size", [1000, 40_000])
def test_a_library_that_does_not_number_its_fault_is_understood(size: int, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    for write in (
        lambda path: torch.save(torch.zeros(20_000), path),
        lambda path: save_file({"a": torch.zeros(20_000)}, path),
        lambda path: pq.write_table(pa.table({"a": np.random.default_rng(0).random(9000)}), path),
    ):
        reading, writing = os.pipe()
        if not (child := os.fork()):
            limit()
            try:
                write(tmp_path / "file")
            except Exception as error:
                os.write(writing, (file_fault(error, Path("named")) or repr(error)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        said = os.read(reading, 1000).decode()
        os.close(reading)
        assert ("then run this again" in said and "/file" in said) or said.startswith("named"), said


# Memory


@pytest.mark.parametrize(
    "stage", [pytest.param("finetune", marks=slow), "teacher_logits", "evaluate"]
)
def test_too_little_memory_says_what_to_lower(stage: str, place: Path) -> None:
    if stage == "finetune":
        train = [Question(f"{copy} {q.id}", q.stem, q.choices) for copy in range(60) for q in ASKED]
        change(place, training={"batch_size": 10_000}, finetune={"positions": "all"})
    else:
        train = [Question("long", "Well, " * 6000 + "where?", ("a", "b"))]
        write_questions(place / "data" / "test.jsonl", train)
        write_labels(place / "labels" / "test.jsonl", train, [0])
    write_questions(place / "data" / "train.jsonl", train)
    write_labels(place / "labels" / "train.jsonl", train, answers(train))

    def hinder() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + 400 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    arguments = [len(train) if part == len(ASKED) else part for part in STAGES[stage]]
    status, said = run_apart(place, *arguments, hinder=hinder)
    assert status == 1, said
    told = sentence(said)
    assert told.startswith(f"regrow {stage}: memory ran out ("), told
    what = {
        "finetune": "lower training.batch_size",
        "teacher_logits": "set teacher_logits.positions to answer",
        "evaluate": "take a smaller model, or set compute.dtype to bfloat16",
    }
    assert what[stage] in told
    assert not (place / "out" / "result").exists()
    print(told)


def test_what_ran_out_of_memory_is_told_apart() -> None:
    assert str(memory_fault(MemoryError(), "teacher")).endswith(
        "lower teacher.training.batch_size; where that is 1, close other programs, take a smaller "
        "model, or set compute.dtype to bfloat16"
    )
    assert memory_fault(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), "distill")
    assert memory_fault(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert file_fault(OSError(errno.ENOMEM, "Cannot allocate memory")) is None


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), KeyError("a"), ValueError("errno 28"), TypeError()]
)
def test_a_fault_of_the_program_is_not_taken_for_one_of_the_machine(error: Exception) -> None:
    assert file_fault(error) is None
    assert memory_fault(error) is None


def test_a_fault_of_the_program_keeps_its_traceback(place: Path) -> None:
    def hinder() -> None:
        from regrow.model import scoring

        vars(scoring)["by_tokens"] = None

    status, said = run_apart(place, *STAGES["evaluate"], hinder=hinder)
    assert status == 2
    assert "Traceback" in said and "TypeError" in said


# Losses that are not finite


def unbearable(architecture: str) -> Any:
    """A model for which one token, of the question "other letters" alone, is too much."""
    config = tiny_config(architecture)
    config.tie_word_embeddings = False
    model = tiny_model(config)
    token = tiny_tokenizer()(" 早", add_special_tokens=False)["input_ids"][-1]
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = 3e38
    return model


@slow
@pytest.mark.parametrize(
    ("architecture", "what"), [("olmo2", "loss"), ("llama", "gradient's norm")]
)
def test_what_is_not_finite_stops_the_training_and_the_last_good_state_is_kept(
    architecture: str, what: str, place: Path
) -> None:
    save_model(unbearable(architecture), tiny_tokenizer(), place / "base")
    change(place, training={"batch_size": 2}, resume={"interval": 0.0})
    status, said = run_apart(place, *STAGES["finetune"])
    told = sentence(said)
    print(told)
    assert status == 1
    found = re.search(rf"the {what} is (nan|inf) at step (\d+) of 11, at a learning rate of", told)
    assert found and int(found[2]) > 1, told
    assert not (place / "out" / "result").exists()
    (state,) = (place / STATES).glob("*/*/checkpoint-*")
    assert state.name == f"checkpoint-{int(found[2]) - 1}"
    for path in state.glob("*.safetensors"):
        assert all(bool(part.isfinite().all()) for part in load_file(path).values())
    # The same again: from the last good state to the same end.
    status, said = run_apart(place, *STAGES["finetune"])
    assert status == 1 and sentence(said) == told
    assert f"goes on from its {state.name}" in said


# State that was damaged while nobody looked


def interrupted(place: Path, stage: str, saves: int) -> Path:
    """Run a stage up to its `saves`-th save; return the folder of its state."""

    def hinder() -> None:
        kept = Unfinished.saved
        left = [saves]

        def saved(self: Unfinished) -> None:
            kept(self)
            left[0] -= 1
            if not left[0]:
                os._exit(9)

        # In a forked child, which ends with it.
        Unfinished.saved = saved  # type: ignore[method-assign]
        small_batches()

    change(place, training={"batch_size": 2}, resume={"interval": 0.0})
    assert run_apart(place, *STAGES[stage], hinder=hinder)[0] == 9
    (state,) = (place / STATES).glob("*/*")
    return state


def small_batches() -> None:
    """Many batches, so that there is something to go on from."""
    for function in (scoring.score_choices, writer.record):
        defaults = [
            100 if isinstance(value, int) else value for value in function.__defaults__ or ()
        ]
        function.__defaults__ = tuple(defaults)


@pytest.fixture(scope="module")
def anew(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """What a stage writes to `out` in small batches when nobody interrupts it."""
    found: dict[str, dict[str, bytes]] = {}

    def of(stage: str) -> dict[str, bytes]:
        if stage not in found:
            folder = shutil.copytree(prepared, tmp_path_factory.mktemp("anew") / stage)
            change(folder, training={"batch_size": 2})
            assert run_apart(folder, *STAGES[stage], hinder=small_batches)[0] == 0
            found[stage] = contents(folder / "out")
        return found[stage]

    return of


def flip(path: Path, share: float) -> None:
    """Turn over one bit, at a share of the file's length."""
    found = bytearray(path.read_bytes())
    found[int(share * len(found))] ^= 4
    path.write_bytes(found)


SHARD = "shard-00001-model-00001-of-00004.safetensors"
DAMAGES = [
    *(("finetune", name) for name in (f"checkpoint-3/{SHARD}", "progress.json")),
    *(("teacher_logits", name) for name in ("progress.json", "record/states.npy")),
    ("evaluate", "progress.json"),
]
FAST = (f"checkpoint-3/{SHARD}", "record/states.npy")


@pytest.mark.parametrize(
    ("stage", "name", "harm"),
    [
        pytest.param(
            stage, name, harm, marks=() if (harm, name) in {("flipped", n) for n in FAST} else slow
        )
        for stage, name in DAMAGES
        for harm in ("flipped", "truncated", "gone")
    ],
)
def test_damaged_state_is_named_and_the_stage_starts_anew(
    stage: str, name: str, harm: str, place: Path, anew: Callable[[str], Any]
) -> None:
    state = interrupted(place, stage, 3)
    path = state / name
    if harm == "flipped":
        # Only the rows recorded so far count, and they are not the first ones.
        for tenth in range(3, 10) if path.suffix == ".npy" else [3]:
            flip(path, tenth / 10)
    elif harm == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    status, said = run_apart(place, *STAGES[stage], hinder=small_batches)
    assert status == 0, said
    # Without this file there is no state that could be damaged.
    if not (harm == "gone" and path.name == "progress.json"):
        assert said.count("is damaged") == 1, said
        # One that does not fit its hash and a hash that does not fit are the same.
        assert path.name in said or path.name == "states.npy", said
        assert "starting anew" in said
    assert "goes on" not in said
    assert contents(place / "out") == anew(stage)
    assert not any((place / STATES).iterdir())


@slow
def test_state_that_is_whole_is_gone_on_from(place: Path, anew: Callable[[str], Any]) -> None:
    for stage, arguments in STAGES.items():
        folder = shutil.copytree(place, place.with_name(stage))
        interrupted(folder, stage, 3)
        status, said = run_apart(folder, *arguments, hinder=small_batches)
        assert status == 0 and "goes on" in said, said
        assert contents(folder / "out") == anew(stage)


# Bits that turned over


def test_a_flipped_bit_of_predictions_is_found_or_harmless_or_a_number(tmp_path: Path) -> None:
    """The pages' checksums and the checks of what was read find nearly all; DVC's hash all."""
    path = tmp_path / "p.parquet"
    draw = np.random.default_rng(0)
    counts = [2, 3, 5] * 40
    given = Predictions(
        ids=[f"q{number}" for number in range(len(counts))],
        splits=["test"] * len(counts),
        answers=[0] * len(counts),
        log_probs=[(-draw.random(count)).tolist() for count in counts],
        tokens=[[1] * count for count in counts],
        characters=[[4] * count for count in counts],
        parameters=10,
        mlp_parameters=5,
    )
    write_predictions(path, given)
    whole = path.read_bytes()
    outcomes = Counter[str]()
    for place in draw.choice(len(whole) * 8, 600, replace=False).tolist():
        harmed = bytearray(whole)
        harmed[place // 8] ^= 1 << place % 8
        path.write_bytes(harmed)
        try:
            found = read_predictions(path)
        except UserError as error:
            assert "p.parquet" in str(error)
            outcomes["named"] += 1
        else:
            outcomes["the same" if found == given else "another value"] += 1
    print(dict(outcomes))
    assert outcomes["named"] > 50 * outcomes["another value"]


def test_a_flipped_bit_of_weights_is_found_in_the_header_alone(
    prepared: Path, tmp_path: Path
) -> None:
    """A number is as good as another; in the numbers DVC's hash finds it."""
    folder = shutil.copytree(prepared / "base", tmp_path / "model")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    draw = np.random.default_rng(0)
    outcomes = Counter[str]()
    for place in draw.choice(header * 8, 40, replace=False).tolist():
        harmed = bytearray(whole)
        harmed[place // 8] ^= 1 << place % 8
        path.write_bytes(harmed)
        try:
            load_model(folder, "float32", "cpu")
        except UserError as error:
            assert str(folder) in str(error)
            outcomes["named"] += 1
        else:
            outcomes["loaded"] += 1
    print(dict(outcomes))
    assert outcomes["named"] > outcomes["loaded"]
    path.write_bytes(whole)
    flip(path, 0.7)
    load_model(folder, "float32", "cpu")
