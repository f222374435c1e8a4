"""Figures of purchases: over time, by basket, by price, by article and by customer.

Each function returns a drawn `Figure` with the numbers in it, or `LeftOut` with the reason where the source lacks what it
would show.
"""

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.drawing import (
    draw_curve,
    draw_histogram,
    draw_series,
    format_amount,
    format_share,
    make_panels,
    weighted_quantile,
)
from tfrs_fashion.evaluation.exploration import aggregates
from tfrs_fashion.evaluation.exploration.aggregates import Basis
from tfrs_fashion.evaluation.figure import Figure, LeftOut, clip_limit, is_or_are, join_sentences, list_columns

MAX_STEPS = 40
MARKED_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


def _list_days(periods: pd.DatetimeIndex) -> list[str]:
    return [str(day.date()) for day in periods]


def make_purchases(basis: Basis, counted: pd.DataFrame) -> Figure | LeftOut:
    """Draws lines and baskets over time; `counted` is what `count_periods` returned."""
    name, heading = "purchases", "Purchases over time"
    if basis.num_days == 1:
        return LeftOut(name, heading, "all purchases are of one day.")
    periods, is_partial = basis.periods
    title = f"Purchases a {basis.period}: lines and baskets"
    all_axes = make_panels(title, heights=[2.0, 2.0], titles=["lines", "baskets"], share_x=True)
    for axes, column in zip(all_axes, ("lines", "baskets"), strict=True):
        series = {column: counted[column].tolist()}
        draw_series(axes, series, periods=periods, is_partial=is_partial, unit=f"{column} a {basis.period}")
    whole = counted[~is_partial]
    busiest = periods[~is_partial][int(whole["lines"].argmax())]
    first, last = basis.days
    day = "that from" if basis.period == "week" else "of"
    sentences = (
        f"A median {basis.period} has {format_amount(whole['lines'].median())} lines in "
        f"{format_amount(whole['baskets'].median())} baskets; the busiest, {day} {busiest.date()}, has "
        f"{format_amount(whole['lines'].max())} lines.",
    )
    total = int(counted["lines"].sum())
    caption = join_sentences(
        f"{total:,} lines in {int(counted['baskets'].sum()):,} baskets, {first.date()} to {last.date()}.",
        basis.partial_words,
    )
    data = {"period": basis.period, "periods": _list_days(periods), **list_columns(counted[["lines", "baskets"]])}
    return Figure(name, heading, title, sentences, caption, total, data, all_axes[0])


def _make_starts(
    basis: Basis, counted: pd.DataFrame, *, name: str, heading: str, title: str, column: str, unit: str, what: str
) -> Figure | LeftOut:
    """Draws how many appear for the first time; where the data begin, everything does."""
    if basis.num_days == 1:
        return LeftOut(name, heading, "all purchases are of one day.")
    values = counted[column]
    total = int(values.sum())
    if total == 0:
        return LeftOut(name, heading, "no customer is told apart from others.")
    periods, is_partial = basis.periods
    start = max(1, round(0.1 * len(periods)))
    later = values.iloc[start:]
    upper = 1.15 * float(later.max())
    cut = values > upper if upper > 0 and values.max() > 2 * upper else pd.Series(False, index=values.index)
    (axes,) = make_panels(title, heights=[2.8])
    draw_series(
        axes,
        {column: values.tolist()},
        periods=periods,
        is_partial=is_partial,
        unit=unit,
        upper=upper if cut.any() else None,
    )
    sentences = (
        f"{format_share(values.iloc[:start].sum() / total)} of the {total:,} {what} appear within the first "
        f"{f'{start} {basis.period}s' if start > 1 else basis.period}; after that a median {basis.period} brings "
        f"{format_amount(later.median())}.",
    )
    caption = join_sentences(
        f"{total:,} {what}, each at the first of its {int(counted['lines'].sum()):,} lines of transactions."
        if column == "new_articles"
        else f"{total:,} {what} in {int(counted['named_lines'].sum()):,} lines of transactions, each at the first.",
        "Nothing before the data begin is known, so what looks new at first need not be.",
        f"Above the figure (arrows): {int(cut.sum())} of {len(periods)} {basis.period}s, the highest with {int(values.max()):,}."
        if cut.any()
        else "",
        basis.partial_words,
    )
    data = {"period": basis.period, "periods": _list_days(periods), column: values.tolist(), "cut": int(cut.sum())}
    return Figure(name, heading, title, sentences, caption, total, data, axes)


def make_new_articles(basis: Basis, counted: pd.DataFrame) -> Figure | LeftOut:
    """Draws how many articles are sold for the first time in each period."""
    return _make_starts(
        basis,
        counted,
        name="new_articles",
        heading="New articles",
        title=f"Articles sold for the first time, a {basis.period}",
        column="new_articles",
        unit=f"articles a {basis.period}",
        what="articles sold",
    )


def make_new_customers(basis: Basis, counted: pd.DataFrame) -> Figure | LeftOut:
    """Draws how many customers buy for the first time in each period."""
    return _make_starts(
        basis,
        counted,
        name="new_customers",
        heading="New customers",
        title=f"Customers who buy for the first time, a {basis.period}",
        column="new_customers",
        unit=f"customers a {basis.period}",
        what="customers with a purchase",
    )


def make_repeats(basis: Basis, counted: pd.DataFrame) -> Figure | LeftOut:
    """Draws how much of what is bought the customer had bought before, and how many buyers were known, over time."""
    name, heading = "repeats", "Repeat rate"
    lines, buyers = counted["named_lines"], counted["buyers"]
    if not lines.sum():
        return LeftOut(name, heading, "no customer is told apart from others.")
    if basis.num_days == 1:
        return LeftOut(name, heading, "all purchases are of one day.")
    again, known = lines - counted["first_lines"], buyers - counted["new_customers"]
    if not (again.sum() or known.sum()):
        return LeftOut(name, heading, f"no customer buys in more than one {basis.period}, nor an article twice.")
    periods, is_partial = basis.periods
    if not lines[~is_partial].sum():
        return LeftOut(name, heading, f"no {basis.period} that the data hold whole has a purchase of a known customer.")
    series = {
        "lines: article bought before": (again / lines.where(lines > 0)).tolist(),
        "buyers: seen before": (known / buyers.where(buyers > 0)).tolist(),
    }
    title = f"Share of lines and of buyers that were there before, by {basis.period}"
    (axes,) = make_panels(title, heights=[3.1])
    # A share of the few lines of a period that is not whole says nothing.
    shown = {words: np.asarray(values)[~is_partial] for words, values in series.items()}
    draw_series(
        axes, shown, periods=periods[~is_partial], is_partial=is_partial[~is_partial], unit="share", is_share=True
    )
    total, customers = int(lines.sum()), int(basis.totals["buyers"])
    repeating = aggregates.count_repeating_customers(basis)
    last = slice(-max(1, len(periods) // 4), None)
    recent = float(again.iloc[last].sum() / max(lines.iloc[last].sum(), 1))
    sentences = (
        f"{format_share(again.sum() / total)} of the lines are of an article that the customer had bought in an earlier "
        f"basket; {format_share(recent)} in the last quarter of the time, when more of the past is known.",
        f"{format_share(repeating / customers)} of customers bought some article again.",
    )
    caption = join_sentences(
        f"{total:,} lines of {customers:,} customers; lines of anonymous customers do not count."
        if basis.totals["anonymous_lines"]
        else f"{total:,} lines of {customers:,} customers.",
        f"A buyer was seen before if an earlier {basis.period} has a purchase of theirs.",
        f"{basis.period.capitalize()}s that the data cut short are left out." if is_partial.any() else "",
    )
    data = {
        "period": basis.period,
        "periods": _list_days(periods),
        "lines": lines.tolist(),
        "lines_again": again.tolist(),
        "buyers": buyers.tolist(),
        "buyers_seen_before": known.tolist(),
        "customers": customers,
        "customers_repeating": repeating,
    }
    return Figure(name, heading, title, sentences, caption, total, data, axes)


def _make_distribution(
    counted: pd.DataFrame,
    *,
    name: str,
    heading: str,
    title: str,
    x: str,
    noun: str,
    one: str,
    many: str,
    only: str,
    says: str,
) -> Figure | LeftOut:
    """Draws how often each whole number was counted.

    Args:
        counted: `value` ascending, and `rows`.
        name: Of the figure.
        heading: In the contents.
        title: What it shows.
        x: What the horizontal axis counts.
        noun: What the numbers count, in the singular.
        one: What was counted, in the singular.
        many: And in the plural.
        only: What to say where all values are alike; `{value}` stands for it.
        says: What to say of the figure; `{median}`, `{mean}`, `{lowest}` and `{share}` (of the lowest) stand for numbers.
    """
    if counted.empty:
        return LeftOut(name, heading, f"there are no {many}.")
    values, rows = counted["value"].to_numpy(), counted["rows"].to_numpy()
    if len(values) == 1:
        return LeftOut(name, heading, only.format(value=f"{values[0]:,}"))
    total, upper = int(rows.sum()), int(clip_limit(values, rows))
    within = values <= upper
    lowest, left_out = int(values[0]), int(rows[~within].sum())
    width = max(1, int(np.ceil((upper - lowest + 1) / MAX_STEPS)))
    steps = np.bincount((values[within] - lowest) // width, weights=rows[within]).astype(int)
    low = lowest + width * np.arange(len(steps))
    # A step of several numbers is drawn from its first to the first of the next.
    high = low if width == 1 else low + width
    (axes,) = make_panels(title, heights=[2.8])
    draw_histogram(axes, low.tolist(), high.tolist(), (steps / total).tolist(), x=x, y=many)
    if left_out == 0 and width > 1:
        axes.set_xlim(right=upper + width)
    median = weighted_quantile(values, rows, 0.5)
    numbers = {
        "median": f"{median:,.0f} {noun}{'s' * (median != 1)}",
        "mean": f"{float((values * rows).sum() / total):,.1f}",
        "lowest": f"{lowest:,}",
        "share": format_share(rows[0] / total),
    }
    caption = join_sentences(
        f"{total:,} {many}.",
        f"Each bar holds {width} numbers." if width > 1 else "",
        f"{is_or_are(left_out, one, many)} left out: above {upper:,}, the 99th percentile; the highest is {int(values[-1]):,}."
        if left_out
        else "",
    )
    data = {
        "low": low.tolist(),
        "width": width,
        "rows": steps.tolist(),
        "left_out": left_out,
        "median": median,
        "mean": float((values * rows).sum() / total),
    }
    return Figure(name, heading, title, (says.format(**numbers),), caption, total, data, axes)


def make_basket_sizes(basis: Basis) -> Figure | LeftOut:
    """Draws how many lines a basket has."""
    return _make_distribution(
        aggregates.count_basket_sizes(basis),
        name="basket_sizes",
        heading="Basket sizes",
        title="Share of baskets by their number of lines",
        x="lines in the basket",
        noun="line",
        one="basket",
        many="baskets",
        only="every basket has the same number of lines: {value}.",
        says="Baskets have {median} at the median and {mean} on average; {share} of baskets have {lowest}.",
    )


def make_quantities(basis: Basis) -> Figure | LeftOut:
    """Draws how many units a line has."""
    return _make_distribution(
        aggregates.count_quantities(basis),
        name="quantities",
        heading="Quantities",
        title="Share of lines by their quantity",
        x="units in the line",
        noun="unit",
        one="line",
        many="lines",
        only="every line has the same quantity, {value}, or the source gives none.",
        says="{share} of the lines have the quantity {lowest}; the mean is {mean}.",
    )


def make_activity(basis: Basis) -> Figure | LeftOut:
    """Draws how many baskets a customer has."""
    return _make_distribution(
        aggregates.count_activity(basis),
        name="activity",
        heading="Activity of customers",
        title="Share of customers by their number of baskets",
        x="baskets of the customer",
        noun="basket",
        one="customer",
        many="customers",
        only="every customer has the same number of baskets: {value}.",
        says="Customers have {median} at the median and {mean} on average; {share} of them have {lowest}.",
    )


def make_gaps(basis: Basis) -> Figure | LeftOut:
    """Draws the days between one purchase of a customer and the next."""
    return _make_distribution(
        aggregates.count_gaps(basis),
        name="gaps",
        heading="Days between purchases",
        title="Share of intervals between a customer's purchases by their length",
        x="days from one day with a purchase to the next",
        noun="day",
        one="interval",
        many="intervals",
        only="all intervals between purchases have the same length in days: {value}.",
        says="Half of the time a customer who comes back does so within {median}; the mean is {mean} days.",
    )


def _write_price(price: float) -> str:
    return f"{price:,.2f}" if price >= 10 else f"{price:.3g}"


def make_prices(basis: Basis) -> Figure | LeftOut:
    """Draws the price paid per unit."""
    name, heading, totals = "prices", "Prices", basis.totals
    priced = int(totals["priced_lines"])
    if priced == 0:
        return LeftOut(name, heading, "the source gives no prices.")
    highest, percentile, median = (float(totals[f"price_{which}"]) for which in ("max", "p99", "median"))
    if highest == 0:
        return LeftOut(name, heading, f"all {priced:,} prices are 0.")
    # Where 99 of 100 lines are free, only the rest has a scale.
    upper = percentile if 0 < 1.3 * percentile < highest else highest
    counted = aggregates.count_prices(basis, upper=upper)
    title = "Share of lines by the price paid per unit"
    (axes,) = make_panels(title, heights=[2.8])
    x = "price per unit, in the source's currency"
    steps = list_columns(counted)
    draw_histogram(axes, steps["low"], steps["high"], (counted["rows"] / priced).tolist(), x=x, y="lines")
    axes.axvline(median, color="#111111", linestyle="--", linewidth=1.2, label=f"median {_write_price(median)}")
    axes.legend(loc="upper right")
    left_out, free = priced - int(counted["rows"].sum()), int(totals["free_lines"])
    sentences = (
        f"Half of the lines cost {_write_price(median)} a unit or less, 99% at most {_write_price(percentile)}.",
    )
    missing = int(totals["lines"]) - priced
    caption = join_sentences(
        f"{priced:,} lines of transactions with a price.",
        f"{is_or_are(missing, 'line')} without one." if missing else "",
        f"{is_or_are(free, 'line')} free." if free else "",
        f"{is_or_are(left_out, 'line')} left out: above {_write_price(upper)}, the 99th percentile; the highest is {_write_price(highest)}."
        if left_out
        else "",
    )
    data = {**steps, "left_out": left_out, "median": median, "free": free, "missing": missing}
    return Figure(name, heading, title, sentences, caption, priced, data, axes)


def make_long_tail(basis: Basis) -> Figure | LeftOut:
    """Draws which share of the lines the best-selling share of the articles makes."""
    name, heading = "long_tail", "Long tail of popularity"
    articles, lines = int(basis.totals["sold_articles"]), int(basis.totals["lines"])
    if articles == 1:
        return LeftOut(name, heading, "only one article is sold.")
    points = aggregates.count_long_tail(basis)
    x, y = points["articles"] / articles, points["lines"] / lines
    # A share of too few articles to be one is not marked.
    marked = {share: float(np.interp(share, x, y)) for share in MARKED_SHARES if share * articles >= 1}
    title = "Share of lines sold that the best-selling articles make"
    (axes,) = make_panels(title, heights=[3.4])
    draw_curve(
        axes,
        x.tolist(),
        y.tolist(),
        marked=marked,
        x_unit="share of articles sold, best-selling first",
        y_unit="share of lines",
    )
    said = [share for share in (0.01, 0.2) if share in marked] or list(marked)[:1]
    shares = [
        f"the top {format_share(share)} of articles make {format_share(marked[share])} of sales" for share in said
    ]
    sentences = (f"{', '.join(shares)}.".capitalize(),)
    catalogue = int(basis.articles.count().execute())
    caption = join_sentences(
        f"{lines:,} lines of {articles:,} articles sold.",
        f"{is_or_are(catalogue - articles, 'article')} in the catalogue without a sale."
        if catalogue > articles
        else "",
    )
    data = {
        "articles": articles,
        "lines": lines,
        "unsold": catalogue - articles,
        "marked": marked,
        "points": list_columns(points),
    }
    return Figure(name, heading, title, sentences, caption, lines, data, axes)
