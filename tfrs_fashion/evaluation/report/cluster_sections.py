"""The report's sections on clusters: size, sales or purchases and distinguishing values of each, and a map."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ibis
import matplotlib
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.evaluation.drawing import STYLE, draw_map, format_amount, format_share, make_panels, shorten
from tfrs_fashion.evaluation.figure import Figure, join_sentences
from tfrs_fashion.evaluation.report.clusters import MIN_MEMBERS, Clusters, Trait, find_traits
from tfrs_fashion.schema import Tables

# Maximum number of points on a map; more would overlap.
MAX_POINTS = 3000
NUM_EXAMPLES = 3
# Minimum share of a value in the cluster to be in its title.
MIN_TITLE_SHARE = 0.15


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        number: Number of the cluster, from 1 for the largest.
        size: Number of its articles or customers.
        figures: Statistics by name; None if unknown.
        facts: The statistics in words.
        traits: Values that distinguish the cluster, by the role of their column.
        examples: `article_id` and description of the articles nearest its centre.
    """

    number: int
    size: int
    figures: dict[str, float | None]
    facts: tuple[str, ...]
    traits: dict[str, tuple[Trait, ...]]
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """Its number and its most distinguishing values."""
        leading = [traits[0] for traits in self.traits.values()]
        words = [shorten(trait.value, 40) for trait in leading if trait.share >= MIN_TITLE_SHARE]
        return f"{self.number}: {', '.join(words)}" if words else f"{self.number}"


@dataclass(frozen=True)
class ClusterSection:
    """The clusters of articles, or of customers.

    Attributes:
        name: Name of the section, in file names and anchors.
        heading: Heading of the section.
        clusters: Clusters, the largest first.
        figure: Map of the clusters.
        notes: How the clusters were made and what the terms mean, one sentence each.
        assigned: `article_id` or `customer_id` of each row, and its `cluster`.
    """

    name: str
    heading: str
    clusters: tuple[Cluster, ...]
    figure: Figure
    notes: tuple[str, ...]
    assigned: pd.DataFrame


def _optional(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _known_roles(tables: Tables, roles: Mapping[str, str]) -> dict[str, str]:
    """Drops roles without a column, and all but the first role of each column."""
    known: dict[str, str] = {}
    for role, column in roles.items():
        if column in tables.articles.columns and column not in known.values():
            known[role] = column
    return known


def _collect_traits(counted: Mapping[str, pd.DataFrame]) -> dict[int, dict[str, tuple[Trait, ...]]]:
    traits: dict[int, dict[str, tuple[Trait, ...]]] = {}
    for role, frame in counted.items():
        for number, values in find_traits(frame, role).items():
            traits.setdefault(number, {})[role] = values
    return traits


def _draw(clusters: Clusters, *, noun: str, rows_words: str, seed: int) -> Figure:
    total = len(clusters.cluster)
    drawn = np.sort(np.random.default_rng(seed).permutation(total)[:MAX_POINTS])
    title = (
        f"Map of {clusters.num_clusters:,} cluster{'s' * (clusters.num_clusters != 1)} of {noun}s by their embeddings"
    )
    units = [
        f"{which} principal component ({format_share(share)} of variance)"
        for which, share in zip(("first", "second"), clusters.place_share, strict=True)
    ]
    with matplotlib.rc_context(STYLE):
        (axes,) = make_panels(title, heights=[4.2])
        draw_map(axes, clusters.place[drawn], clusters.cluster[drawn], x_unit=units[0], y_unit=units[1])
    sizes = np.bincount(clusters.cluster)[1:]
    sentences = (
        f"Cluster 1 is the largest, with {format_share(sizes[0] / total)} of {_count(total, noun)}"
        + (f"; cluster {len(sizes)} the smallest, with {format_share(sizes[-1] / total)}." if len(sizes) > 1 else "."),
    )
    caption = join_sentences(
        f"{_count(total, noun)}{rows_words}.",
        f"Drawn: {len(drawn):,} of them, chosen at random." if len(drawn) < total else "",
        f"The map shows {format_share(sum(clusters.place_share))} of the variance: clusters that overlap here may be separate "
        "in other dimensions. Numbers are placed at the medians.",
    )
    data = {"sizes": sizes.tolist(), "place_share": clusters.place_share, "num_fitted": clusters.num_fitted}
    return Figure(f"{noun}_clusters", f"Map of {noun}s", title, sentences, caption, total, data, axes)


def _notes(clusters: Clusters, traits: Mapping[int, Any], roles: Mapping[str, str], *, of: str, seed: int) -> list[str]:
    total = len(clusters.cluster)
    fitted = f"{clusters.num_fitted:,} of {total:,}" if clusters.num_fitted < total else f"all {total:,}"
    notes = [
        "The embeddings are those of the two towers fitted before the window, without the bias and scaled to length 1, so "
        "that only direction counts.",
        f"The clusters come from k-means with seed {seed}, fitted on {fitted}: as many as `evaluation.num_clusters`, or fewer if "
        f"they would have fewer than {MIN_MEMBERS} members on average.",
    ]
    if not roles:
        notes.append(
            "No values distinguish the clusters, since no column of articles has the role `category`, `section` or `colour`: "
            "name one in [features.roles]."
        )
    elif traits:
        notes.append(
            f"Lift is the share of a value among {of} of the cluster, divided by its share among {of} of all clusters. "
            "Values are ordered by count times the logarithm of lift; the first of each role is in the title if its share is at "
            f"least {MIN_TITLE_SHARE:.0%}."
        )
    else:
        notes.append("No value of the columns with a role distinguishes any of the clusters.")
    return notes


def describe_articles(
    clusters: Clusters,
    article_index: np.ndarray,
    tables: Tables,
    *,
    roles: Mapping[str, str],
    since: datetime.datetime,
    seed: int,
) -> ClusterSection:
    """Describes clusters of articles.

    Args:
        clusters: Clusters of the articles' embeddings.
        article_index: `[num_rows]` distinct article_index of each row.
        tables: Indexed tables with only the visible transactions.
        roles: Column of articles by role; empty if there is none.
        since: Start of the counted sales.
        seed: Seed of the drawn points.
    """
    roles = _known_roles(tables, roles)
    columns = {f"role {role}": _[column].cast("string") for role, column in roles.items()}
    catalogue = tables.articles.select("article_index", "article_id", "description", **columns).execute()
    sales = (
        tables.transactions.filter(_.t_dat >= ibis.literal(since))
        .mutate(price=_.price.cast("float64"))
        .group_by("article_index")
        .agg(lines=_.count(), price_sum=_.price.sum(), priced=_.price.count())
        .execute()
    )
    rows = pd.DataFrame(
        {"article_index": article_index, "cluster": clusters.cluster, "distance": clusters.distance}
    ).merge(catalogue, how="left", on="article_index")
    rows = rows.merge(sales, how="left", on="article_index").fillna({"lines": 0, "price_sum": 0.0, "priced": 0})
    traits = _collect_traits(
        {
            role: rows.groupby(["cluster", f"role {role}"])
            .size()
            .rename_axis(["cluster", "value"])
            .reset_index(name="count")
            for role in roles
        }
    )
    all_lines, described = int(rows["lines"].sum()), []
    for number in range(1, clusters.num_clusters + 1):
        members = rows[rows["cluster"] == number]
        lines, priced = int(members["lines"].sum()), int(members["priced"].sum())
        figures = {
            "share_of_articles": len(members) / len(rows),
            "sales": float(lines),
            "share_of_sales": lines / all_lines if all_lines else None,
            "price_mean": float(members["price_sum"].sum()) / priced if priced else None,
        }
        facts = [f"{_count(len(members), 'article')} ({format_share(figures['share_of_articles'] or 0)})"]
        if all_lines:
            facts.append(f"{format_share(lines / all_lines)} of sales ({_count(lines, 'line')})")
        if figures["price_mean"] is not None:
            facts.append(f"mean price paid {format_amount(figures['price_mean'])}")
        nearest = members.sort_values(["distance", "article_index"]).head(NUM_EXAMPLES)
        examples = tuple(
            (str(row["article_id"]), "" if pd.isna(row["description"]) else shorten(row["description"], 90))
            for row in nearest.to_dict("records")
        )
        described.append(Cluster(number, len(members), figures, tuple(facts), traits.get(number, {}), examples))
    notes = _notes(clusters, traits, roles, of="the articles", seed=seed)
    notes.append(
        f"Sales are the lines from {since.date()} up to the cutoff, and shares are of the sales of these articles; prices are "
        "means over these lines. Examples are the articles nearest the centre."
    )
    figure = _draw(clusters, noun="article", rows_words=" in store at the cutoff", seed=seed)
    assigned = rows[["article_id", "cluster"]]
    return ClusterSection("article_clusters", "Clusters of articles", tuple(described), figure, tuple(notes), assigned)


def describe_customers(
    clusters: Clusters,
    customer_index: np.ndarray,
    tables: Tables,
    *,
    roles: Mapping[str, str],
    chosen_from: int,
    seed: int,
) -> ClusterSection:
    """Describes clusters of customers.

    Args:
        clusters: Clusters of the customers' query embeddings.
        customer_index: `[num_rows]` distinct customer_index of each row.
        tables: Indexed tables with only the visible transactions.
        roles: Column of articles by role; empty if there is none.
        chosen_from: Number of customers from whom these were sampled.
        seed: Seed of the drawn points.
    """
    roles = _known_roles(tables, roles)
    rows = pd.DataFrame({"customer_index": customer_index, "cluster": clusters.cluster})
    age = tables.customers.age.cast("float64") if "age" in tables.customers.columns else ibis.null("float64")
    people = tables.customers.select("customer_index", "customer_id", age=age).execute()
    lines = tables.transactions.semi_join(ibis.memtable(rows[["customer_index"]]), "customer_index")
    baskets = lines.group_by("customer_index").agg(baskets=_.basket_id.nunique()).execute()
    rows = rows.merge(people, how="left", on="customer_index").merge(baskets, how="left", on="customer_index")
    rows = rows.fillna({"baskets": 0})
    # The database sums by customer and value, pandas by cluster.
    counted = {}
    for role, column in roles.items():
        values = tables.articles.select("article_index", value=_[column].cast("string"))
        bought = lines.join(values, "article_index").filter(_.value.notnull())
        counts = bought.group_by("customer_index", "value").agg(count=_.count()).execute()
        counts = counts.merge(rows[["customer_index", "cluster"]], on="customer_index")
        counted[role] = counts.groupby(["cluster", "value"])["count"].sum().reset_index()
    traits = _collect_traits(counted)
    described = []
    for number in range(1, clusters.num_clusters + 1):
        members = rows[rows["cluster"] == number]
        ages = members["age"].dropna()
        figures = {
            "share_of_customers": len(members) / len(rows),
            "baskets_mean": _optional(members["baskets"].mean()),
            "age_mean": _optional(ages.mean()) if len(ages) else None,
            "customers_with_age": float(len(ages)),
        }
        facts = [
            f"{_count(len(members), 'customer')} ({format_share(len(members) / len(rows))})",
            f"{format_amount(figures['baskets_mean'] or 0)} baskets on average",
        ]
        if len(ages):
            of = "" if len(ages) == len(members) else f" (known for {len(ages):,})"
            facts.append(f"mean age {ages.mean():.0f}{of}")
        described.append(Cluster(number, len(members), figures, tuple(facts), traits.get(number, {})))
    notes = _notes(clusters, traits, roles, of="the purchases", seed=seed)
    rows_words = " who bought in the window and had a history before it"
    if chosen_from > len(rows):
        rows_words += f", sampled from {chosen_from:,}"
    figure = _draw(clusters, noun="customer", rows_words=rows_words, seed=seed)
    assigned = rows[["customer_id", "cluster"]]
    return ClusterSection(
        "customer_clusters", "Clusters of customers", tuple(described), figure, tuple(notes), assigned
    )
