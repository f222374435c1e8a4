"""The figure of how much of what was bought is reached when a share of everything else has been shown: the ROC of rank."""

from collections.abc import Mapping

import pandas as pd

from tfrs_fashion.evaluation.accuracy_figure import MAX_LINES, style_line
from tfrs_fashion.evaluation.drawing import GREY, format_share, make_panels, scale_axis, shorten
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.target_ranks import pooled_auc, roc_curve

# The share of what was not bought at which the curves are told in words.
TOLD_AT = 0.1
# Points of a curve between two of its markers.
MARKED_EVERY = 24


def draw_roc(ranks: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws the ROC of rank of the recommenders whose area is largest, above the diagonal of chance.

    Args:
        ranks: TargetRanks of the same targets by recommender, at least one.

    Raises:
        InputError: A recommender has no row.
    """
    area = {name: pooled_auc(found) for name, found in ranks.items()}
    curves = {name: roc_curve(found) for name, found in ranks.items()}
    kept = sorted(ranks, key=lambda name: -area[name])[:MAX_LINES]
    some = ranks[kept[0]]
    purchases = f"{len(some):,} purchase{'' if len(some) == 1 else 's'}"
    title = f"ROC of rank: {purchases} among {int(some['num_ranked'].max()):,} articles in store"
    (axes,) = make_panels(title, heights=(4.4,))
    axes.plot([0, 1], [0, 1], color="#8a8a8a", linewidth=1, linestyle="--")
    axes.annotate("chance", (0.72, 0.72), (4, -12), textcoords="offset points", fontsize=8.5, color=GREY)
    for number, name in enumerate(kept):
        style = style_line(number) | {"markevery": (3 * number, MARKED_EVERY)}
        axes.plot(*curves[name], label=f"{shorten(name, 30)} ({area[name]:.3f})", **style)
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
        return format_share(float(curves[name][1][round(TOLD_AT * (len(curves[name][0]) - 1))]))

    told = format_share(TOLD_AT)
    sentences = [
        f"When {told} of what was not bought has been shown, {first} has reached {reached(first)} of purchases."
    ]
    if others:
        sentences.append(f"Next comes {others[0]} with {reached(others[0])}.")
    caption = (
        f"{purchases} of {some['customer_index'].nunique():,} customers; in parentheses the area under the line, "
        "`auc_pooled`."
    )
    if left_out := len(ranks) - len(kept):
        caption += f" {'1 with less area is' if left_out == 1 else f'{left_out} with less area are'} left out."
    data = {name: {"shown": shown.tolist(), "reached": found.tolist()} for name, (shown, found) in curves.items()}
    return Figure("roc_of_rank", "ROC of rank", title, tuple(sentences), caption, len(some), data, axes)
