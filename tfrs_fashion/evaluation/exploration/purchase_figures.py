"""Figures of purchases over time, by sales channel, and of what appears for the first time or comes back."""

import pandas as pd

from tfrs_fashion.evaluation.drawing import Rows, draw_bars, draw_series, format_amount, format_share, make_panels
from tfrs_fashion.evaluation.exploration.aggregates import Basis, count_repeating_customers
from tfrs_fashion.evaluation.exploration.article_figures import MAX_BARS, format_shares
from tfrs_fashion.evaluation.figure import OTHER_NOTE, Drawing, group_other, join_sentences, list_columns, list_rows

MAX_CHANNELS = 5
ONE_DAY = "all purchases are on one day."
ANONYMOUS = "all customers are anonymous."


def _list_periods(basis: Basis) -> dict[str, object]:
    return {"period": basis.period, "periods": [str(day.date()) for day in basis.periods[0]]}


def draw_purchases(basis: Basis) -> Drawing | str:
    """Draws lines and baskets over time."""
    if basis.num_days == 1:
        return ONE_DAY
    periods, is_partial = basis.periods
    counted, period, columns = basis.by_period, basis.period, ["lines", "baskets"]
    title = f"Lines and baskets per {period}"
    all_axes = make_panels(title, heights=[2.0, 2.0], titles=columns, share_x=True)
    for axes, column in zip(all_axes, columns, strict=True):
        draw_series(axes, counted[[column]], is_partial, unit=f"{column} per {period}")
    whole = counted[~is_partial]
    busiest = periods[~is_partial][int(whole["lines"].argmax())]
    first, last = basis.days
    sentence = (
        f"A median {period} has {format_amount(whole['lines'].median())} lines in "
        f"{format_amount(whole['baskets'].median())} baskets; the busiest, "
        f"{'that from' if period == 'week' else 'on'} {busiest.date()}, has {format_amount(whole['lines'].max())} lines."
    )
    total = int(counted["lines"].sum())
    caption = join_sentences(
        f"{total:,} lines in {int(counted['baskets'].sum()):,} baskets, {first.date()} to {last.date()}.",
        basis.partial_note,
    )
    data = {**_list_periods(basis), **list_columns(counted[columns])}
    return Drawing(title, (sentence,), caption, total, data, all_axes[0])


def draw_first_seen(basis: Basis, column: str) -> Drawing | str:
    """Draws how many articles or customers appear for the first time in each period.

    Args:
        basis: The tables.
        column: `new_articles` or `new_customers`.
    """
    if basis.num_days == 1:
        return ONE_DAY
    counted, period, (periods, is_partial) = basis.by_period, basis.period, basis.periods
    values = counted[column]
    total = int(values.sum())
    if total == 0:
        return ANONYMOUS
    is_article = column == "new_articles"
    nouns = "articles sold" if is_article else "customers with a purchase"
    title = f"{'Articles sold' if is_article else 'Customers who buy'} for the first time, per {period}"
    start = max(1, round(0.1 * len(periods)))
    later = values.iloc[start:]
    # Everything is new when the data begin, which must not squash what comes later.
    upper = 1.15 * float(later.max())
    is_cut = (values > upper) & bool(0 < upper < values.max() / 2)
    num_cut = int(is_cut.sum())
    (axes,) = make_panels(title, heights=[2.8])
    unit = f"{'articles' if is_article else 'customers'} per {period}"
    draw_series(axes, counted[[column]], is_partial, unit=unit, upper=upper if num_cut else 0.0)
    sentence = (
        f"{format_share(values.iloc[:start].sum() / total)} of the {total:,} {nouns} appear within the first "
        f"{f'{start} {period}s' if start > 1 else period}; after that a median {period} brings "
        f"{format_amount(later.median())}."
    )
    lines = int(counted["lines" if is_article else "known_lines"].sum())
    caption = join_sentences(
        f"{total:,} {nouns}, each counted once, at the first of its {lines:,} lines of transactions."
        if is_article
        else f"{total:,} {nouns} in {lines:,} lines of transactions, each counted once, at the first.",
        "Purchases before the data begin are unknown, so what looks new at first need not be.",
        f"Above the figure (arrows): {num_cut} of {len(periods)} {period}s, the highest with {int(values.max()):,}."
        if num_cut
        else "",
        basis.partial_note,
    )
    data = {**_list_periods(basis), column: values.tolist(), "cut": num_cut}
    return Drawing(title, (sentence,), caption, total, data, axes)


def draw_repeats(basis: Basis) -> Drawing | str:
    """Draws the share of lines whose article the customer had bought before, and of buyers seen before, over time."""
    counted, period, (periods, is_partial) = basis.by_period, basis.period, basis.periods
    lines, buyers = counted["known_lines"], counted["buyers"]
    if not lines.sum():
        return ANONYMOUS
    if basis.num_days == 1:
        return ONE_DAY
    again, returning = lines - counted["first_lines"], buyers - counted["new_customers"]
    if not (again.sum() or returning.sum()):
        return f"no customer buys in more than one {period}, nor an article twice."
    if not lines[~is_partial].sum():
        return f"no {period} that the data cover in full has a purchase of a known customer."
    shares = pd.DataFrame(
        {
            "lines: article bought before": again / lines.where(lines > 0),
            "buyers: seen before": returning / buyers.where(buyers > 0),
        }
    )
    title = f"Share of lines and of buyers that were there before, by {period}"
    (axes,) = make_panels(title, heights=[3.1])
    # Incomplete periods have too few lines for a share to mean anything.
    draw_series(axes, shares[~is_partial], is_partial[~is_partial], unit="share", is_share=True)
    total, customers, repeating = int(lines.sum()), int(basis.totals["buyers"]), count_repeating_customers(basis)
    last = slice(-max(1, len(periods) // 4), None)
    recent = float(again.iloc[last].sum() / max(lines.iloc[last].sum(), 1))
    sentences = (
        f"{format_share(again.sum() / total)} of the lines are of an article that the customer had bought in an earlier "
        f"basket; {format_share(recent)} in the last quarter of the time, when more of the past is known.",
        f"{format_share(repeating / customers)} of customers bought some article again.",
    )
    caption = join_sentences(
        f"{total:,} lines of {customers:,} customers"
        + ("; lines of anonymous customers do not count." if basis.totals["anonymous_lines"] else "."),
        f"A buyer was seen before if they bought {'on' if period == 'day' else 'in'} an earlier {period}.",
        f"{period.capitalize()}s that the data cover only in part are left out." if is_partial.any() else "",
    )
    data = {
        **_list_periods(basis),
        "lines": lines.tolist(),
        "lines_again": again.tolist(),
        "buyers": buyers.tolist(),
        "buyers_seen_before": returning.tolist(),
        "customers": customers,
        "customers_repeating": repeating,
    }
    return Drawing(title, sentences, caption, total, data, axes)


def _sum_channels(basis: Basis) -> pd.DataFrame | str:
    """Returns `lines`, `units` and `value` by channel, most lines first, if there are several."""
    sums = basis.by_channel.groupby("channel")[["lines", "units", "value"]].sum().sort_values("lines", ascending=False)
    if len(sums) > 1:
        return sums
    only = sums.index[0]
    return "the source has no sales channel." if only == "unknown" else f"all lines have one channel: {only}."


def draw_channels(basis: Basis) -> Drawing | str:
    """Draws each sales channel's share of lines and of value."""
    sums = _sum_channels(basis)
    if isinstance(sums, str):
        return sums
    total, value = int(sums["lines"].sum()), float(sums["value"].sum())
    kept, others = group_other(sums.reset_index(), "channel", keep=MAX_BARS)
    series = {"of lines": (kept["lines"] / total).tolist()}
    if value > 0:
        series["of value"] = (kept["value"] / value).tolist()
    title = f"Share of lines{' and of value' if value > 0 else ''} by sales channel"
    rows = Rows(kept["channel"].tolist(), series, format_shares(series), has_rest=others > 0)
    axes = draw_bars(title, [rows], unit="share", is_share=True)
    first = sums.iloc[0]
    of_value = f" and {format_share(first['value'] / value)} of the value" if value > 0 else ""
    sentence = f"{str(first.name).capitalize()} takes {format_share(first['lines'] / total)} of the lines{of_value}."
    caption = join_sentences(
        f"{total:,} lines of transactions"
        + ("; value is price times quantity, where a price is known." if value > 0 else "."),
        OTHER_NOTE if others else "",
    )
    return Drawing(title, (sentence,), caption, total, {"channels": list_rows(kept)}, axes)


def draw_channels_over_time(basis: Basis) -> Drawing | str:
    """Draws the lines of each sales channel over time."""
    sums = _sum_channels(basis)
    if isinstance(sums, str):
        return sums
    if basis.num_days == 1:
        return ONE_DAY
    periods, is_partial = basis.periods
    lines = basis.by_channel.pivot_table(index="period", columns="channel", values="lines", aggfunc="sum")
    lines = lines.reindex(index=periods, columns=sums.index).fillna(0)
    drawn, first = lines.iloc[:, :MAX_CHANNELS], sums.index[0]
    title = f"Lines sold per {basis.period}, by sales channel"
    (axes,) = make_panels(title, heights=[3.0])
    draw_series(axes, drawn, is_partial, unit=f"lines per {basis.period}")
    quarter = max(1, len(periods) // 4)
    shares = [
        format_share(float(rows[first].sum() / max(rows.to_numpy().sum(), 1)))
        for rows in (lines.iloc[:quarter], lines.iloc[-quarter:])
    ]
    sentence = f"{first.capitalize()} has {shares[0]} of the lines in the first quarter of the time and {shares[1]} in the last."
    total, hidden = int(sums["lines"].sum()), len(sums) - drawn.shape[1]
    caption = join_sentences(
        f"{total:,} lines of transactions.",
        basis.partial_note,
        f"Not drawn: {hidden:,} smaller channels." if hidden else "",
    )
    data = {"periods": _list_periods(basis)["periods"], "lines": list_columns(drawn)}
    return Drawing(title, (sentence,), caption, total, data, axes)
