"""The next category is told by the order of purchases, and what sells in it is recommended."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders import next_category
from tfrs_fashion.recommenders.next_category import NextCategory
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.sequences import NextCategoryConfig

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]
SETTINGS = NextCategoryConfig(
    embedding_dim=8,
    hidden_dim=8,
    dropout=0.0,
    article_dropout=0.0,
    learning_rate=0.03,
    epochs=30,
    batch_events=40,
    num_categories=1,
    category="kind",
)
# After a shirt (2 or 3) everyone buys shoes (4, or more often 5); after shoes a hat (6).
BOUGHT = [(customer, 2 + customer % 2, 4) for customer in range(2, 20)]
BOUGHT += [(customer, 5 if customer % 3 else 4, 6) for customer in range(2, 20)]
BOUGHT += [(customer, 6, 8) for customer in range(2, 20)]
BOUGHT += [(20, 2, 9), (21, 3, 4), (21, 4, 9)]


@pytest.fixture(scope="module")
def view(make_view: MakeView) -> View:
    made = make_view(BOUGHT)
    kind = np.array([0, 0, 2, 2, 3, 3, 4, 4], np.int32)
    return replace(
        made,
        articles=replace(made.articles, categorical={"kind": kind}, vocabulary={"kind": ["shirt", "shoes", "hat"]}),
    )


def fit(view: View, **changed: object) -> NextCategory:
    epochs = {"epochs": changed.pop("epochs")} if "epochs" in changed else {}
    return next_category.fit(view, SETTINGS.model_copy(update=changed), FitContext("next_category", choice=epochs))


def test_what_sells_in_the_next_category_is_recommended(view: View, tmp_path: Path) -> None:
    customers = np.array([20, 21], np.int32)
    fitted = fit(view)
    found = rank_customers(fitted, view, customers, k=3)
    assert found.to_numpy().tolist() == [[20, 5, 1], [20, 4, 2], [21, 6, 1]]
    table = HistoryTable(view.timelines, view.profiles)
    shares = fitted.probabilities(table(tf.constant(customers)), tf.constant(view.now[customers])).numpy()
    assert shares.sum(axis=1) == pytest.approx([1, 1])
    assert shares.argmax(axis=1).tolist() == [3, 4]
    assert not shares[:, 0].any()
    fitted.save(tmp_path)
    again = rank_customers(next_category.load(tmp_path), view, customers, k=3)
    assert again.to_numpy().tolist() == found.to_numpy().tolist()


def test_more_categories_come_after_the_likeliest(view: View) -> None:
    found = rank_customers(fit(view, num_categories=9), view, np.array([20], np.int32), k=5)
    assert set(found["article_index"]) == {2, 3, 4, 5, 6}


def test_customers_without_a_history_get_no_answer(view: View) -> None:
    assert rank_customers(fit(view, epochs=1), view, np.array([1], np.int32), k=3).empty


def test_an_unknown_category_is_refused(view: View) -> None:
    with pytest.raises(
        InputError, match=r"recommender\.next_category\.category: `colour` is no categorical.*known are kind"
    ):
        fit(view, category="colour")
