"""Figures of distributions: basket sizes, quantities, activity, days between purchases, prices and ages."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.drawing import (
    BLACK,
    Labels,
    draw_histogram,
    draw_violins,
    format_amount,
    format_share,
    make_panels,
    shorten,
    weighted_quantile,
)
from tfrs_fashion.evaluation.exploration import aggregates
from tfrs_fashion.evaluation.exploration.aggregates import Basis
from tfrs_fashion.evaluation.figure import Drawing, clip_limit, count_noun, join_sentences, list_columns

MAX_BINS = 40
MAX_VIOLINS = 8
MIN_VIOLIN_LINES = 50


@dataclass(frozen=True)
class Distribution:
    """A distribution over whole numbers.

    Attributes:
        count: Counts `rows` by `value`, ascending.
        title: What the figure shows.
        x: Label of the horizontal axis.
        unit: What a value counts, in the singular.
        noun: What the rows are, in the singular.
        constant: The reason to leave the figure out if all values are equal; `{value}` is that value.
        sentence: What the figure says; `{median}` (with its unit), `{mean}`, `{lowest}` and `{share}` (of the lowest) are numbers.
    """

    count: Callable[[Basis], pd.DataFrame]
    title: str
    x: str
    unit: str
    noun: str
    constant: str
    sentence: str


DISTRIBUTIONS = {
    "basket_sizes": Distribution(
        aggregates.count_basket_sizes,
        title="Share of baskets by their number of lines",
        x="lines in the basket",
        unit="line",
        noun="basket",
        constant="every basket has the same number of lines: {value}.",
        sentence="Baskets have {median} at the median and {mean} on average; {share} of baskets have {lowest}.",
    ),
    "quantities": Distribution(
        aggregates.count_quantities,
        title="Share of lines by their quantity",
        x="units in the line",
        unit="unit",
        noun="line",
        constant="every line has the same quantity, {value}, or the source has none.",
        sentence="{share} of the lines have the quantity {lowest}; the mean is {mean}.",
    ),
    "activity": Distribution(
        aggregates.count_activity,
        title="Share of customers by their number of baskets",
        x="baskets of the customer",
        unit="basket",
        noun="customer",
        constant="every customer has the same number of baskets: {value}.",
        sentence="Customers have {median} at the median and {mean} on average; {share} of them have {lowest}.",
    ),
    "gaps": Distribution(
        aggregates.count_gaps,
        title="Share of intervals between a customer's purchases by their length",
        x="days from one day with a purchase to the next",
        unit="day",
        noun="interval",
        constant="all intervals between purchases have the same length in days: {value}.",
        sentence="Half of the time a customer who comes back does so within {median}; the mean is {mean} days.",
    ),
}


def draw_distribution(basis: Basis, name: str) -> Drawing | str:
    """Draws the histogram of the distribution `name` of `DISTRIBUTIONS`."""
    shown = DISTRIBUTIONS[name]
    counted, plural = shown.count(basis), shown.noun + "s"
    if counted.empty:
        return f"there are no {plural}."
    values, rows = counted["value"].to_numpy(), counted["rows"].to_numpy()
    if len(values) == 1:
        return shown.constant.format(value=f"{values[0]:,}")
    total, upper, lowest = int(rows.sum()), int(clip_limit(values, rows)), int(values[0])
    within = values <= upper
    left_out = int(rows[~within].sum())
    width = max(1, int(np.ceil((upper - lowest + 1) / MAX_BINS)))
    bins = np.bincount((values[within] - lowest) // width, weights=rows[within]).astype(int)
    low = lowest + width * np.arange(len(bins))
    (axes,) = make_panels(shown.title, heights=[2.8])
    draw_histogram(axes, low, width if width > 1 else 0, bins / total, x=shown.x, y=plural)
    if left_out == 0 and width > 1:
        axes.set_xlim(right=upper + width)
    median, mean = weighted_quantile(values, rows, 0.5), float((values * rows).sum() / total)
    sentence = shown.sentence.format(
        median=f"{median:,.0f} {shown.unit}{'s' * (median != 1)}",
        mean=f"{mean:,.1f}",
        lowest=f"{lowest:,}",
        share=format_share(rows[0] / total),
    )
    caption = join_sentences(
        f"{total:,} {plural}.",
        f"Each bar holds {width} numbers." if width > 1 else "",
        f"{count_noun(left_out, shown.noun)} left out: above {upper:,}, the 99th percentile; the highest is {int(values[-1]):,}."
        if left_out
        else "",
    )
    data = {
        "low": low.tolist(),
        "width": width,
        "rows": bins.tolist(),
        "left_out": left_out,
        "median": median,
        "mean": mean,
    }
    return Drawing(shown.title, (sentence,), caption, total, data, axes)


def _format_price(price: float) -> str:
    return f"{price:,.2f}" if price >= 10 else f"{price:.3g}"


def draw_prices(basis: Basis) -> Drawing | str:
    """Draws the histogram of the price paid per unit."""
    totals = basis.totals
    priced = int(totals["priced_lines"])
    if priced == 0:
        return "the source has no prices."
    highest, percentile, median = (float(totals[f"price_{which}"]) for which in ("max", "p99", "median"))
    if highest == 0:
        return f"all {priced:,} prices are 0."
    # The 99th percentile may be 0, if nearly all lines are free.
    upper = percentile if 0 < 1.3 * percentile < highest else highest
    counted = aggregates.count_prices(basis, upper=upper)
    title = "Share of lines by the price paid per unit"
    (axes,) = make_panels(title, heights=[2.8])
    x = "price per unit, in the source's currency"
    low, shares = counted["low"].to_numpy(), counted["rows"].to_numpy() / priced
    draw_histogram(axes, low, upper / len(low), shares, x=x, y="lines")
    axes.axvline(median, color=BLACK, linestyle="--", linewidth=1.2, label=f"median {_format_price(median)}")
    axes.legend(loc="upper right")
    left_out, free = priced - int(counted["rows"].sum()), int(totals["free_lines"])
    missing = int(totals["lines"]) - priced
    sentence = (
        f"Half of the lines cost {_format_price(median)} per unit or less, 99% at most {_format_price(percentile)}."
    )
    caption = join_sentences(
        f"{priced:,} lines of transactions with a price.",
        f"{count_noun(missing, 'line')} without one." if missing else "",
        f"{count_noun(free, 'line')} free." if free else "",
        f"{count_noun(left_out, 'line')} left out: above {_format_price(upper)}, the 99th percentile; the highest is "
        f"{_format_price(highest)}."
        if left_out
        else "",
    )
    data = {**list_columns(counted), "left_out": left_out, "median": median, "free": free, "missing": missing}
    return Drawing(title, (sentence,), caption, priced, data, axes)


def draw_ages(basis: Basis) -> Drawing | str:
    """Draws buyers' ages, weighted by lines: one violin per group of articles."""
    if "age" not in basis.customers.columns:
        return "the source has no age of customers."
    group = basis.group
    counted = aggregates.count_ages(basis, group)
    if counted.empty:
        return "no line is of a customer whose age is known."
    if not group:
        counted = counted.assign(group="all articles")
    total = int(counted["lines"].sum())
    upper = clip_limit(counted["age"].to_numpy(), counted["lines"].to_numpy())
    within = counted[counted["age"].between(0, upper)]
    if within.empty:
        return f"all {total:,} ages known are below 0."
    left_out = total - int(within["lines"].sum())
    sums = within.groupby("group")["lines"].sum().sort_values(ascending=False, kind="stable")
    # A violin of a few lines shows nothing but chance.
    shown = list(sums.index[sums >= MIN_VIOLIN_LINES][:MAX_VIOLINS]) or list(sums.index[:1])
    ages = np.arange(int(within["age"].min()), int(within["age"].max()) + 1)
    table = within.pivot_table(index="group", columns="age", values="lines", aggfunc="sum")
    counts = table.reindex(index=shown, columns=ages).fillna(0).to_numpy()
    medians = [weighted_quantile(ages, row, 0.5) for row in counts]
    labels = Labels(length=22)
    title = "Age of the buyers of lines sold" + (f", by {group.replace('_', ' ')}" if group else "")
    (axes,) = make_panels(title, heights=[0.6 + 0.62 * len(shown)])
    names = [f"{labels.draw(value)}\n{format_amount(sums[value])} lines" for value in shown]
    draw_violins(axes, names, ages, counts, unit="age of the customer, years")
    overall = weighted_quantile(ages, counts.sum(axis=0), 0.5)
    sentences = [f"Half of the lines are of customers aged {overall:.0f} or younger."]
    if len(shown) > 1 and max(medians) > min(medians):
        young, old = int(np.argmin(medians)), int(np.argmax(medians))
        sentences.append(
            f"The median is lowest for {shorten(shown[young])} ({medians[young]:.0f}) and highest for "
            f"{shorten(shown[old])} ({medians[old]:.0f})."
        )
    hidden = sums.iloc[len(shown) :]
    caption = join_sentences(
        f"{total:,} of {int(basis.totals['lines']):,} lines, whose customer's age is known; each violin has the same height, "
        "the bar spans the middle half, the dot is the median.",
        f"{count_noun(left_out, 'line')} left out: ages below 0 or above {upper}." if left_out else "",
        f"Not shown: {len(hidden):,} smaller group{'s' * (len(hidden) > 1)} with {int(hidden.sum()):,} lines."
        if len(hidden)
        else "",
        labels.sentence,
    )
    data = {
        "ages": ages,
        "left_out": left_out,
        "upper": upper,
        "groups": [
            {"group": str(value), "lines": int(sums[value]), "median": median, "counts": row.astype(int)}
            for value, median, row in zip(shown, medians, counts, strict=True)
        ],
    }
    return Drawing(title, tuple(sentences), caption, total, data, axes)
