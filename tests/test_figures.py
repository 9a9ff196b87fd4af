"""Figures: equal bytes for equal numbers, whatever the configuration; labels stand apart."""

import itertools
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.compare.curves import all_curves
from regrow.compare.evidence import gather
from regrow.compare.tables import comparison_json
from regrow.plot.accuracy import accuracy_figure
from regrow.plot.style import save, spread
from regrow.support.schema import Sweep
from simulated import compare_settings, simulated_study, sweep_of

SETTINGS = compare_settings(resamples=100)


def draw(folder: Path, sweep: Sweep, test: int = 30) -> list[Path]:
    evidence = gather(simulated_study(sweep, test=test), sweep, SETTINGS)
    figure = accuracy_figure(all_curves(evidence), comparison_json(evidence))
    return save(figure, folder / "accuracy")


def test_equal_bytes_under_another_configuration(tmp_path: Path) -> None:
    sweep = sweep_of(train_size=(200, 600))
    first = draw(tmp_path / "one", sweep)
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 50, "axes.grid": True}):
        second = draw(tmp_path / "two", sweep)
        assert matplotlib.rcParams["font.size"] == 20  # ours do not leak
    assert [path.name for path in first] == ["accuracy.png", "accuracy.svg"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_no_date_and_no_version_inside(tmp_path: Path) -> None:
    for path in draw(tmp_path, sweep_of()):
        for word in (b"Matplotlib", b"matplotlib.org", b"<dc:date>"):
            assert word not in path.read_bytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("sparsity", "train_size", "seed", "test"),
    [
        ((0.5,), (600,), (0,), 1),
        ((0.5,), (1, 2, 3, 4, 5, 6, 7), (0, 1), 5),
        ((0.01, 0.99), (100, 200, 300, 400), (0,), 5),
    ],
)
def test_small_and_large_sweeps_draw_without_a_warning(
    tmp_path: Path,
    sparsity: tuple[float, ...],
    train_size: tuple[int, ...],
    seed: tuple[int, ...],
    test: int,
) -> None:
    for path in draw(tmp_path, sweep_of(sparsity, train_size, seed), test):
        assert path.stat().st_size > 10_000


@given(
    st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8),
    st.floats(0.01, 0.2),
)
@settings(deadline=None)
def test_labels_stand_apart_in_order_and_near_their_curves(
    wanted: dict[str, float], gap: float
) -> None:
    placed = spread(wanted, gap)
    names = sorted(wanted, key=lambda name: wanted[name])
    heights = [placed[name] for name in names]
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(heights))
    assert all(abs(placed[name] - wanted[name]) <= gap * len(wanted) for name in wanted)
    if all(wanted[b] - wanted[a] >= gap for a, b in itertools.pairwise(names)):
        assert placed == pytest.approx(wanted)
