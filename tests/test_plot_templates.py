"""The Vega-Lite template in .dvc/plots, filled by DVC's own renderer."""

import json
from pathlib import Path

from dvc_render.vega import VegaRenderer

from regrow.compare.study import METHODS
from regrow.plot.style import STYLES

TEMPLATES = Path(__file__).parent.parent / ".dvc/plots"


def filled(name: str) -> str:
    points = [
        {"rev": rev, "filename": "accuracy.csv", "field": "accuracy", "method": method}
        | {"score": "l2", "sparsity": "0.2", "retention": "0.9", "train_size": "600"}
        | {"accuracy": "0.4", "accuracy_low": "0.3", "accuracy_high": "0.5"}
        for rev in ("HEAD", "workspace")
        for method in METHODS
    ]
    renderer = VegaRenderer(
        points,
        "accuracy",
        template=name,
        template_dir=str(TEMPLATES),
        x="retention",
        y="accuracy",
        title="Accuracy",
        x_label="retention",
        y_label="accuracy",
        anchors_y_definitions=[{"filename": "accuracy.csv", "field": "accuracy"}],
    )
    return json.dumps(renderer.get_filled_template())


def test_every_anchor_is_filled_and_the_interval_columns_are_read() -> None:
    spec = filled("interval")
    assert "<DVC_METRIC" not in spec
    assert "datum['accuracy_low']" in spec and "datum['accuracy_high']" in spec


def test_scores_are_told_apart() -> None:
    panel = next(
        one for one in json.loads(filled("interval"))["transform"] if one.get("as") == "panel"
    )
    assert panel["calculate"].startswith("datum.score + ', ' + datum.model")


def test_every_method_has_a_name_and_the_colour_of_the_figures() -> None:
    spec = filled("interval")
    for method in METHODS:
        assert f"{method}: '" in spec
    for name in ("distill", "finetune"):
        assert STYLES[name].colour in spec and STYLES[name].label in spec
