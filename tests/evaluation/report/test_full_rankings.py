import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.report.full_rankings import MEANINGS, describe_ranking
from tfrs_fashion.schema import TARGET_RANK_COLUMNS, InputError


def make_ranks(rows: list[tuple[int, int, int, str]]) -> pd.DataFrame:
    """Makes TargetRanks among five articles from (customer, article, rank, source)."""
    full = [(customer, article, rank, 5, source) for customer, article, rank, source in rows]
    return pd.DataFrame(full, columns=list(TARGET_RANK_COLUMNS)).astype(TARGET_RANK_COLUMNS)


IN_STORE = np.arange(2, 7)
# 8 is not in store; customer 5 is in the window, and was not drawn.
BOUGHT = pd.DataFrame([(2, 2), (2, 3), (3, 2), (3, 8), (4, 8), (5, 6)], columns=["customer_index", "article_index"])
RANKS = {
    "als": make_ranks([(2, 2, 1, "als"), (2, 3, 4, ""), (3, 2, 5, "")]),
    "gru": make_ranks([(2, 2, 1, "gru"), (2, 3, 2, "gru"), (3, 2, 3, "gru")]),
}


def test_metrics_and_notes_equal_hand_worked_values() -> None:
    found = describe_ranking(RANKS, targets=BOUGHT, in_store=IN_STORE, num_samples=50, seed=1)
    als = found.metrics["als"]
    assert list(als) == ["auc", "auc_pooled", "rank_q10", "rank_q50", "rank_q90", "named"]
    # Of three others, 0 and 2 rank above customer 2's purchases; of four others, all rank above customer 3's.
    assert als["auc"]["value"] == pytest.approx(((1 + 1 / 3) / 2 + 0) / 2)
    assert als["auc_pooled"]["value"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert [als[f"rank_q{share}"]["value"] for share in (10, 50, 90)] == [1, 4, 5]
    # The list has one of customer 2's two purchases, and none of customer 3's.
    assert als["named"]["value"] == pytest.approx(1 / 4)
    assert found.metrics["gru"]["named"] == {"value": 1, "low": 1, "high": 1}
    for metrics in found.metrics.values():
        assert all(value["low"] <= value["value"] <= value["high"] for value in metrics.values())
    first, second = found.notes
    assert first.startswith(
        "Each recommender ranked all 5 articles in store at the cutoff for 2 of the 3 customers who bought"
    )
    assert second.startswith("2 of the 6 (customer, article) pairs bought in the window are not counted here")
    assert found.figure.name == "roc_of_rank"


def test_cold_start_articles_are_measured_separately_and_sizes_are_added() -> None:
    options = {"targets": BOUGHT, "in_store": IN_STORE, "num_samples": 50, "seed": 1}
    found = describe_ranking(
        RANKS, cold_start_articles=np.array([3]), num_parameters={"als": 5, "gru": 7}, at_first_purchase=True, **options
    )
    # Of four other articles, als ranks three above customer 2's cold-start purchase, and gru one.
    assert found.metrics["als"]["auc_cold_start_articles"]["value"] == pytest.approx(1 / 4)
    assert found.metrics["gru"]["auc_cold_start_articles"]["value"] == pytest.approx(3 / 4)
    assert found.metrics["als"]["rank_q50_cold_start_articles"]["value"] == 4
    assert {name: values["num_parameters"]["value"] for name, values in found.metrics.items()} == {"als": 5, "gru": 7}
    assert "at the time of each customer's first purchase" in found.notes[0]
    assert found.notes[0].endswith("1 of their 3 purchases here are of articles never sold before.")
    assert {name for names in MEANINGS for name in names.split(", ")} == set(found.metrics["als"])
    # No cold-start article was in store.
    without = describe_ranking(RANKS, cold_start_articles=np.array([8]), **options)
    assert "auc_cold_start_articles" not in without.metrics["als"]
    assert "never sold" not in without.notes[0]


def test_empty_ranks_are_refused() -> None:
    with pytest.raises(InputError, match="target ranks: there is no row"):
        describe_ranking({"als": make_ranks([])}, targets=BOUGHT, in_store=IN_STORE, num_samples=50, seed=1)
