"""Figures: equal bytes for equal numbers, whatever the configuration, and what they draw."""

import ast
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure

from regrow.compare.curves import all_curves
from regrow.compare.evidence import gather
from regrow.compare.tables import comparison_json
from regrow.plot.figures import Curves, accuracy_figure, difference_figure, figures
from regrow.plot.style import save
from regrow.support.schema import Sweep
from simulated import compare_settings, simulated_study, sweep_of

ROOT = Path(__file__).parents[1]
TWO = sweep_of((0.2, 0.4), (200, 600), score=("l2", "activation"))


def numbers(sweep: Sweep, test: int = 30, **changes: Any) -> tuple[Curves, dict[str, Any]]:
    """The rows of every CSV file and what they stand on, of a simulated study."""
    study = simulated_study(sweep, test=test)
    evidence = gather(study, sweep, compare_settings(resamples=100, **changes))
    return all_curves(evidence), comparison_json(evidence)


def figures_of(sweep: Sweep, test: int = 30) -> dict[str, Figure]:
    return figures(*numbers(sweep, test))


def texts(figure: Figure) -> str:
    """All that a figure says outside its axes' labels."""
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    said += [text.get_text() for text in figure.texts]
    return " ".join([*said, *(t.get_text() for one in figure.legends for t in one.get_texts())])


def test_equal_bytes_under_another_configuration(tmp_path: Path) -> None:
    def draw(folder: str) -> list[Path]:
        drawn = figures_of(TWO)
        return [
            path for name in sorted(drawn) for path in save(drawn[name], tmp_path / folder / name)
        ]

    first = draw("one")
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 50, "axes.grid": True}):
        second = draw("two")
        assert matplotlib.rcParams["font.size"] == 20  # ours do not leak
    for one, two in zip(first, second, strict=True):
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()
        for word in (b"Matplotlib", b"matplotlib.org", b"<dc:date>"):
            assert word not in one.read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of others
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("sweep", "test"),
    [
        (sweep_of((0.5,)), 1),
        (sweep_of((0.5,), (1, 2, 3, 4, 5, 6, 7), (0, 1)), 5),
        (sweep_of((0.01, 0.99), (100, 200), score=("l2", "random", "activation")), 5),
    ],
)
def test_small_and_large_sweeps_draw_without_a_warning(
    tmp_path: Path, sweep: Sweep, test: int
) -> None:
    for name, figure in figures_of(sweep, test).items():
        for path in save(figure, tmp_path / name):
            assert path.stat().st_size > 5_000


def test_a_score_is_a_column_and_a_train_size_a_pair_of_rows() -> None:
    figure = accuracy_figure(*numbers(TWO))
    assert len(figure.axes) == 2 * 2 * 2
    assert [axes.get_title("left") for axes in figure.axes[:2]] == [
        "pruned by l2",
        "pruned by activation",
    ]
    for word in ("longest choice", "chance", "teacher", "KL - CE is paired"):
        assert word in texts(figure)


def test_of_one_sparsity_accuracy_is_drawn_over_train_size() -> None:
    figure = accuracy_figure(*numbers(sweep_of((0.4,), (200, 600), score=("l2", "activation"))))
    assert len(figure.axes) == 2 * 2
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    below = figure.axes[-1]
    assert [label.get_text() for label in below.get_xticklabels()] == ["200", "600"]
    assert below.get_xlabel() == "train questions"
    assert figure.axes[0].get_title("left").startswith("pruned by l2, sparsity 0.4")


def test_a_curve_is_drawn_only_where_there_are_two_points() -> None:
    assert {"train_size", "conformal"} <= set(figures_of(TWO))
    one = figures_of(sweep_of((0.2,)))
    assert not {"train_size", "conformal"} & set(one)
    assert "train_size" not in figures_of(sweep_of((0.2, 0.4)))
    for axes in one["accuracy"].axes[:1]:  # the pruned model's curve starts at the teacher
        assert max(len(line.get_xdata()) for line in axes.get_lines()) > 1


def test_where_nothing_regrew_no_difference_is_drawn_but_a_mark() -> None:
    curves, about = numbers(TWO)
    told = [{**row, "verdict": "superior"} for row in curves["difference"]]
    curves = {**curves, "difference": told}
    for figure in (accuracy_figure(curves, about), difference_figure(curves, about)):
        assert "nothing regrew" not in texts(figure)
    floor = {"verdict": "not testable", "difference": 0.31, "difference_low": None}
    at = {**curves, "difference": [{**told[0], **floor}, *told[1:]]}
    assert "nothing regrew" in texts(accuracy_figure(at, about))
    forest = texts(difference_figure(at, about))
    assert forest.count("nothing regrew") == 1
    assert "+31.0" not in forest


def test_what_was_named_before_the_run_is_told_from_what_was_looked_at_after() -> None:
    assert "named before" not in texts(difference_figure(*numbers(TWO)))
    named = texts(difference_figure(*numbers(TWO, primary=["l2-0.4-600"])))
    assert "named before the run" in named and "looked at after" in named


def test_plot_stands_on_support_alone_and_importance_on_the_style_alone() -> None:
    def imported(path: Path) -> set[str]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}

    for path in (ROOT / "src/regrow/plot").glob("*.py"):
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("regrow.")}
        assert rooms <= {"plot", "support"}
    assert "regrow.plot.figures" not in imported(ROOT / "src/regrow/plot/style.py")
