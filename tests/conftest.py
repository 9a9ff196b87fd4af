"""A tiny random model, a few synthetic questions, and whole studies of them under real DVC."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = "a study, für alle"
PLANTED = {
    "HF_TOKEN": "hf_plantedInEveryStudy",
    "AWS_SECRET_ACCESS_KEY": "planted/In+Every+Study",
}
"""Secrets in the environment of every study; no run may write them anywhere."""
"""Every study of the tests lies in a folder whose name holds spaces and another letter."""

SENTENCES = (
    "Question: Where would you put a cup after washing it?\nAnswer: cupboard",
    "Question: What do people do when they are tired after a long walk?\nAnswer: sit down",
    "The dog runs in the park, the cat sleeps on the warm roof, and the fish swims in the sea.",
    "Books are kept on a shelf; bread is kept in the kitchen; money is kept in a bank.",
)
PLACES = ("shelf", "kitchen", "bank", "park", "cupboard", "warm roof", "sea", "house by the sea")

PARAMS: dict[str, Any] = {
    "model": {"source": "", "sha256": None},
    "data": {
        "source": "",
        "sha256": None,
        "columns": None,
        "test_source": None,
        "test_sha256": None,
        "train": 12,
        "calibration": 6,
        "test": 8,
        "held_out": 0,
        "seed": 0,
    },
    "prompt": {"format": "cloze"},
    "compute": {
        "device": "cpu",
        "dtype": "float32",
        "mixed_precision": None,
        "threads": 1,
        "launch": "python -m",
        "processes": 1,
        "shard": False,
        "micro_batch": None,
        "checkpointing": False,
    },
    "resume": {"interval": 120.0},
    "teacher": {
        "finetune": True,
        "learning_rate": 0.003,
        "positions": "answer",
        "train_size": None,
        "seed": 0,
        "training": {
            "batch_size": 4,
            "epochs": 1,
            "steps": None,
            "warmup": 0.1,
            "schedule": "linear",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
        },
    },
    "teacher_logits": {"positions": "answer"},
    "prune": {"multiple_of": 4, "seed": 0, "sequential": False, "steps": 1},
    "training": {
        "batch_size": 4,
        "epochs": 1,
        "steps": None,
        "warmup": 0.1,
        "schedule": "linear",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    },
    "finetune": {"learning_rate": {"l2": 0.003}, "positions": "answer", "labels": "labels"},
    "distill": {
        "learning_rate": {"l2": 0.003},
        "temperature": 1.0,
        "divergence": "forward_kl",
        "branches": "all",
    },
    "evaluate": {"transfer": {}},
    "sweep": {"score": ["l2"], "sparsity": [0.25, 0.5], "train_size": [8], "seed": [0]},
    "compare": {
        "accuracy": "per_character",
        "confidence": 0.95,
        "resamples": 200,
        "seed": 0,
        "margin": 0.02,
        "primary": [],
        "secondary": [],
    },
}


# A model and questions


@pytest.fixture(autouse=True)
def width_of_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as where there is no terminal, whoever starts the tests from one."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def model_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers and a tokenizer trained on a few sentences."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            tie_word_embeddings=True,
        )
    )
    folder = tmp_path_factory.mktemp("source") / "model"
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def synthetic_questions(count: int = 40) -> list[dict[str, Any]]:
    """Questions of two to five choices, one of which repeats a choice and one of which is long."""
    rows = []
    for number in range(count):
        choices = [PLACES[(number + offset) % len(PLACES)] for offset in range(2 + number % 4)]
        stem = f"Where would you look for thing {number} after a long walk?"
        if number == 1:
            choices[1] = choices[0]
        if number == 2:
            stem = "Well, " * 20 + stem
        answer = number % len(choices)
        rows.append({"id": f"q{number}", "stem": stem, "choices": choices, "answer": answer})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def data_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of synthetic questions with their answers."""
    path = tmp_path_factory.mktemp("source") / "questions.jsonl"
    write_jsonl(path, synthetic_questions())
    return path


# Studies under DVC


def copy_project(root: Path, *more: str) -> None:
    """Copy what a study is run with, and these files or folders too, to a new folder."""
    root.mkdir(parents=True)
    left_out = shutil.ignore_patterns("__pycache__", "*.egg*")
    for name in (
        *("dvc.yaml", ".dvcignore", ".gitignore", "Makefile", "src", "data/README.md"),
        *("models/README.md", ".dvc/config", ".dvc/.gitignore", ".dvc/plots", *more),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, root / name)


@dataclass(frozen=True)
class Study:
    """A git and DVC repository with this project's pipeline and code, and tiny parameters."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str, check: bool = True, **changes: str) -> subprocess.CompletedProcess:
        """Run a command in the repository; `changes` are environment variables."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment | changes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done

    def dvc(self, *arguments: str, check: bool = True, **changes: str) -> str:
        """Run DVC's command and return what it printed."""
        return self.run(sys.executable, "-m", "dvc", *arguments, check=check, **changes).stdout

    def git(self, *arguments: str) -> str:
        """Run git and return what it printed."""
        return self.run("git", *arguments).stdout

    def repro(self, *arguments: str) -> list[str]:
        """`dvc repro`; return the stages that ran, in order, by DVC's own account."""
        return stages_run(self.dvc("repro", *arguments))

    def commit(self) -> None:
        """Commit everything that git does not ignore."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    @property
    def params(self) -> dict[str, Any]:
        """A copy of the values in params.yaml."""
        return dict(yaml.safe_load((self.root / "params.yaml").read_text(encoding="utf-8")))

    def set(self, **values: Any) -> None:
        """Write parameters, named as `distill__temperature=2.0`."""
        params = self.params
        for name, value in values.items():
            *sections, key = name.split("__")
            section = params
            for part in sections:
                section = section[part]
            section[key] = value
        (self.root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    def copy(self, parent: Path) -> "Study":
        """The same repository, with its cache, elsewhere."""
        copied = Study(parent / FOLDER, self.environment)
        shutil.copytree(self.root, copied.root, symlinks=True)
        return copied

    def outputs(self) -> dict[str, bytes]:
        """The bytes of every file that the stages wrote."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for folder in ("data", "models", "metrics", "plots")
            for path in sorted((self.root / folder).rglob("*"))
            if path.is_file()
        }


def stages_run(printed: str) -> list[str]:
    """The stages that DVC says it ran; a stage that it restored from its cache did not run."""
    return re.findall(r"^Running stage '([^']+)'", printed, flags=re.MULTILINE)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What studies run in: nobody's settings, no network, and a `python` that starts at once."""
    home = tmp_path_factory.mktemp("home")
    programs = home / "bin"
    programs.mkdir()
    script = ROOT / "tests" / "preloaded.py"
    # `dvc`, because the worker of DVC's queue is started by that name.
    for name, options in (("python", f'-S -E "{script}"'), ("dvc", "-m dvc")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        (programs / name).chmod(0o755)
    # Not in pytest's folder, whose path may be too long for a socket.
    with tempfile.TemporaryDirectory() as short:
        address = f"{short}/socket"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GIT_", "DVC_", "PYTHON", "HF_", "DVCLIVE_"))
        }
        given = kept | {
            "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
            "PRELOADED_PYTHON": address,
            "HOME": str(home),
            "DVC_SITE_CACHE_DIR": str(home / "dvc"),
            "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
            "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_NAME": "Somebody",
            "GIT_AUTHOR_EMAIL": "somebody@example.org",
            "GIT_COMMITTER_NAME": "Somebody",
            "GIT_COMMITTER_EMAIL": "somebody@example.org",
            "HF_HUB_OFFLINE": "1",
            "MPLCONFIGDIR": str(home / "matplotlib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **PLANTED,
        }
        server = subprocess.Popen([sys.executable, script, "--serve", address], env=given)
        try:
            deadline = time.monotonic() + 600
            while not Path(address).exists():
                assert server.poll() is None, "the preloaded python did not start"
                assert time.monotonic() < deadline, "the preloaded python took too long to start"
                time.sleep(0.05)
            yield given
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def new_study(
    environment: dict[str, str], model_source: Path, data_source: Path
) -> Callable[[Path], Study]:
    """Make a committed repository in a new folder of the folder given, with nothing run yet."""

    def make(parent: Path) -> Study:
        study = Study(parent / FOLDER, environment)
        copy_project(study.root)
        params = deepcopy(PARAMS)
        params["model"]["source"] = f"file:{model_source}"
        params["data"]["source"] = f"file:{data_source}"
        (study.root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        study.git("init", "--quiet", "--initial-branch", "main")
        study.commit()
        return study

    return make


@pytest.fixture(scope="session")
def reproduced(
    new_study: Callable[[Path], Study], tmp_path_factory: pytest.TempPathFactory
) -> Study:
    """A study after `dvc repro`, committed; take copies (`study`), do not change it."""
    study = new_study(tmp_path_factory.mktemp("reproduced"))
    study.repro()
    study.commit()
    return study


@pytest.fixture
def study(reproduced: Study, tmp_path: Path) -> Study:
    """A reproduced and committed study to change."""
    return reproduced.copy(tmp_path)
