"""Clusters: known groups are found, titled by their distinguishing values, and shown in the report."""

import datetime
import json
import math
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest

from tests.evaluation.exploration.test_aggregates import make_tables
from tests.evaluation.report.test_page import read_page, write
from tfrs_fashion.evaluation.report import clusters as clusters_module
from tfrs_fashion.evaluation.report.cluster_sections import ClusterSection, describe_articles, describe_customers
from tfrs_fashion.evaluation.report.clusters import Trait, find_traits, fit_clusters
from tfrs_fashion.schema import FIRST_INDEX, InputError, Tables

ROLES = {"category": "category", "section": "section", "colour": ""}
LONG_AGO = datetime.datetime(2000, 1, 1)


def make_groups(sizes: tuple[int, ...] = (30, 20), *, dim: int = 8, seed: int = 0) -> np.ndarray:
    """Makes rows of any length around one axis per group."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.eye(dim)[group] + 0.05 * random.normal(size=(len(group), dim))
    return (rows * random.uniform(0.1, 10, size=(len(group), 1))).astype(np.float32)


def make_shop() -> Tables:
    """Articles A00 to A29 are trousers, A30 to A49 are hats; c00 to c29 buy trousers, c30 to c49 hats, twice each."""
    articles = [
        (f"A{place:02}", "all", "Men" if place % 2 else "Women", "Trousers" if place < 30 else "Hat")
        for place in range(50)
    ]
    customers = [(f"c{place:02}", None if place == 0 else 20.0 if place < 30 else 60.0) for place in range(50)]
    lines = [
        (f"c{place:02}", f"b{place}-{day}", datetime.datetime(2024, 1, day), f"A{place:02}", 1, 10.0 + place // 30, 1)
        for place in range(50)
        for day in (1, 2)
    ]
    return make_tables(lines, articles=articles, customers=customers)


def index_of(tables: Tables, kind: str) -> np.ndarray:
    """Returns the indices of all articles, or customers, in the order of their ids."""
    table = getattr(tables, f"{kind}s")
    return table.order_by(f"{kind}_id").execute()[f"{kind}_index"].to_numpy()


def articles_of(tables: Tables, embedding: np.ndarray, *, num_clusters: int = 2, **changes: Any) -> ClusterSection:
    found = fit_clusters(embedding, num_clusters=num_clusters, seed=1)
    settings: dict[str, Any] = {"roles": ROLES, "since": LONG_AGO, "seed": 1, **changes}
    return describe_articles(found, index_of(tables, "article")[: len(embedding)], tables, **settings)


def customers_of(tables: Tables, embedding: np.ndarray, **changes: Any) -> ClusterSection:
    found = fit_clusters(embedding, num_clusters=2, seed=1)
    settings: dict[str, Any] = {"roles": ROLES, "chosen_from": 50, "seed": 1, **changes}
    return describe_customers(found, index_of(tables, "customer"), tables, **settings)


def test_separate_groups_are_found_and_numbered_by_size() -> None:
    found = fit_clusters(make_groups((20, 30, 10)), num_clusters=3, seed=1)
    assert found.cluster.tolist() == [2] * 20 + [1] * 30 + [3] * 10
    assert found.num_clusters == 3
    assert found.num_fitted == 60
    assert sum(found.place_share) > 0.9


def test_length_of_embeddings_does_not_matter() -> None:
    rows = make_groups()
    left, right = (fit_clusters(found, num_clusters=2, seed=1) for found in (rows, 100 * rows))
    np.testing.assert_array_equal(left.cluster, right.cluster)
    np.testing.assert_allclose(left.place, right.place, atol=1e-5)


def test_same_seed_gives_the_same_clusters() -> None:
    rows = np.random.default_rng(3).normal(size=(3000, 16)).astype(np.float32)
    left, right = (fit_clusters(rows, num_clusters=7, seed=5) for _time in range(2))
    for name in ("cluster", "distance", "place"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_rows_that_were_not_fitted_join_the_nearest_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters_module, "MAX_FITTED", 25)
    found = fit_clusters(make_groups((60, 40)), num_clusters=2, seed=1)
    assert found.num_fitted == 25
    assert found.cluster.tolist() == [1] * 60 + [2] * 40


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (3, 1), (19, 1), (20, 2), (80, 8), (500, 8)])
def test_number_of_clusters_is_limited_to_ten_members_on_average(rows: int, expected: int) -> None:
    embedding = np.random.default_rng(1).normal(size=(rows, 4))
    assert fit_clusters(embedding, num_clusters=8, seed=1).num_clusters == expected


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_identical_embeddings_are_one_cluster(value: float) -> None:
    found = fit_clusters(np.full((50, 3), value), num_clusters=5, seed=1)
    assert found.num_clusters == 1
    assert found.place_share == (0.0, 0.0)
    assert np.isfinite(found.place).all()


def test_embeddings_of_one_dimension_are_clustered() -> None:
    found = fit_clusters(np.repeat([[-2.0], [1.0]], [15, 10], axis=0), num_clusters=2, seed=1)
    assert found.cluster.tolist() == [1] * 15 + [2] * 10
    assert found.place_share == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,)])
def test_embeddings_without_rows_or_columns_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"embeddings of shape .*, expected at least one row"):
        fit_clusters(np.zeros(shape), num_clusters=2, seed=1)


def test_embeddings_that_are_not_finite_are_refused() -> None:
    rows = make_groups()
    rows[[3, 7], 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 of 50 embeddings are not finite, e.g. those of rows 3, 7. Train again"):
        fit_clusters(rows, num_clusters=2, seed=1)


def test_traits_equal_hand_worked_shares_and_lifts() -> None:
    counted = pd.DataFrame(
        [(1, "red", 6), (1, "blue", 2), (2, "red", 2), (2, "blue", 8), (2, "rare", 2), (2, None, 99), (1, " ", 99)],
        columns=["cluster", "value", "count"],
    )
    # 20 have a value: 8 of cluster 1, 12 of cluster 2; 8 are red, 10 blue, 2 rare. Of cluster 2 blue weighs
    # 8 * log(4/3) = 2.3, rare 2 * log(5/3) = 1.0.
    found = find_traits(counted, "colour")
    assert found == {
        1: (Trait("colour", "red", 6, pytest.approx(6 / 8), pytest.approx((6 / 8) / (8 / 20))),),
        2: (
            Trait("colour", "blue", 8, pytest.approx(8 / 12), pytest.approx((8 / 12) / (10 / 20))),
            Trait("colour", "rare", 2, pytest.approx(2 / 12), pytest.approx((2 / 12) / (2 / 20))),
        ),
    }


def test_article_clusters_have_titles_statistics_and_examples() -> None:
    tables = make_shop()
    section = articles_of(tables, make_groups())
    trousers, hats = section.clusters
    assert trousers.title == "1: Trousers"
    assert hats.title == "2: Hat"
    assert (trousers.size, hats.size) == (30, 20)
    # Of 100 lines, 60 are trousers at 10.0 and 40 are hats at 11.0. Half of each is for women: no trait.
    assert trousers.figures == {"share_of_articles": 0.6, "sales": 60, "share_of_sales": 0.6, "price_mean": 10}
    assert hats.figures["price_mean"] == pytest.approx(11)
    assert trousers.traits == {"category": (Trait("category", "Trousers", 30, 1.0, pytest.approx(50 / 30)),)}
    assert hats.traits["category"][0].lift == pytest.approx(50 / 20)
    assert len(trousers.examples) == 3
    assert all(article < "A30" and description == "Trousers" for article, description in trousers.examples)
    assigned = dict(section.assigned.itertuples(index=False, name=None))
    assert assigned == {f"A{place:02}": 1 if place < 30 else 2 for place in range(50)}
    assert "50 articles in store" in section.figure.caption


def test_only_sales_since_the_given_day_count() -> None:
    tables = make_shop()
    section = articles_of(tables, make_groups(), since=datetime.datetime(2024, 1, 2))
    assert [cluster.figures["sales"] for cluster in section.clusters] == [30, 20]
    section = articles_of(tables, make_groups(), since=datetime.datetime(2024, 1, 3))
    for cluster in section.clusters:
        assert cluster.figures["share_of_sales"] is None
        assert cluster.figures["price_mean"] is None
        assert len(cluster.facts) == 1


def test_customer_clusters_have_titles_and_statistics() -> None:
    section = customers_of(make_shop(), make_groups())
    young, old = section.clusters
    assert (young.title, old.title) == ("1: Trousers", "2: Hat")
    assert young.figures == {"share_of_customers": 0.6, "baskets_mean": 2, "age_mean": 20, "customers_with_age": 29}
    assert old.figures["age_mean"] == 60
    assert "mean age 20 (known for 29)" in young.facts
    assert "mean age 60" in old.facts
    assert "sampled from" not in section.figure.caption
    section = customers_of(make_shop(), make_groups(), chosen_from=60)
    assert "history before it, sampled from 60." in section.figure.caption
    assert young.traits["category"] == (Trait("category", "Trousers", 60, 1.0, pytest.approx(100 / 60)),)


def test_few_articles_form_one_cluster_without_traits() -> None:
    tables = make_shop()
    for rows in (3, 1):
        section = articles_of(tables, make_groups()[:rows], num_clusters=8)
        (cluster,) = section.clusters
        assert cluster.size == len(cluster.examples) == rows
        assert cluster.title == "1"
        assert any("No value of the columns" in note for note in section.notes)


@pytest.mark.parametrize("roles", [{}, {"category": "", "section": ""}, {"category": "absent"}])
def test_page_without_roles_says_how_to_name_them(roles: dict[str, str], tmp_path: Path) -> None:
    tables = make_shop()
    sections = [articles_of(tables, make_groups(), roles=roles), customers_of(tables, make_groups(), roles=roles)]
    for section in sections:
        assert [cluster.title for cluster in section.clusters] == ["1", "2"]
        assert not any(cluster.traits for cluster in section.clusters)
    _metrics, path = write(tmp_path, clusters=sections)
    assert read_page(path).text.count("name one in [features.roles]") == 2


def test_column_with_two_roles_is_shown_once() -> None:
    section = articles_of(make_shop(), make_groups(), roles={"category": "category", "section": "category"})
    assert list(section.clusters[0].traits) == ["category"]


def test_columns_of_nulls_give_no_statistics(tmp_path: Path) -> None:
    shop = make_shop()
    nothing = ibis.null("string")
    tables = Tables(
        shop.customers.mutate(age=ibis.literal(math.nan)),
        shop.articles.mutate(description=nothing, category=nothing, section=ibis.literal("")),
        shop.transactions.mutate(price=ibis.null("float64")),
    )
    sections = [articles_of(tables, make_groups()), customers_of(tables, make_groups())]
    articles, customers = sections
    assert [cluster.figures["price_mean"] for cluster in articles.clusters] == [None, None]
    assert all(description == "" for cluster in articles.clusters for _article, description in cluster.examples)
    assert [cluster.figures["age_mean"] for cluster in customers.clusters] == [None, None]
    metrics, path = write(tmp_path, clusters=sections)
    assert "NaN" not in metrics.read_text()
    assert "nan" not in read_page(path).text.lower().split()


def test_missing_age_column_gives_no_age() -> None:
    shop = make_shop()
    section = customers_of(Tables(shop.customers.drop("age"), shop.articles, shop.transactions), make_groups())
    assert section.clusters[0].figures["age_mean"] is None


def test_report_has_sections_maps_and_files(tmp_path: Path) -> None:
    tables = make_shop()
    sections = [articles_of(tables, make_groups()), customers_of(tables, make_groups())]
    metrics, path = write(tmp_path, clusters=sections)
    page = read_page(path)
    for expected in (
        "Clusters of articles",
        "Clusters of customers",
        "1: Trousers",
        "30 articles (60%); 60% of sales (60 lines); mean price paid 10.",
        "30 customers (60%); 2 baskets on average; mean age 20 (known for 29).",
    ):
        assert expected in page.text
    assert all(address.startswith("data:image/png") for address in page.fetched)
    stored = json.loads(metrics.read_text())["clusters"]
    assert list(stored) == ["article_clusters", "customer_clusters"]
    assert stored["article_clusters"][0]["figures"]["share_of_sales"] == 0.6
    assert stored["customer_clusters"][1]["traits"]["category"][0]["value"] == "Hat"
    for name in stored:
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    csv = pd.read_csv(tmp_path / "article_clusters.csv", dtype=str)
    assert csv.columns.tolist() == ["article_id", "cluster"]
    assert len(csv) == 50


def test_markup_in_values_is_escaped(tmp_path: Path) -> None:
    shop = make_shop()
    hostile = ibis.literal("<script>alert(1)</script> $x^2$ " + "long " * 200)
    words = ibis.ifelse(shop.articles.category == "Hat", hostile, ibis.literal("مرحبا"))
    tables = Tables(shop.customers, shop.articles.mutate(category=words, description=words), shop.transactions)
    _metrics, path = write(tmp_path, clusters=[articles_of(tables, make_groups())])
    page = read_page(path)
    assert "script" not in page.tags
    assert "مرحبا" in page.text
    assert max(len(word) for word in page.text.splitlines()) < 2000


def test_map_draws_a_sample_of_many_points() -> None:
    tables = make_shop()
    found = fit_clusters(np.random.default_rng(0).normal(size=(5000, 4)), num_clusters=4, seed=1)
    section = describe_articles(found, np.arange(5000) + FIRST_INDEX, tables, roles=ROLES, since=LONG_AGO, seed=1)
    assert "Drawn: 3,000 of them" in section.figure.caption
    assert section.figure.rows == 5000
