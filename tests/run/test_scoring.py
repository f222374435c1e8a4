"""What scorecards of one window share, and that a scorecard of the same lists is the report's."""

from typing import TYPE_CHECKING

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.report.page import load_metrics
from tfrs_fashion.run.scoring import Scoring, article_groups

if TYPE_CHECKING:
    from tfrs_fashion.run.run import Run


def test_groups_of_near_misses_are_those_that_the_articles_have() -> None:
    articles = pd.DataFrame(
        {
            "article_index": [4, 2, 3],
            "product_code": ["a", "b", "a"],
            "garment": ["Hats", None, "Coats"],
            "empty": [None, None, None],
        }
    )
    table = ibis.memtable(articles.astype({"empty": "string"}))
    found = article_groups(table, category="garment")
    assert list(found) == ["product", "category"]
    assert len(set(found["product"][[3, 4]])) == 1
    assert len(set(found["product"][2:])) == 2
    assert len(set(found["category"][2:])) == 3
    assert list(article_groups(table, category="")) == ["product"]
    assert list(article_groups(table.drop("product_code"), category="empty")) == []


@pytest.fixture(scope="module")
def scoring(tiny_run: "Run") -> Scoring:
    return Scoring(tiny_run.view("test"), tiny_run.tables, tiny_run._targets("test"), tiny_run.config)


def test_what_was_never_sold_and_who_never_bought_is_told_by_the_rows_before_the_cutoff(
    scoring: Scoring, tiny_run: "Run"
) -> None:
    rows = tiny_run.tables.transactions.execute()
    before = rows[rows["t_dat"] < tiny_run.splits["test"].as_of]
    unsold = set(scoring.judged["article_index"]) - set(before["article_index"])
    strangers = set(scoring.judged["customer_index"]) - set(before["customer_index"])
    assert set(scoring.never_sold) == unsold
    assert set(scoring.slices["cold_start_customers"]) == strangers
    assert len(scoring.bought) == len(before[["customer_index", "article_index"]].drop_duplicates())


def test_the_scorecard_of_the_reports_lists_is_the_reports(scoring: Scoring, tiny_run: "Run") -> None:
    name = tiny_run.config.recommend.recommender
    place = tiny_run.folder / "candidates" / name
    lists = (pd.read_parquet(place / f"{kind}.parquet") for kind in ("candidates", "candidates_new"))
    found = scoring.judge(*lists, num_samples=10).metrics
    told = load_metrics(tiny_run.folder / "report")["recommenders"][name]
    # Full rankings and sizes are measured elsewhere.
    assert set(told) - set(found) <= {
        "auc",
        "auc_pooled",
        "rank_q10",
        "rank_q50",
        "rank_q90",
        "named",
        "num_parameters",
    }
    for metric, figure in found.items():
        assert figure["value"] == pytest.approx(told[metric]["value"], nan_ok=True), metric
    assert np.isfinite(found["map@12"]["value"])
