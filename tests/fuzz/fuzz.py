"""Coverage-guided fuzzing of one reader, with atheris: `python tests/fuzz/fuzz.py params`.

It starts from `corpus/READER`, and follows the code of regrow alone: the libraries below it are
fuzzed by their own projects. An input that raises anything but `UserError`, takes more than 10
seconds or more than 1 GB is written to `--found` and ends the run with status 1.

atheris is no dependency of the project: `pip install atheris` first.
"""

import argparse
import os
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ |= {"TRANSFORMERS_VERBOSITY": "critical", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}

import atheris

with atheris.instrument_imports(include=["regrow"]):
    # Two that the readers import late.
    from readers import READERS, accepts_or_refuses


from mutations import mutate
from seeds import CORPUS

MEGABYTES = 1024


def main() -> None:
    """Fuzz one reader for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path(), help="folder for what fails")
    options = parser.parse_args()
    options.found.mkdir(parents=True, exist_ok=True)
    counts = {"accepted": 0, "refused": 0}
    with TemporaryDirectory() as scratch:
        grown, folder = Path(scratch, "corpus"), Path(scratch, "input")
        grown.mkdir()
        folder.mkdir()

        def one(data: bytes) -> None:
            taken = accepts_or_refuses(options.reader, data, folder)
            counts["accepted" if taken else "refused"] += 1

        def changed(data: bytes, size: int, seed: int) -> bytes:
            # Half of the time libFuzzer's own changes, which know nothing of structure.
            draw = random.Random(seed)
            if draw.random() < 0.5:
                return mutate(options.reader, data, draw)[:size]
            return atheris.Mutate(data, size)

        atheris.Setup(
            [
                sys.argv[0],
                str(grown),
                str(CORPUS / options.reader),
                f"-max_total_time={options.seconds}",
                f"-seed={options.seed}",
                f"-artifact_prefix={options.found}/{options.reader}-",
                *("-max_len=32768", "-timeout=10", f"-rss_limit_mb={MEGABYTES}"),
                "-keep_seed=1",  # though small inputs go through as many lines of regrow
                "-print_final_stats=1",
            ],
            one,
            custom_mutator=changed,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
