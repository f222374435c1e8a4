"""Figures of the catalogue: its assortment, categories and roles, and how sales spread over articles."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.drawing import (
    Labels,
    Rows,
    draw_bars,
    draw_curve,
    draw_dots,
    format_amount,
    format_share,
    make_panels,
    shorten,
)
from tfrs_fashion.evaluation.exploration.aggregates import Basis, count_assortment, count_long_tail
from tfrs_fashion.evaluation.figure import (
    OTHER_NOTE,
    Drawing,
    count_noun,
    group_other,
    join_sentences,
    list_columns,
    list_rows,
)

MAX_PANELS = 6
MAX_BARS = 12
MARKED_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


def _column_words(column: str) -> str:
    return column.replace("_", " ")


def _missing_roles(*roles: str) -> str:
    names = " or ".join(f"`{role}`" for role in roles)
    return f"no column of articles plays the role {names}: name one in [features.roles]."


def _hidden_note(sums: pd.Series, num_shown: int, unit: str) -> str:
    """Says how many groups have no panel; empty if all have one."""
    hidden = sums.iloc[num_shown:]
    return f"Not shown: {len(hidden):,} smaller groups with {int(hidden.sum()):,} {unit}." if len(hidden) else ""


def draw_assortment(basis: Basis) -> Drawing | str:
    """Draws how many articles of the catalogue each section has, within each group of sections."""
    section_group, section = basis.roles.get("section_group"), basis.roles.get("section")
    outer, inner = section_group or section, section or section_group
    if not (outer and inner):
        return _missing_roles("section_group", "section")
    is_nested = outer != inner
    counted = count_assortment(basis, group=outer, section=inner).drop(columns=["sold", "lines"])
    counted = counted.sort_values(["articles", "group", "section"], ascending=[False, True, True], ignore_index=True)
    total = int(counted["articles"].sum())
    groups = counted.groupby("group", sort=False)["articles"].sum().sort_values(ascending=False, kind="stable")
    shown: list[str | None] = list(groups.index[:MAX_PANELS]) if is_nested else [None]
    labels, panels, sections = Labels(), [], []
    for group in shown:
        rows = counted if group is None else counted[counted["group"] == group]
        kept, others = group_other(rows[["section", "articles"]], "section", keep=max(3, 26 // len(shown)))
        values = kept["articles"].tolist()
        sections += [{"group": None if group is None else str(group), **row} for row in list_rows(kept)]
        panels.append(
            Rows(
                title=f"{labels.draw(group)}: {int(groups.loc[group]):,} articles" if group is not None else "",
                labels=[labels.draw(value) for value in kept["section"]],
                series={"": values},
                texts={"": [f"{value:,} ({format_share(value / total)})" for value in values]},
                has_rest=others > 0,
            )
        )
    title = f"Articles of the catalogue by {_column_words(inner)}"
    title += f", within each {_column_words(outer)}" if is_nested else ""
    axes = draw_bars(title, panels, unit="articles", is_share=False)
    largest, top = groups.index[0], counted.iloc[0]
    sentences = [
        f"{shorten(largest)} is the largest {_column_words(outer)} with {format_share(groups[largest] / total)} of "
        f"{total:,} articles."
    ]
    if is_nested:
        sentences.append(
            f"The largest {_column_words(inner)} is {shorten(top['section'])} of {shorten(top['group'])}, with "
            f"{format_share(top['articles'] / total)}."
        )
    caption = join_sentences(
        f"{total:,} articles of the catalogue, sold or not; shares are of all of them.",
        OTHER_NOTE if any(rows.has_rest for rows in panels) else "",
        _hidden_note(groups, len(shown), "articles") if is_nested else "",
        labels.sentence,
    )
    data = {
        "total": total,
        "groups": {str(group): int(count) for group, count in groups.items()},
        "sections": sections,
    }
    return Drawing(title, tuple(sentences), caption, total, data, axes)


def draw_role_shares(basis: Basis, role: str) -> Drawing | str:
    """Draws, for each value of a role, its share of the articles offered beside its share of the lines sold."""
    column = basis.roles.get(role)
    if not column:
        return _missing_roles(role)
    counted = count_assortment(basis, value=column)
    articles, lines = int(counted["articles"].sum()), int(counted["lines"].sum())
    kept, others = group_other(counted, "value", keep=MAX_BARS)
    series = {
        "of lines sold": (kept["lines"] / lines).tolist(),
        "of articles offered": (kept["articles"] / articles).tolist(),
    }
    labels = Labels()
    rows = Rows([labels.draw(value) for value in kept["value"]], series, format_shares(series), has_rest=others > 0)
    title = f"Share of articles and share of lines sold, by {_column_words(column)}"
    axes = draw_bars(title, [rows], unit="share", is_share=True)
    top = counted.iloc[0]
    sentences = [
        f"{shorten(top['value'])} sells most: {format_share(top['articles'] / articles)} of the articles and "
        f"{format_share(top['lines'] / lines)} of the lines."
    ]
    # A ratio says little where next to nothing is offered.
    common = counted[counted["articles"] >= 0.01 * articles]
    ratio = (common["lines"] / lines) / (common["articles"] / articles)
    if len(ratio) > 1 and ratio.max() > 1:
        best = shorten(common.iloc[int(ratio.argmax())]["value"])
        sentences.append(f"{best} sells most for its share of the articles: {ratio.max():.1f} times as much.")
    caption = join_sentences(
        f"{articles:,} articles of the catalogue and {lines:,} lines of transactions.",
        OTHER_NOTE if others else "",
        labels.sentence,
    )
    data = {"articles": articles, "lines": lines, "values": list_rows(kept)}
    return Drawing(title, tuple(sentences), caption, lines, data, axes)


def format_shares(series: dict[str, list[float]]) -> dict[str, list[str]]:
    """Returns the texts of series of shares."""
    return {name: [format_share(share) for share in shares] for name, shares in series.items()}


def _count_categories(basis: Basis) -> tuple[pd.Series, dict[str, pd.DataFrame]] | str:
    """Returns the lines of each group, and the categories sold in each group that gets a panel; most lines first."""
    category, group = basis.roles.get("category", ""), basis.group
    if not category:
        return _missing_roles("category")
    if category == group:
        return f"categories and their groups are the same column, `{group}`."
    counted = count_assortment(basis, **({"group": group} if group else {}), category=category)
    counted = counted[counted["lines"] > 0].assign(group=counted["group"] if group else "all articles")
    sums = counted.groupby("group")["lines"].sum().sort_values(ascending=False, kind="stable")
    return sums, {
        value: counted[counted["group"] == value].reset_index(drop=True)[["category", "lines"]]
        for value in sums.index[:MAX_PANELS]
    }


def _category_title(basis: Basis, which: str) -> str:
    within = f", within each {_column_words(basis.group)}" if basis.group else ""
    return f"Share of lines sold by {_column_words(basis.roles['category'])}{within}: the {which}-selling categories"


def _category_data(sums: pd.Series, panels: dict[str, pd.DataFrame]) -> dict[str, object]:
    return {
        "groups": [
            {"group": str(value), "lines": int(sums[value]), "categories": list_rows(kept)}
            for value, kept in panels.items()
        ]
    }


def draw_top_categories(basis: Basis) -> Drawing | str:
    """Draws the best-selling categories within each group of sections."""
    counted = _count_categories(basis)
    if isinstance(counted, str):
        return counted
    sums, categories = counted
    total, labels, panels, kept_by_group = int(sums.sum()), Labels(), [], {}
    for value, frame in categories.items():
        kept, others = group_other(frame, "category", keep=5 if len(categories) > 1 else MAX_BARS)
        kept_by_group[value] = kept.assign(share=kept["lines"] / sums[value])
        series = {"": kept_by_group[value]["share"].tolist()}
        title = f"{labels.draw(value)}: {format_amount(sums[value])} lines" if basis.group else ""
        names = [labels.draw(category) for category in kept["category"]]
        panels.append(Rows(names, series, format_shares(series), title, has_rest=others > 0))
    title = _category_title(basis, "best")
    axes = draw_bars(title, panels, unit="share of lines", is_share=True)
    sentences = tuple(
        f"{shorten(frame['category'][0])} leads {shorten(value) + ' ' if basis.group else ''}with "
        f"{format_share(frame['lines'][0] / sums[value])} of its lines."
        for value, frame in list(categories.items())[:2]
    )
    caption = join_sentences(
        f"{total:,} lines of transactions; shares are of the lines of each panel.",
        _hidden_note(sums, len(categories), "lines"),
        OTHER_NOTE if any(rows.has_rest for rows in panels) else "",
        labels.sentence,
    )
    return Drawing(title, sentences, caption, total, _category_data(sums, kept_by_group), axes)


def draw_bottom_categories(basis: Basis) -> Drawing | str:
    """Draws the least-selling categories within each group of sections."""
    counted = _count_categories(basis)
    if isinstance(counted, str):
        return counted
    sums, categories = counted
    num_bottom = 5 if len(categories) > 1 else MAX_BARS
    bottom = {value: frame.iloc[-num_bottom:] for value, frame in categories.items() if len(frame) > 2 * num_bottom}
    if not bottom:
        return f"no more than {2 * num_bottom} categories are sold, all of them shown above."
    total, labels, panels = int(sums[list(bottom)].sum()), Labels(), []
    for value, frame in bottom.items():
        shares = (frame["lines"] / sums[value]).tolist()
        texts = [
            f"{format_share(share)}, {lines:,} line{'s' * (lines != 1)}"
            for share, lines in zip(shares, frame["lines"], strict=True)
        ]
        title = f"{labels.draw(value)}: {len(categories[value]):,} categories" if basis.group else ""
        panels.append(Rows([labels.draw(category) for category in frame["category"]], {"": shares}, {"": texts}, title))
    title = _category_title(basis, "least")
    axes = draw_dots(title, panels, unit="share of lines (logarithmic)")
    rare = sum(int((frame["lines"] <= 10).sum()) for frame in categories.values())
    num_categories = sum(map(len, categories.values()))
    within = f", counted within each {_column_words(basis.group)}" if basis.group else ""
    caption = join_sentences(
        f"{total:,} lines of transactions; shares are of the lines of each panel. Categories without a sale are not shown.",
        f"Left out: groups with no more than {2 * num_bottom} categories." if len(bottom) < len(categories) else "",
        labels.sentence,
    )
    sentences = (f"Of {num_categories:,} categories{within}, {rare:,} sold at most ten times.",)
    return Drawing(title, sentences, caption, total, _category_data(sums, bottom), axes)


def draw_long_tail(basis: Basis) -> Drawing | str:
    """Draws the share of lines that the best-selling share of articles makes up."""
    articles, lines = int(basis.totals["sold_articles"]), int(basis.totals["lines"])
    if articles == 1:
        return "only one article is sold."
    points = count_long_tail(basis)
    x, y = points["articles"].to_numpy() / articles, points["lines"].to_numpy() / lines
    # A share of less than one article is not marked.
    marked = {share: float(np.interp(share, x, y)) for share in MARKED_SHARES if share * articles >= 1}
    title = "Share of lines sold that the best-selling articles make up"
    (axes,) = make_panels(title, heights=[3.4])
    draw_curve(axes, x, y, marked=marked, xlabel="share of articles sold, best-selling first")
    headline: Sequence[float] = [share for share in (0.01, 0.2) if share in marked] or list(marked)[:1]
    shares = [
        f"the top {format_share(share)} of articles make up {format_share(marked[share])} of sales"
        for share in headline
    ]
    unsold = int(basis.totals["articles"]) - articles
    caption = join_sentences(
        f"{lines:,} lines of {articles:,} articles sold.",
        f"{count_noun(unsold, 'article')} in the catalogue without a sale." if unsold > 0 else "",
    )
    data = {
        "articles": articles,
        "lines": lines,
        "unsold": unsold,
        "marked": marked,
        "points": list_columns(points),
    }
    return Drawing(title, (f"{', '.join(shares)}.".capitalize(),), caption, lines, data, axes)
