"""The figure of what pruning takes: by layer, and neuron by neuron in three layers.

It draws `regrow.importance` in the style of `regrow.figures`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from regrow.importance.layers import Array, Importance
from regrow.plot.style import settings, spread

# Okabe and Ito 2008, "Color Universal Design"; marks and shades tell the same without colour.
KEPT, REMOVED, RANGE, NAMED = "#b3b3b3", "black", "#56B4E9", "#D55E00"
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_ACTIVE = 0.01  # the share of a layer's neurons that the figure calls its most active
CHOSEN = {
    "l2": "of the lowest L2 norm",
    "random": "drawn at random",
    "activation": "of the lowest activation times output norm",
}


# Inches.
WIDTH, LEFT, RIGHT, TOP = 7.2, 0.7, 0.85, 0.5
NORMS, SHARES, NEURONS = 1.6, 1.5, 2.1
GAP, BELOW_LAYERS, BELOW = 0.45, 1.1, 1.5


def importance_figure(importance: Importance) -> Figure:
    """Norms by layer, the share of activation removed by layer, the neurons of three layers."""
    with settings():
        return _importance_figure(importance)


def _importance_figure(importance: Importance) -> Figure:
    height = TOP + NORMS + GAP + SHARES + BELOW_LAYERS + NEURONS + BELOW
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)

    def panel(left: float, bottom: float, width: float, tall: float) -> Axes:
        return figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, tall / height))

    inner, top = WIDTH - LEFT - RIGHT, height - TOP
    norms = panel(LEFT, top - NORMS, inner, NORMS)
    _draw_norms(norms, importance)
    shares = panel(LEFT, top - NORMS - GAP - SHARES, inner, SHARES)
    _draw_shares(shares, importance)
    for axes in (norms, shares):
        axes.set_xlim(-0.7, len(importance.layers) - 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    norms.tick_params(labelbottom=False)
    shares.set_xlabel("layer")
    across = 0.5
    width = (WIDTH - LEFT - 0.1 - 2 * across) / 3  # one layer is drawn as narrow as three
    for place, (number, reason) in enumerate(shown_layers(importance).items()):
        axes = panel(LEFT + place * (width + across), BELOW, width, NEURONS)
        _draw_neurons(axes, importance, number)
        axes.set_title(f"layer {number}{reason}", loc="left", fontsize=8)
        axes.set_xlabel("L2 norm of the neuron's weights", fontsize=8)
        _letter(axes, "cde"[place], -44 if place == 0 else -28)
        if place == 0:
            axes.set_ylabel("mean |activation|")
            _legend(axes, _neuron_handles(importance), 1 + 0.2 / NEURONS)
    figure.text(LEFT / WIDTH, 0.1 / height, _note(importance), va="bottom", fontsize=7.5)
    return figure


def shown_layers(importance: Importance) -> dict[int, str]:
    """The layers whose neurons are drawn one by one, and in words what each stands for.

    The first; the one whose neuron of the lowest norm is the most active, over the layer's median;
    and the one with the median share of activation removed at the smallest sparsity.
    """
    layers = importance.layers
    if len(layers) == 1:
        return {0: ""}
    outliers = [layer.over_median(layer.lowest) or 0.0 for layer in layers]
    shares = [layer.activation_removed(importance.sparsities[0]) or 0.0 for layer in layers]
    median = sorted(range(len(layers)), key=lambda number: shares[number])[(len(layers) - 1) // 2]
    reasons: dict[int, list[str]] = {0: ["first"]}
    reasons.setdefault(int(np.argmax(outliers)), []).append("largest outlier")
    reasons.setdefault(median, []).append("median")
    return {number: f": {', '.join(words)}" for number, words in reasons.items()}


def _draw_norms(axes: Axes, importance: Importance) -> None:
    """The layers' norms in quantiles, the range that goes, the neuron of the lowest norm."""
    layers = importance.layers
    first = importance.sparsities[0]
    places = np.arange(len(layers))
    lowest, low, middle, high, highest = (
        np.array([np.quantile(layer.norms, at) for layer in layers])
        for at in (0, 0.25, 0.5, 0.75, 0.95)
    )
    handles: list[Artist] = []
    if importance.score == "l2" and layers[0].removed[first].any():
        cut = np.array([layer.norms[layer.removed[first]].max() for layer in layers])
        axes.bar(places, cut - lowest, 1.0, bottom=lowest, color=RANGE, alpha=0.5, linewidth=0)
        handles.append(Patch(color=RANGE, alpha=0.5, linewidth=0, label=_at(importance)))
    axes.vlines(places, lowest, highest, color="#444444", linewidth=0.8)
    axes.bar(places, high - low, 0.5, bottom=low, color="white", edgecolor="black", linewidth=0.7)
    axes.hlines(middle, places - 0.25, places + 0.25, color="black", linewidth=1.2)
    active = [
        layer.activation_rank(layer.lowest) <= max(1, round(MOST_ACTIVE * importance.neurons))
        for layer in layers
    ]
    for chosen, fill in ((False, "white"), (True, NAMED)):
        at = places[np.array(active) == chosen]
        axes.plot(at, lowest[at], **_diamond(fill))
    reach = float(highest.max() - lowest.min()) or 1.0
    axes.set_ylim(lowest.min() - 0.08 * reach, highest.max() + 0.08 * reach)
    axes.set_ylabel("L2 norm of the\nneuron's weights")
    handles += [
        Patch(facecolor="white", edgecolor="black", linewidth=0.7, label="middle half"),
        Line2D([], [], label="lowest norm", **_diamond("white")),
        Line2D(
            [], [], label=f"… and in the {100 * MOST_ACTIVE:g} % most active", **_diamond(NAMED)
        ),
    ]
    _letter(axes, "a")
    _legend(axes, handles, 1 + 0.05 / NORMS)


def _draw_shares(axes: Axes, importance: Importance) -> None:
    """The removed neurons' share of each layer's activation, a line a sparsity."""
    layers = importance.layers
    places = np.arange(len(layers))
    ends: dict[str, float] = {}
    for step, sparsity in enumerate(importance.sparsities):
        shade = str(round(0.55 * (1 - step / max(1, len(importance.sparsities) - 1)), 2))
        shares = [layer.activation_removed(sparsity) for layer in layers]
        values = np.array([np.nan if share is None else 100 * share for share in shares])
        axes.axhline(
            100 * importance.neurons_removed(sparsity), color=shade, linestyle=":", linewidth=1.0
        )
        axes.plot(
            places,
            values,
            color=shade,
            linewidth=1.0,
            marker=MARKERS[step % len(MARKERS)],
            markersize=3.2,
        )
        ends[f"sparsity {sparsity:g}"] = 0.0 if np.isnan(values[-1]) else float(values[-1])
    axes.set_ylim(bottom=0)
    top = axes.get_ylim()[1]
    for name, height in spread({name: end / top for name, end in ends.items()}, 0.1).items():
        axes.text(1.0, height, name, transform=axes.transAxes, va="center", fontsize=7.5)
    axes.set_ylabel("removed, % of the\nlayer's activation")
    _letter(axes, "b")
    handles: list[Artist] = [
        Line2D([], [], color="black", linewidth=1.0, marker="o", markersize=3.2, label="removed"),
        Line2D([], [], color="black", linestyle=":", linewidth=1.0, label="if drawn at random"),
    ]
    _legend(axes, handles, 1 + 0.05 / SHARES)


def _draw_neurons(axes: Axes, importance: Importance, number: int) -> None:
    """Activation over norm, a dot a neuron; those that go first as crosses, the lowest by name."""
    layer = importance.layers[number]
    x, y = _positive(layer.norms), _positive(layer.activations)
    gone = layer.removed[importance.sparsities[0]]
    axes.set_xscale("log")
    axes.set_yscale("log")
    # As an image inside the SVG: a layer may hold tens of thousands of neurons.
    axes.plot(x[~gone], y[~gone], rasterized=True, **_dot())
    axes.plot(x[gone], y[gone], rasterized=True, **_cross())
    if importance.score == "l2":
        ends = dict(zip(("right", "left"), _ends(importance.sparsities), strict=False))
        for side, sparsity in ends.items():
            if layer.removed[sparsity].any():
                cut = float(x[layer.removed[sparsity]].max())
                axes.axvline(cut, 0, 0.74, **_cut())  # below the name of a neuron
                axes.annotate(
                    f"{sparsity:g}",
                    (cut, 0.74),
                    xycoords=axes.get_xaxis_transform(),
                    xytext=(-1 if side == "right" else 1, 0),
                    textcoords="offset points",
                    ha=side,
                    va="bottom",
                    fontsize=7,
                )
    axes.plot(x[layer.lowest], y[layer.lowest], **_diamond(NAMED, 5))
    axes.margins(x=0.08)
    # Room above the neurons for the name of one of them.
    axes.set_ylim(y.min() / 1.3, y.max() * 1.3 * (y.max() / y.min()) ** 0.42)
    ratio = layer.over_median(layer.lowest)
    times = None if ratio is None else f"{ratio:,.0f}" if ratio > 10 else f"{ratio:.2g}"
    over = "" if times is None else f"{times} times the median,\n"
    axes.annotate(
        f"neuron {layer.lowest}, of the lowest norm:\n{over}"
        f"activation rank {layer.activation_rank(layer.lowest):,} of {importance.neurons:,}",
        (x[layer.lowest], y[layer.lowest]),
        xytext=(0.04, 0.98),
        textcoords="axes fraction",
        va="top",
        fontsize=7,
        bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
        arrowprops={"arrowstyle": "-", "linewidth": 0.6, "relpos": (0, 0), "shrinkB": 3},
    )
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5)) if x.max() > 4 * x.min() else MaxNLocator(6, steps=[1, 2, 5, 10])
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _neuron_handles(importance: Importance) -> list[Artist]:
    handles = [
        Line2D([], [], label=_at(importance), **_cross()),
        Line2D([], [], label="kept", **_dot()),
        Line2D([], [], label="lowest norm", **_diamond(NAMED, 5)),
    ]
    if importance.score == "l2":
        ends = " and ".join(f"{sparsity:g}" for sparsity in _ends(importance.sparsities))
        handles.append(Line2D([], [], label=f"removed left of here at {ends}", **_cut()))
    return list(handles)


def _note(importance: Importance) -> str:
    count = round(importance.neurons_removed(importance.sparsities[0]) * importance.neurons)
    layers, questions = len(importance.layers), importance.questions
    terms = (
        "\nLargest outlier: the layer whose neuron of the lowest norm is the most active, over the "
        "layer's median.\nMedian: the layer of the median share in b, at the smallest sparsity."
    )
    return (
        f"{layers} layer{'s' * (layers != 1)} of {importance.neurons:,} neurons; "
        f"at sparsity {importance.sparsities[0]:g}, {count:,} neurons a layer go, those "
        f"{CHOSEN[importance.score]}.\n"
        "A neuron's norm is over its row of gate_proj, its row of up_proj and its column of "
        "down_proj;\nits activation is the input to down_proj, in absolute value, the mean over "
        f"{importance.tokens:,} tokens of {questions:,} train question{'s' * (questions != 1)}.\n"
        "a: lines reach from the lowest norm to the 95 % quantile. "
        "b: shares of the summed activations of a layer."
        f"{terms if layers > 1 else ''}"
    )


def _at(importance: Importance) -> str:
    return f"removed at sparsity {importance.sparsities[0]:g}"


def _ends(sparsities: Sequence[float]) -> Sequence[float]:
    """The smallest and the largest; one where there is one."""
    return [sparsities[0], sparsities[-1]][: len(sparsities)]


def _dot() -> dict[str, Any]:
    return {"linestyle": "", "marker": ".", "color": KEPT, "markersize": 2}


def _cross() -> dict[str, Any]:
    return {
        "linestyle": "",
        "marker": "x",
        "color": REMOVED,
        "markersize": 2.5,
        "markeredgewidth": 0.5,
    }


def _diamond(fill: str, size: float = 4) -> dict[str, Any]:
    return {
        "linestyle": "",
        "marker": "D",
        "color": "black",
        "markerfacecolor": fill,
        "markersize": size,
        "markeredgewidth": 0.7,
    }


def _cut() -> dict[str, Any]:
    return {"color": "#444444", "linewidth": 0.8, "linestyle": (0, (1, 2))}


def _legend(axes: Axes, handles: list[Artist], height: float) -> None:
    """A row of names above a panel."""
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, height),
        ncols=len(handles),
        frameon=False,
        fontsize=7.5,
        borderaxespad=0,
        borderpad=0.2,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.5,
    )


def _letter(axes: Axes, letter: str, across: float = -46, above: float = 4) -> None:
    """Name a panel; its place is in points from the upper left corner."""
    axes.annotate(
        letter,
        (0, 1),
        xycoords="axes fraction",
        xytext=(across, above),
        textcoords="offset points",
        fontweight="bold",
    )


def _positive(values: Array) -> Array:
    """For a logarithmic axis: a zero goes to half of the smallest value above it."""
    above = values[values > 0]
    return np.maximum(values, above.min() / 2 if above.size else 1.0)
