"""What a source holds, before any model: tables, features and missing values, and figures of the shop and its purchases.

`figures.json` is for programs, `exploration.html` for people: one file with no script and nothing to download.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from tfrs_fashion.evaluation.document import render, write_json, write_text
from tfrs_fashion.evaluation.drawing import STYLE, format_share, shorten, write_png
from tfrs_fashion.evaluation.exploration import purchase_figures, shop_figures
from tfrs_fashion.evaluation.exploration.aggregates import Basis, count_basis, count_periods, describe_features
from tfrs_fashion.evaluation.figure import Figure, LeftOut, list_rows
from tfrs_fashion.schema import Tables, check_names

TABLES = ("transactions", "articles", "customers")


def _draw_figures(basis: Basis, roles: dict[str, str]) -> dict[str, list[Figure | LeftOut]]:
    """Draws all figures, by the section of the page that they belong to."""
    group = roles["section_group"] or roles["section"]
    periods = count_periods(basis)
    shop: list[Figure | LeftOut] = [
        shop_figures.make_assortment(basis, section_group=roles["section_group"], section=roles["section"]),
        *shop_figures.make_categories(basis, group=group, category=roles["category"]),
        shop_figures.make_role_shares(basis, role="garment_group", column=roles["garment_group"]),
        shop_figures.make_role_shares(basis, role="colour", column=roles["colour"]),
        purchase_figures.make_long_tail(basis),
        purchase_figures.make_new_articles(basis, periods),
    ]
    purchases = [
        purchase_figures.make_purchases(basis, periods),
        *shop_figures.make_channels(basis),
        purchase_figures.make_basket_sizes(basis),
        purchase_figures.make_quantities(basis),
        purchase_figures.make_prices(basis),
    ]
    customers = [
        shop_figures.make_ages(basis, group=group),
        purchase_figures.make_activity(basis),
        purchase_figures.make_gaps(basis),
        purchase_figures.make_repeats(basis, periods),
        purchase_figures.make_new_customers(basis, periods),
    ]
    return {"Articles": shop, "Purchases": purchases, "Customers": customers}


def _overview(basis: Basis) -> list[tuple[str, str]]:
    totals, (first, last) = basis.totals, basis.days
    customers, articles = (int(getattr(basis, name).count().execute()) for name in ("customers", "articles"))
    rows = [
        ("lines of transactions", f"{int(totals['lines']):,}"),
        ("baskets", f"{int(totals['baskets']):,}"),
        ("units", f"{int(totals['units']):,}"),
        ("value, price times quantity", f"{totals['value']:,.2f}" if totals["priced_lines"] else "no prices"),
        ("days", f"{basis.num_days:,}, {first.date()} to {last.date()}"),
        ("articles in the catalogue", f"{articles:,}"),
        ("of them sold", f"{int(totals['sold_articles']):,}"),
        ("customers with a row", f"{customers:,}"),
        ("of them with a purchase", f"{int(totals['buyers']):,}"),
        ("lines of anonymous customers", f"{int(totals['anonymous_lines']):,}"),
    ]
    if totals["stores"]:
        rows.append(("stores", f"{int(totals['stores']):,}"))
    return rows


def _write_value(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return str(value.date()) if value == value.normalize() else str(value.floor("s"))
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else f"{value:,}"
        if not isinstance(value, str)
        else value
    )


def _describe(row: dict[str, Any], *, is_exact: bool) -> dict[str, str]:
    """A feature in words: its type, what is missing, its values and what is notable about them."""
    known = row["rows"] - row["missing"]
    values, remark = "-", ""
    if known and not pd.isna(row["low"]):
        values = f"{_write_value(row['low'])} to {_write_value(row['high'])}"
        remark = "constant" if row["low"] == row["high"] else ""
    elif known and row["common"] is not None:
        values = f"{shorten(row['common'], 80)} ({format_share(row['common_rows'] / known)})"
        if row["common_rows"] == known:
            remark = "constant"
        elif row["common_rows"] == 1:
            remark, values = "no value twice", shorten(row["common"], 80)
        elif row["common_rows"] > 0.95 * known:
            remark = "nearly constant"
    if known == 0:
        remark = "all missing"
    return {
        "column": shorten(row["column"]),
        "type": row["type"],
        "missing": f"{row['missing']:,} ({format_share(row['missing'] / row['rows'])})" if row["missing"] else "0",
        "distinct": f"{row['distinct']:,}" if is_exact or row["distinct"] < 50 else f"about {row['distinct']:,}",
        "values": values,
        "remark": remark,
    }


def write_exploration(
    folder: Path,
    *,
    tables: Tables,
    title: str,
    section_group: str = "",
    section: str = "",
    category: str = "",
    garment_group: str = "",
    colour: str = "",
    sets: Sequence[str] = (),
    set_separator: str = "|",
) -> None:
    """Writes `exploration.html`, `figures/*.png` and `figures.json`, the numbers behind the figures.

    Rows are counted on the tables' own connection, with some temporary tables that are dropped at the end. What the tables
    lack leaves its figure out, and the page says why.

    Args:
        folder: Where to; made if it does not exist.
        tables: Indexed tables.
        title: What to call the source.
        section_group: Column of articles that figures are laid out by; empty, like each of the following, where there is none.
        section: Column of the part of the shop.
        category: Column of the kind of product.
        garment_group: Column of the kind of garment, broader than the category.
        colour: Column of the colour.
        sets: Columns of articles that hold several values each, which are counted one by one.
        set_separator: What stands between these.

    Raises:
        InputError: A role or a set names a column that articles do not have.
    """
    roles = {
        "section_group": section_group,
        "section": section,
        "category": category,
        "garment_group": garment_group,
        "colour": colour,
    }
    for role, column in roles.items():
        check_names(tables.articles, [column] if column else [], setting=f"features.roles.{role}", where="articles")
    check_names(tables.articles, sets, setting="features.sets", where="articles")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    with count_basis(tables) as basis, matplotlib.rc_context(STYLE):
        features = {
            "transactions": describe_features(basis.transactions, is_exact=False),
            "articles": describe_features(basis.articles, sets=sets, set_separator=set_separator),
            "customers": describe_features(basis.customers),
        }
        overview = _overview(basis)
        drawn = _draw_figures(basis, roles)
        sources = {}
        for figure in (found for found_here in drawn.values() for found in found_here if isinstance(found, Figure)):
            sources[figure.name] = write_png(figure.axes, folder / "figures" / f"{figure.name}.png")
    figures = {part: [found for found in here if isinstance(found, Figure)] for part, here in drawn.items()}
    left_out = [found for here in drawn.values() for found in here if isinstance(found, LeftOut)]
    counts = [asdict(count) for count in tables.counts]
    html = render(
        "exploration.html",
        title=title,
        overview=overview,
        roles={role: column for role, column in roles.items() if column},
        features={
            name: [_describe(row, is_exact=name != "transactions") for row in list_rows(found)]
            for name, found in features.items()
        },
        rows={name: int(found["rows"].iloc[0]) if len(found) else 0 for name, found in features.items()},
        counts=counts,
        figures=figures,
        left_out=left_out,
        sources=sources,
    )
    document = {
        "title": title,
        "roles": roles,
        "overview": dict(overview),
        "features": {name: list_rows(found) for name, found in features.items()},
        "counts": counts,
        "figures": {
            figure.name: {
                "title": figure.title,
                "sentences": figure.sentences,
                "caption": figure.caption,
                "rows": figure.rows,
                "data": figure.data,
            }
            for here in figures.values()
            for figure in here
        },
        "left_out": {found.name: found.reason for found in left_out},
    }
    write_json(folder / "figures.json", document)
    write_text(folder / "exploration.html", html)
