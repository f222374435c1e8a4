"""Figures of the shop: what it offers, through which channels and to whom it sells.

Each function returns a drawn `Figure` with the numbers in it, or `LeftOut` with the reason where the source lacks what it
would show.
"""

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.drawing import (
    Labels,
    bars_height,
    draw_bars,
    draw_dots,
    draw_series,
    draw_violins,
    format_amount,
    format_share,
    make_panels,
    shorten,
    weighted_quantile,
)
from tfrs_fashion.evaluation.exploration.aggregates import Basis, count_ages, count_assortment, count_channels
from tfrs_fashion.evaluation.figure import (
    OTHER_WORDS,
    Figure,
    LeftOut,
    clip_limit,
    group_other,
    is_or_are,
    join_sentences,
    list_rows,
    miss_role,
    name_column,
)

MAX_PANELS = 6
MAX_BARS = 12
MAX_CHANNELS = 5
MIN_VIOLIN_LINES = 50


def make_assortment(basis: Basis, *, section_group: str, section: str) -> Figure | LeftOut:
    """Draws how many articles of the catalogue each section has, within each group of sections."""
    name, heading = "assortment", "Assortment"
    if not (section_group or section):
        return miss_role(name, heading, "section_group", "section")
    outer, inner = section_group or section, section or section_group
    is_nested = outer != inner
    counted = count_assortment(basis, group=outer, section=inner).drop(columns=["sold", "lines"])
    total = int(counted["articles"].sum())
    counted = counted.sort_values(["articles", "group", "section"], ascending=[False, True, True], ignore_index=True)
    groups = counted.groupby("group", sort=False)["articles"].sum().sort_values(ascending=False, kind="stable")
    shown = list(groups.index[:MAX_PANELS]) if is_nested else [None]
    keep = max(3, 26 // len(shown))
    labels, panels = Labels(), []
    for group in shown:
        rows = counted if group is None else counted[counted["group"] == group]
        panels.append(group_other(rows[["section", "articles"]].reset_index(drop=True), "section", keep=keep))
    title = f"Articles of the catalogue by {name_column(inner)}" + (
        f", within each {name_column(outer)}" if is_nested else ""
    )
    titles = (
        [f"{labels.draw(group)}: {int(groups.loc[group]):,} articles" for group in groups.index[: len(shown)]]
        if is_nested
        else []
    )
    heights = [bars_height(len(kept)) for kept, _others in panels]
    all_axes = make_panels(title, heights=heights, titles=titles, share_x=True)
    limit = max(float(kept["articles"].iloc[: len(kept) - (others > 0)].max()) for kept, others in panels)
    for axes, (kept, others) in zip(all_axes, panels, strict=True):
        values = kept["articles"].tolist()
        draw_bars(
            axes,
            [labels.draw(value) for value in kept["section"]],
            {"": values},
            texts={"": [f"{value:,} ({format_share(value / total)})" for value in values]},
            unit="articles" if axes is all_axes[-1] else "",
            is_share=False,
            has_rest=others > 0,
            limit=limit,
        )
    largest = groups.index[0]
    sentences = [
        f"{shorten(largest)} is the largest {name_column(outer)} with {format_share(groups[largest] / total)} of {total:,} articles."
    ]
    if is_nested:
        top = counted.iloc[0]
        sentences.append(
            f"The largest {name_column(inner)} is {shorten(top['section'])} of {shorten(top['group'])}, with "
            f"{format_share(top['articles'] / total)}."
        )
    beyond = len(groups) - len(shown) if is_nested else 0
    hidden = int(groups.iloc[len(shown) :].sum()) if beyond else 0
    caption = join_sentences(
        f"{total:,} articles of the catalogue, sold or not; shares are of all of them.",
        OTHER_WORDS if any(others for _kept, others in panels) else "",
        f"Not shown: {beyond:,} smaller groups with {hidden:,} articles." if beyond else "",
        labels.sentence,
    )
    data = {
        "total": total,
        "groups": {str(group): int(count) for group, count in groups.items()},
        "sections": [
            {"group": None if group is None else str(group), **row}
            for group, (kept, _others) in zip(shown, panels, strict=True)
            for row in list_rows(kept)
        ],
    }
    return Figure(name, heading, title, tuple(sentences), caption, total, data, all_axes[0])


def make_role_shares(basis: Basis, *, role: str, column: str) -> Figure | LeftOut:
    """Draws each value's share of the catalogue beside its share of the lines sold, for a role of articles."""
    name, heading = f"{role}_shares", f"{role.replace('_', ' ').capitalize()}: offered and sold"
    if not column:
        return miss_role(name, heading, role)
    counted = count_assortment(basis, value=column)
    articles, lines = int(counted["articles"].sum()), int(counted["lines"].sum())
    kept, others = group_other(counted, "value", keep=MAX_BARS)
    offered, sold = kept["articles"] / articles, kept["lines"] / lines
    labels = Labels()
    title = f"Share of articles and share of lines sold, by {name_column(column)}"
    (axes,) = make_panels(title, heights=[bars_height(len(kept), 2) + 0.3])
    series = {"of lines sold": sold.tolist(), "of articles offered": offered.tolist()}
    texts = {key: [format_share(share) for share in shares] for key, shares in series.items()}
    draw_bars(
        axes,
        [labels.draw(value) for value in kept["value"]],
        series,
        texts=texts,
        unit="share",
        is_share=True,
        has_rest=others > 0,
    )
    top = counted.iloc[0]
    sentences = [
        f"{shorten(top['value'])} sells most: {format_share(top['articles'] / articles)} of the articles and "
        f"{format_share(top['lines'] / lines)} of the lines."
    ]
    # Where next to nothing is offered, a ratio says little.
    common = counted[counted["articles"] >= 0.01 * articles]
    ratio = (common["lines"] / lines) / (common["articles"] / articles)
    if len(ratio) > 1 and ratio.max() > 1:
        best = common.iloc[int(ratio.argmax())]
        sentences.append(
            f"Most for its share of the articles: {shorten(best['value'])}, {ratio.max():.1f} times as much."
        )
    caption = join_sentences(
        f"{articles:,} articles of the catalogue and {lines:,} lines of transactions.",
        OTHER_WORDS if others else "",
        labels.sentence,
    )
    data = {"articles": articles, "lines": lines, "values": list_rows(kept)}
    return Figure(name, heading, title, tuple(sentences), caption, lines, data, axes)


def make_channels(basis: Basis) -> list[Figure | LeftOut]:
    """Draws sales by channel: shares of lines and of value, and lines over time."""
    name, heading, later, later_heading = "channels", "Sales by channel", "channels_over_time", "Channels over time"
    counted = count_channels(basis)
    counted["channel"] = [
        "unknown" if pd.isna(value) else f"channel {int(value)}" for value in counted["channel"].astype("float64")
    ]
    sums = counted.groupby("channel")[["lines", "units", "value"]].sum().sort_values("lines", ascending=False)
    if len(sums) == 1:
        only = sums.index[0]
        reason = "the source gives no sales channel." if only == "unknown" else f"all lines are of one: {only}."
        return [LeftOut(name, heading, reason), LeftOut(later, later_heading, reason)]
    total, value = int(sums["lines"].sum()), float(sums["value"].sum())
    kept, others = group_other(sums.reset_index(), "channel", keep=MAX_BARS)
    series = {"of lines": (kept["lines"] / total).tolist()}
    if value > 0:
        series["of value"] = (kept["value"] / value).tolist()
    title = "Share of lines" + (" and of value" if value > 0 else "") + " by sales channel"
    (axes,) = make_panels(title, heights=[bars_height(len(kept), len(series)) + 0.4])
    texts = {key: [format_share(share) for share in shares] for key, shares in series.items()}
    draw_bars(axes, kept["channel"].tolist(), series, texts=texts, unit="share", is_share=True, has_rest=others > 0)
    first = sums.iloc[0]
    words = f" and {format_share(first['value'] / value)} of the value" if value > 0 else ""
    sentences = (f"{str(first.name).capitalize()} takes {format_share(first['lines'] / total)} of the lines{words}.",)
    caption = join_sentences(
        f"{total:,} lines of transactions"
        + ("; value is price times quantity, where a price is known." if value > 0 else "."),
        OTHER_WORDS if others else "",
    )
    made: list[Figure | LeftOut] = [
        Figure(name, heading, title, sentences, caption, total, {"channels": list_rows(kept)}, axes)
    ]
    if basis.num_days == 1:
        return [*made, LeftOut(later, later_heading, "all purchases are of one day.")]
    periods, is_partial = basis.periods
    named = list(sums.index[:MAX_CHANNELS])
    by_time = counted.pivot_table(index="period", columns="channel", values="lines", aggfunc="sum")
    by_time = by_time.reindex(periods).fillna(0)
    title = f"Lines sold a {basis.period}, by sales channel"
    (axes,) = make_panels(title, heights=[3.0])
    lines = {channel: by_time[channel].tolist() for channel in named}
    draw_series(axes, lines, periods=periods, is_partial=is_partial, unit=f"lines a {basis.period}")
    first_share, last_share = (
        float(by_time.loc[part, named[0]].sum() / max(by_time.loc[part].to_numpy().sum(), 1))
        for part in (periods[: max(1, len(periods) // 4)], periods[-max(1, len(periods) // 4) :])
    )
    sentence = (
        f"{named[0].capitalize()} has {format_share(first_share)} of the lines in the first quarter of the time and "
        f"{format_share(last_share)} in the last."
    )
    hidden = len(sums) - len(named)
    caption = join_sentences(
        f"{total:,} lines of transactions.",
        basis.partial_words,
        f"Not drawn: {hidden:,} smaller channels." if hidden else "",
    )
    data = {"periods": [str(day.date()) for day in periods], "lines": lines}
    return [*made, Figure(later, later_heading, title, (sentence,), caption, total, data, axes)]


def make_ages(basis: Basis, *, group: str) -> Figure | LeftOut:
    """Draws the age of buyers, weighted by lines, as one violin for each value of a feature of articles."""
    name, heading = "ages", "Age of buyers"
    if "age" not in basis.customers.columns:
        return LeftOut(name, heading, "the source gives no age of customers.")
    counted = count_ages(basis, group)
    if counted.empty:
        return LeftOut(name, heading, "no line is of a customer whose age is known.")
    if not group:
        counted = counted.assign(group="all articles")
    total = int(counted["lines"].sum())
    upper = clip_limit(counted["age"].to_numpy(), counted["lines"].to_numpy())
    within = counted[(counted["age"] >= 0) & (counted["age"] <= upper)]
    if within.empty:
        return LeftOut(name, heading, f"all {total:,} ages known are below 0.")
    left_out = total - int(within["lines"].sum())
    sums = within.groupby("group")["lines"].sum().sort_values(ascending=False, kind="stable")
    # The shape of a few lines is chance.
    shown = list(sums.index[sums >= MIN_VIOLIN_LINES][: MAX_PANELS + 2]) or list(sums.index[:1])
    ages = np.arange(int(within["age"].min()), int(within["age"].max()) + 1)
    table = within.pivot_table(index="group", columns="age", values="lines", aggfunc="sum")
    counts = table.reindex(index=shown, columns=ages).fillna(0).to_numpy()
    medians = [weighted_quantile(ages, found, 0.5) for found in counts]
    labels = Labels(length=22)
    title = "Age of the buyers of lines sold" + (f", by {name_column(group)}" if group else "")
    (axes,) = make_panels(title, heights=[0.6 + 0.62 * len(shown)])
    drawn = [f"{labels.draw(value)}\n{format_amount(sums[value])} lines" for value in shown]
    draw_violins(axes, drawn, ages, counts, unit="age of the customer, years")
    overall = weighted_quantile(ages, counts.sum(axis=0), 0.5)
    sentences = [f"Half of the lines are of customers aged {overall:.0f} or younger."]
    if len(shown) > 1 and max(medians) > min(medians):
        young, old = int(np.argmin(medians)), int(np.argmax(medians))
        sentences.append(
            f"The median is lowest for {shorten(shown[young])} ({medians[young]:.0f}) and highest for {shorten(shown[old])} "
            f"({medians[old]:.0f})."
        )
    lines = int(basis.totals["lines"])
    hidden = len(sums) - len(shown)
    caption = join_sentences(
        f"{total:,} of {lines:,} lines, whose customer's age is known; each violin has the same height, the bar holds the middle "
        "half, the dot is the median.",
        f"{is_or_are(left_out, 'line')} left out: ages below 0 or above {upper}." if left_out else "",
        f"Not shown: {hidden:,} smaller group{'s' * (hidden > 1)} with {int(sums.iloc[len(shown) :].sum()):,} lines."
        if hidden
        else "",
        labels.sentence,
    )
    data = {
        "ages": ages,
        "left_out": left_out,
        "upper": upper,
        "groups": [
            {"group": str(value), "lines": int(sums[value]), "median": median, "counts": found.astype(int)}
            for value, median, found in zip(shown, medians, counts, strict=True)
        ],
    }
    return Figure(name, heading, title, tuple(sentences), caption, total, data, axes)


def make_categories(basis: Basis, *, group: str, category: str) -> list[Figure | LeftOut]:
    """Draws which categories sell most and which least within each group of sections."""
    names = (("categories_top", "Categories that sell most"), ("categories_bottom", "Categories that sell least"))
    if not category:
        return [miss_role(name, heading, "category") for name, heading in names]
    if category == group:
        return [
            LeftOut(name, heading, f"categories and their groups are one column, `{group}`.") for name, heading in names
        ]
    roles = {"group": group, "category": category} if group else {"category": category}
    counted = count_assortment(basis, **roles)
    counted = counted[counted["lines"] > 0].assign(group=counted["group"] if group else "all articles")
    sums = counted.groupby("group")["lines"].sum().sort_values(ascending=False, kind="stable")
    parts = {value: counted[counted["group"] == value].reset_index(drop=True) for value in sums.index[:MAX_PANELS]}
    return [_top_categories(parts, sums, category, group), _bottom_categories(parts, sums, category, group)]


def _category_words(category: str, group: str) -> str:
    return f"by {name_column(category)}" + (f", within each {name_column(group)}" if group else "")


def _top_categories(parts: dict[str, pd.DataFrame], sums: pd.Series, category: str, group: str) -> Figure | LeftOut:
    name, heading, num_top = "categories_top", "Categories that sell most", 5 if len(parts) > 1 else MAX_BARS
    total, labels, panels = int(sums.sum()), Labels(), []
    for value, part in parts.items():
        kept, others = group_other(part[["category", "lines"]], "category", keep=num_top)
        panels.append((value, kept.assign(share=kept["lines"] / sums[value]), others))
    title = f"Share of lines sold {_category_words(category, group)}: the categories that sell most"
    heights = [bars_height(len(kept)) for _value, kept, _others in panels]
    titles = [f"{labels.draw(value)}: {format_amount(sums[value])} lines" for value in parts] if group else []
    all_axes = make_panels(title, heights=heights, titles=titles, share_x=True)
    limit = max(float(kept["share"].iloc[: len(kept) - (others > 0)].max()) for _value, kept, others in panels)
    for axes, (_value, kept, others) in zip(all_axes, panels, strict=True):
        draw_bars(
            axes,
            [labels.draw(found) for found in kept["category"]],
            {"": kept["share"].tolist()},
            texts={"": [format_share(share) for share in kept["share"]]},
            unit="share of lines" if axes is all_axes[-1] else "",
            is_share=True,
            has_rest=others > 0,
            limit=limit,
        )
    sentences = tuple(
        f"{shorten(part['category'][0])} leads {'' if value == 'all articles' else shorten(value) + ' '}with "
        f"{format_share(part['lines'][0] / sums[value])} of its lines."
        for value, part in list(parts.items())[:2]
    )
    hidden = len(sums) - len(parts)
    caption = join_sentences(
        f"{total:,} lines of transactions; shares are of the lines of each panel.",
        f"Not shown: {hidden:,} smaller groups with {int(sums.iloc[len(parts) :].sum()):,} lines." if hidden else "",
        OTHER_WORDS if any(others for _value, _kept, others in panels) else "",
        labels.sentence,
    )
    data = {
        "groups": [
            {"group": str(value), "lines": int(sums[value]), "categories": list_rows(kept)}
            for value, kept, _others in panels
        ]
    }
    return Figure(name, heading, title, sentences, caption, total, data, all_axes[0])


def _bottom_categories(parts: dict[str, pd.DataFrame], sums: pd.Series, category: str, group: str) -> Figure | LeftOut:
    name, heading, num_bottom = "categories_bottom", "Categories that sell least", 5 if len(parts) > 1 else MAX_BARS
    few = 2 * num_bottom
    panels = {value: part.iloc[-num_bottom:] for value, part in parts.items() if len(part) > few}
    if not panels:
        return LeftOut(name, heading, f"no more than {few} categories are sold, all of them shown above.")
    total, labels = int(sums[list(panels)].sum()), Labels()
    title = f"Share of lines sold {_category_words(category, group)}: the categories that sell least"
    heights = [bars_height(len(part)) for part in panels.values()]
    titles = [f"{labels.draw(value)}: {len(parts[value]):,} categories" for value in panels] if group else []
    all_axes = make_panels(title, heights=heights, titles=titles, share_x=True)
    shares = {value: part["lines"] / sums[value] for value, part in panels.items()}
    limits = min(found.min() for found in shares.values()), max(found.max() for found in shares.values())
    for axes, (value, part) in zip(all_axes, panels.items(), strict=True):
        found = zip(shares[value], part["lines"], strict=True)
        draw_dots(
            axes,
            [labels.draw(category) for category in part["category"]],
            shares[value].tolist(),
            texts=[f"{format_share(share)}, {lines:,} line{'s' * (lines != 1)}" for share, lines in found],
            unit="share of lines (logarithmic)" if axes is all_axes[-1] else "",
            limits=limits,
        )
    rare = sum(int((part["lines"] <= 10).sum()) for part in parts.values())
    all_sold = sum(len(part) for part in parts.values())
    counted_by = f", counted within each {name_column(group)}" if group else ""
    sentences = (f"Of {all_sold:,} categories{counted_by}, {rare:,} sold at most ten times.",)
    caption = join_sentences(
        f"{total:,} lines of transactions; shares are of the lines of each panel. Categories without a sale are not shown.",
        f"Left out: groups with no more than {few} categories." if len(panels) < len(parts) else "",
        labels.sentence,
    )
    data = {
        "groups": [
            {
                "group": str(value),
                "lines": int(sums[value]),
                "categories": list_rows(part[["category", "lines"]]),
            }
            for value, part in panels.items()
        ]
    }
    return Figure(name, heading, title, sentences, caption, total, data, all_axes[0])
