"""The figure of what pruning takes: the layers' norms, and for each score what goes where."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from regrow.importance.layers import Array, Layer
from regrow.plot.style import legend, panels, settings
from regrow.support.tables import entries

KEPT, ACTIVE = "#9ecae1", "#D55E00"  # Okabe and Ito 2008, "Color Universal Design"
MOST_ACTIVE = 0.01  # the share of a layer's neurons that the figure calls its most active
MARKERS = ("o", "s", "^", "D", "v", "P")


@settings()
def importance_figure(layers: Sequence[Layer], tokens: int, questions: int) -> Figure:
    """Norms by layer; for each score the activation that goes, and the neurons of one layer.

    tokens, questions: over how many of these the activations are means.
    """
    scores = list(dict.fromkeys(score for score, _ in layers[0].removed))
    sparsities = sorted({sparsity for _, sparsity in layers[0].removed})
    shown = outlier(layers)
    words = entries("prune/scores.py", "SCORES")
    note = (
        "A neuron's norm is over its row of gate_proj, its row of up_proj and its column of "
        "down_proj; lines reach from the lowest\nto the 95 % quantile, boxes hold the middle half. "
        "Its activation is the input to down_proj, in absolute value, the mean over\n"
        f"{tokens:,} tokens of {questions:,} train question{'s' * (questions != 1)}. Dotted: what "
        "goes if neurons are drawn at random. On the right, layer "
        f"{shown}, whose neuron\nof the lowest norm is the most active one against its layer's "
        "median; each neuron in the shade of the first sparsity at which it goes."
    )
    heights = (1.5, *(1.6 for _ in scores))
    figure, grid = panels((4.4, 2.2), heights, note, top=0.5, across=0.75, down=0.55)
    _draw_norms(grid[0, 0], layers)
    grid[0, 1].remove()
    handles: list[Artist] = []
    for (left, right), score in zip(grid[1:], scores, strict=True):
        handles = _draw_shares(left, layers, score, sparsities)
        left.set_title(f"{score}: {words.get(score, '')}", loc="left", fontsize=8)
        _draw_neurons(right, layers[shown], score, sparsities)
        right.set_title(f"neurons of layer {shown}", loc="left", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_xlim(-0.7, len(layers) - 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))
    grid[-1, 0].set_xlabel("layer")
    grid[-1, 1].set_xlabel("L2 norm of the neuron's weights")
    kept = Line2D([], [], linestyle="", marker=".", color=KEPT, label="kept")
    legend(figure, [*handles, kept])
    return figure


def outlier(layers: Sequence[Layer]) -> int:
    """The layer whose neuron of the lowest norm is the most active, over the layer's median."""
    return int(np.argmax(np.nan_to_num([layer.over_median(layer.lowest) for layer in layers])))


def _shade(place: int, count: int) -> str:
    """Grey by the sparsity's place: what goes first is black."""
    return str(round(0.65 * place / max(1, count - 1), 2))


def _draw_norms(axes: Axes, layers: Sequence[Layer]) -> None:
    """The layers' norms in quantiles; the neuron of the lowest, full where it is most active."""
    places = np.arange(len(layers))
    quantiles = [np.quantile(layer.norms, (0, 0.25, 0.5, 0.75, 0.95)) for layer in layers]
    lowest, low, middle, high, highest = np.transpose(quantiles)
    axes.vlines(places, lowest, highest, color="#444444", linewidth=0.8)
    axes.bar(places, high - low, 0.5, bottom=low, color="white", edgecolor="black", linewidth=0.7)
    axes.hlines(middle, places - 0.25, places + 0.25, color="black", linewidth=1.2)
    ranks = np.array([layer.activation_rank(layer.lowest) for layer in layers])
    active = ranks <= max(1, round(MOST_ACTIVE * len(layers[0].norms)))
    look: dict[str, Any] = {"color": "black", "markersize": 4, "markeredgewidth": 0.7}
    for chosen, fill, label in (
        (~active, "white", "lowest norm"),
        (active, ACTIVE, f"… and in the {100 * MOST_ACTIVE:g} % most active"),
    ):
        at = places[chosen], lowest[chosen]
        axes.plot(*at, marker="D", linestyle="", markerfacecolor=fill, label=label, **look)
    reach = float(highest.max() - lowest.min()) or 1.0
    axes.set_ylim(lowest.min() - 0.08 * reach, highest.max() + 0.08 * reach)
    axes.set_ylabel("L2 norm of the\nneuron's weights")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)


def _draw_shares(
    axes: Axes, layers: Sequence[Layer], score: str, sparsities: Sequence[float]
) -> list[Artist]:
    """The removed neurons' share of each layer's activation, a line a sparsity; gives these."""
    lines: list[Artist] = []
    for place, sparsity in enumerate(sparsities):
        cut, shade = (score, sparsity), _shade(place, len(sparsities))
        at_random = 100 * float(layers[0].removed[cut].mean())
        axes.axhline(at_random, color=shade, linestyle=":", linewidth=1.0)
        shares = [100 * layer.activation_removed(cut) for layer in layers]
        look: dict[str, Any] = {
            "color": shade,
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 3.2,
        }
        lines += axes.plot(shares, linewidth=1.0, label=f"sparsity {sparsity:g}", **look)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("removed, % of the\nlayer's activation")
    return lines


def _draw_neurons(axes: Axes, layer: Layer, score: str, sparsities: Sequence[float]) -> None:
    """Activation over norm, a dot a neuron, in the shade of the sparsity at which it goes."""
    x, y = _positive(layer.norms), _positive(layer.activations)
    axes.set_xscale("log")
    axes.set_yscale("log")
    # As an image inside the SVG: a layer may hold tens of thousands of neurons.
    axes.plot(x, y, linestyle="", marker=".", color=KEPT, markersize=2, rasterized=True)
    # The largest first: what goes at a smaller sparsity goes at every larger one too.
    for place, sparsity in reversed(list(enumerate(sparsities))):
        gone, mark = layer.removed[score, sparsity], MARKERS[place % len(MARKERS)]
        look: dict[str, Any] = {
            "color": _shade(place, len(sparsities)),
            "markersize": 1.6,
            "markeredgewidth": 0,
        }
        axes.plot(x[gone], y[gone], linestyle="", marker=mark, rasterized=True, **look)
    axes.set_ylabel("mean |activation|")
    few, many = MaxNLocator(6, steps=[1, 2, 5, 10]), LogLocator(subs=(1, 2, 5))
    axes.xaxis.set_major_locator(many if x.max() > 4 * x.min() else few)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _positive(values: Array) -> Array:
    """For a logarithmic axis: a zero goes to half of the smallest value above it."""
    above = values[values > 0]
    return np.maximum(values, above.min() / 2 if above.size else 1.0)
