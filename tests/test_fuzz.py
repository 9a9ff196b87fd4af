"""Broken files: every reader takes them or says in a sentence what is wrong, and does no more.

The inputs are those kept in `fuzz/corpus`, and what `fuzz/mutations.py` makes of them. What ended
a process once (`found-crash-*`) would end this one again.
"""

import random
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent / "fuzz"))

from mutations import mutate
from readers import READERS, accepts_or_refuses
from seeds import CORPUS, seeds

SECONDS = 20
"""What one input may take; most take milliseconds."""
MEGABYTES = 300
"""What all the inputs of a reader may add to the memory that this process once held."""

INPUTS = {name: sorted((CORPUS / name).iterdir()) for name in READERS}
EXAMPLES = {
    "params": 100,
    "controls": 50,
    "jsonl": 300,
    "split": 200,
    "parquet": 150,
    "arrow": 300,
    "predictions": 150,
    "uri": 100,
    "wheel": 300,
    "gguf": 50,
    "model": 40,
    "record": 80,
}
"""How many broken inputs a reader gets: what takes about a second."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, which a reader leaves empty."""
    return tmp_path_factory.mktemp("input")


@contextmanager
def within_bounds() -> Iterator[None]:
    """Fail what takes too long or too much memory."""

    def late(*_: Any) -> None:
        raise AssertionError(f"an input took more than {SECONDS} seconds")

    earlier = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    before = peak()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
    assert peak() - before < MEGABYTES, "an input took too much memory"


def peak() -> float:
    """The most memory that this process held, in megabytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def test_every_reader_has_seeds_and_a_number_of_examples() -> None:
    assert READERS.keys() == seeds().keys() == EXAMPLES.keys() == INPUTS.keys()


@pytest.mark.parametrize("name", READERS)
def test_seeds_are_accepted_and_what_was_found_is_refused(name: str, folder: Path) -> None:
    for path in INPUTS[name]:
        # URIs that need no network name nothing that is there.
        seed = path.name.startswith("seed-") and name != "uri"
        with within_bounds():
            assert accepts_or_refuses(name, path.read_bytes(), folder) == seed, path.name


def check_broken(name: str, folder: Path, examples: int) -> None:
    """Give a reader broken inputs, the same ones each time."""
    accepts_or_refuses(name, INPUTS[name][-1].read_bytes(), folder)  # imports what it needs

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(path=st.sampled_from(INPUTS[name]), draw=st.randoms(use_true_random=False))
    def check(path: Path, draw: random.Random) -> None:
        with within_bounds():
            accepts_or_refuses(name, mutate(name, path.read_bytes(), draw), folder)

    check()


@pytest.mark.parametrize("name", READERS)
def test_broken_inputs_are_accepted_or_refused(name: str, folder: Path) -> None:
    check_broken(name, folder, EXAMPLES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_broken_inputs_are_accepted_or_refused(name: str, folder: Path) -> None:
    check_broken(name, folder, 40 * EXAMPLES[name])
