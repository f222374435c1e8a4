"""The exploration page: tables, features, missing values and figures of a data source, before any model.

`figures.json` is for programs, `exploration.html` for people: one file with no script and nothing to download.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from tfrs_fashion.evaluation.document import render, write_json, write_text
from tfrs_fashion.evaluation.drawing import STYLE, format_share, shorten, write_png
from tfrs_fashion.evaluation.exploration import article_figures, distributions, purchase_figures
from tfrs_fashion.evaluation.exploration.aggregates import Basis, count_basis, describe_features
from tfrs_fashion.evaluation.figure import Drawing, Figure, list_rows
from tfrs_fashion.schema import Tables, check_names

ROLES = ("section_group", "section", "category", "garment_group", "colour")
# Name, heading and function of every figure, by section of the page. A function returns the reason as text where the source
# lacks what its figure would show.
FIGURES: dict[str, tuple[tuple[str, str, Callable[[Basis], Drawing | str]], ...]] = {
    "Articles": (
        ("assortment", "Assortment", article_figures.draw_assortment),
        ("categories_top", "Best-selling categories", article_figures.draw_top_categories),
        ("categories_bottom", "Least-selling categories", article_figures.draw_bottom_categories),
        (
            "garment_group_shares",
            "Garment group: offered and sold",
            partial(article_figures.draw_role_shares, role="garment_group"),
        ),
        ("colour_shares", "Colour: offered and sold", partial(article_figures.draw_role_shares, role="colour")),
        ("long_tail", "Long tail of popularity", article_figures.draw_long_tail),
        ("new_articles", "New articles", partial(purchase_figures.draw_first_seen, column="new_articles")),
    ),
    "Purchases": (
        ("purchases", "Purchases over time", purchase_figures.draw_purchases),
        ("channels", "Sales by channel", purchase_figures.draw_channels),
        ("channels_over_time", "Channels over time", purchase_figures.draw_channels_over_time),
        ("basket_sizes", "Basket sizes", partial(distributions.draw_distribution, name="basket_sizes")),
        ("quantities", "Quantities", partial(distributions.draw_distribution, name="quantities")),
        ("prices", "Prices", distributions.draw_prices),
    ),
    "Customers": (
        ("ages", "Age of buyers", distributions.draw_ages),
        ("activity", "Activity of customers", partial(distributions.draw_distribution, name="activity")),
        ("gaps", "Days between purchases", partial(distributions.draw_distribution, name="gaps")),
        ("repeats", "Repeat rate", purchase_figures.draw_repeats),
        ("new_customers", "New customers", partial(purchase_figures.draw_first_seen, column="new_customers")),
    ),
}


def _overview(basis: Basis) -> list[tuple[str, str]]:
    totals, (first, last) = basis.totals, basis.days
    rows = [
        ("lines of transactions", f"{int(totals['lines']):,}"),
        ("baskets", f"{int(totals['baskets']):,}"),
        ("units", f"{int(totals['units']):,}"),
        ("value, price times quantity", f"{totals['value']:,.2f}" if totals["priced_lines"] else "no prices"),
        ("days", f"{basis.num_days:,}, {first.date()} to {last.date()}"),
        ("articles in the catalogue", f"{int(totals['articles']):,}"),
        ("of them sold", f"{int(totals['sold_articles']):,}"),
        ("customers with a row", f"{int(basis.customers.count().execute()):,}"),
        ("of them with a purchase", f"{int(totals['buyers']):,}"),
        ("lines of anonymous customers", f"{int(totals['anonymous_lines']):,}"),
    ]
    if totals["stores"]:
        rows.append(("stores", f"{int(totals['stores']):,}"))
    return rows


def _format_value(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return str(value.date()) if value == value.normalize() else str(value.floor("s"))
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,}"


def _describe(row: dict[str, Any], *, is_exact: bool) -> dict[str, str]:
    """Describes a feature as text: type, number missing, values, and a remark on anything notable."""
    known = row["rows"] - row["missing"]
    values, remark = "-", ""
    if known and not pd.isna(row["low"]):
        values = f"{_format_value(row['low'])} to {_format_value(row['high'])}"
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
    sets: Sequence[str] = (),
    set_separator: str = "|",
    **roles: str,
) -> None:
    """Writes `exploration.html`, `figures/*.png`, and the numbers behind the figures as `figures.json`.

    A figure for which the tables lack data is left out, and the page says why.

    Args:
        folder: Output folder; created if it does not exist.
        tables: Indexed tables, on a DuckDB connection.
        title: Name of the source.
        sets: Columns of articles whose cells hold several values, counted individually.
        set_separator: The separator between these values.
        **roles: Column of articles by role of `ROLES`; empty for none.

    Raises:
        InputError: A role or a set names a column that articles do not have.
    """
    roles = dict.fromkeys(ROLES, "") | roles
    for role, column in roles.items():
        check_names(tables.articles, [column] if column else [], setting=f"features.roles.{role}", where="articles")
    check_names(tables.articles, sets, setting="features.sets", where="articles")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[Figure]] = {section: [] for section in FIGURES}
    left_out: dict[str, tuple[str, str]] = {}
    sources = {}
    with count_basis(tables, roles) as basis, matplotlib.rc_context(STYLE):
        features = {
            "transactions": describe_features(basis.transactions, is_exact=False),
            "articles": describe_features(basis.articles, sets=sets, set_separator=set_separator),
            "customers": describe_features(basis.customers),
        }
        overview = _overview(basis)
        for section, rows in FIGURES.items():
            for name, heading, draw in rows:
                drawing = draw(basis)
                if isinstance(drawing, str):
                    left_out[name] = heading, drawing
                else:
                    figures[section].append(Figure(name, heading, *drawing))
                    sources[name] = write_png(drawing.axes, folder / "figures" / f"{name}.png")
    counts = [asdict(count) for count in tables.counts]
    html = render(
        "exploration.html",
        title=title,
        overview=overview,
        roles={role: column for role, column in roles.items() if column},
        features={
            name: [_describe(row, is_exact=name != "transactions") for row in list_rows(described)]
            for name, described in features.items()
        },
        rows={name: int(described["rows"].iloc[0]) if len(described) else 0 for name, described in features.items()},
        counts=counts,
        figures=figures,
        left_out=left_out.values(),
        sources=sources,
    )
    document = {
        "title": title,
        "roles": roles,
        "overview": dict(overview),
        "features": {name: list_rows(described) for name, described in features.items()},
        "counts": counts,
        "figures": {
            figure.name: {key: getattr(figure, key) for key in ("title", "sentences", "caption", "rows", "data")}
            for drawn in figures.values()
            for figure in drawn
        },
        "left_out": {name: reason for name, (_heading, reason) in left_out.items()},
    }
    write_json(folder / "figures.json", document)
    write_text(folder / "exploration.html", html)
