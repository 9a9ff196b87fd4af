"""The tables that one function extends: what the schema reads of them is what the code holds."""

import pytest

from conftest import Study
from regrow.compare.measures import MEASURES
from regrow.distill.divergence import DIVERGENCES
from regrow.prune.scores import SCORES
from regrow.support.errors import UserError
from regrow.support.tables import Table, entries


@pytest.mark.parametrize(
    ("module", "name", "table"),
    [("prune/scores.py", "SCORES", SCORES), ("distill/divergence.py", "DIVERGENCES", DIVERGENCES)],
)
def test_what_is_read_from_the_source_is_what_is_imported(module, name, table):
    read = entries(module, name)
    assert list(read) == list(table)
    for entry, line in read.items():
        assert table[entry].__doc__.startswith(line)


def test_every_measure_says_what_it_is():
    labels = [measure.label for measure in MEASURES.values()]
    assert len(set(labels)) == len(labels)
    assert {measure.unit for measure in MEASURES.values()} <= {"fraction", "nats", "choices", ""}


@pytest.mark.parametrize("table", [SCORES, DIVERGENCES, MEASURES])
def test_nothing_is_taken_in_the_stead_of_an_unknown_name(table: Table):
    with pytest.raises(UserError, match=r"'l1' is none of .+; name one of these"):
        table["l1"]


def test_an_unknown_score_is_pruned_by_no_other(study: Study):
    command = ("--teacher", "models/teacher", "--score", "l1", "--sparsity", "0.5")
    files = ("--questions", "data/questions/train.jsonl", "--out", "models/pruned/l1-0.5")
    done = study.run(
        "python", "-m", "regrow", "prune", *command, *files, check=False, PYTHONPATH="src"
    )
    assert done.returncode == 1
    assert "regrow prune: 'l1' is none of l2, random, activation" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (study.root / "models" / "pruned" / "l1-0.5").exists()
