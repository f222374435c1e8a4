"""The figure of how much of what was bought is reached when a share of everything else has been shown: the ROC of rank."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, NullFormatter

from tfrs_fashion.evaluation.drawing import GREY, format_share, make_panels, scale_axis, shorten
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics.target_ranks import pooled_auc, roc_curve
from tfrs_fashion.evaluation.report.accuracy_figure import MAX_LINES, style_line

# The share of what was not bought at which the curves are told in words.
TOLD_AT = 0.1
# Points of a curve between two of its markers.
MARKED_EVERY = 24
# Where curves are read: evenly, and evenly in the logarithm for the inset.
SHARES = np.linspace(0, 1, 201)
LOG_SHARES = np.geomspace(1e-3, 1, 61)


def draw_roc(ranks: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws the ROC of rank of the recommenders whose area is largest, above the diagonal of chance.

    The inset shows the same in logarithms: what comes first is all that is ever shown.

    Args:
        ranks: TargetRanks of the same targets by recommender, at least one.

    Raises:
        InputError: A recommender has no row.
    """
    area = {name: pooled_auc(found) for name, found in ranks.items()}
    curves = {name: roc_curve(found, SHARES) for name, found in ranks.items()}
    kept = sorted(ranks, key=lambda name: -area[name])[:MAX_LINES]
    some = ranks[kept[0]]
    purchases = f"{len(some):,} purchase{'' if len(some) == 1 else 's'}"
    title = f"ROC of rank: {purchases} among {int(some['num_ranked'].max()):,} articles in store"
    (axes,) = make_panels(title, heights=(4.4,))
    axes.plot([0, 1], [0, 1], color="#8a8a8a", linewidth=1, linestyle="--")
    axes.annotate("chance", (0.3, 0.3), (4, -12), textcoords="offset points", fontsize=8.5, color=GREY)
    inset = axes.inset_axes((0.6, 0.1, 0.38, 0.36), xscale="log", yscale="log")
    inset.plot(LOG_SHARES, LOG_SHARES, color="#8a8a8a", linewidth=1, linestyle="--")
    for number, name in enumerate(kept):
        style = style_line(number)
        label, every = f"{shorten(name, 30)} ({area[name]:.3f})", (3 * number, MARKED_EVERY)
        axes.plot(SHARES, curves[name], label=label, **style | {"markevery": every})
        inset.plot(LOG_SHARES, roc_curve(ranks[name], LOG_SHARES), **style | {"marker": "", "linewidth": 1.2})
    inset.set_xlim(LOG_SHARES[0], 1)
    inset.set_ylim(LOG_SHARES[0], 1.2)
    inset.tick_params(labelsize=7.5)
    for axis in (inset.xaxis, inset.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{100 * value:.3g}%"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("share of the articles not bought that is shown first")
    axes.set_ylabel("share of purchases reached")
    for which in ("x", "y"):
        scale_axis(axes, which, is_share=True)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9, handlelength=3.2)
    first, *others = kept

    def reached(name: str) -> str:
        return format_share(float(curves[name][round(TOLD_AT * (len(SHARES) - 1))]))

    told = format_share(TOLD_AT)
    sentences = [
        f"When {told} of what was not bought has been shown, {first} has reached {reached(first)} of purchases."
    ]
    if others:
        sentences.append(f"Next comes {others[0]} with {reached(others[0])}.")
    caption = (
        f"{purchases} of {some['customer_index'].nunique():,} customers; in parentheses the area under the line, "
        "`auc_pooled`. Inset: the same in logarithms."
    )
    if left_out := len(ranks) - len(kept):
        caption += f" {'1 with less area is' if left_out == 1 else f'{left_out} with less area are'} left out."
    data = {name: {"shown": SHARES.tolist(), "reached": found.tolist()} for name, found in curves.items()}
    return Figure("roc_of_rank", "ROC of rank", title, tuple(sentences), caption, len(some), data, axes)
