"""Fashion DNA knows articles by what they are made of, and customers by their lasting style."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders import fashion_dna
from tfrs_fashion.recommenders.fashion_dna import StaticStyles
from tfrs_fashion.recommenders.kinds import load_recommender
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.sequences import FashionDnaConfig

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]
SETTINGS = FashionDnaConfig(
    dim=4, hidden_dims=(8,), content_dim=8, dropout=0.0, min_articles=2, learning_rate=0.02, epochs=150, batch_size=3
)


def fit(view: View, settings: FashionDnaConfig = SETTINGS) -> StaticStyles:
    return fashion_dna.fit(view, settings, FitContext("fashion_dna"))


# Customers 2 to 9 buy the red articles 2 and 3, customers 10 to 17 the blue 5 and 6. Nobody bought 4 (red) and 7 (blue).
BOUGHT = [(customer, article, 1 + article) for customer in range(2, 10) for article in (2, 3)]
BOUGHT += [(customer, article, 1 + article) for customer in range(10, 18) for article in (5, 6)]
BOUGHT += [(18, 2, 4)]


@pytest.fixture(scope="module")
def view(make_view: MakeView) -> View:
    made = make_view(BOUGHT)
    colour = np.array([0, 0, 2, 2, 2, 3, 3, 3], np.int32)
    return replace(
        made, articles=replace(made.articles, categorical={"colour": colour}, vocabulary={"colour": ["red", "blue"]})
    )


@pytest.fixture(scope="module")
def fitted(view: View) -> StaticStyles:
    return fit(view)


def test_articles_never_sold_have_the_vector_of_their_content(fitted: StaticStyles) -> None:
    assert fitted.vectors[4] == pytest.approx(fitted.vectors[2], abs=1e-6)
    assert fitted.vectors[7] == pytest.approx(fitted.vectors[5], abs=1e-6)
    assert np.abs(fitted.vectors[4] - fitted.vectors[7]).max() > 0.1


def test_each_style_likes_its_colour(fitted: StaticStyles, view: View, tmp_path: Path) -> None:
    customers = np.array([2, 10], np.int32)
    found = rank_customers(fitted, view, customers, k=2)
    assert [set(rows["article_index"]) for _customer, rows in found.groupby("customer_index")] == [{2, 3}, {5, 6}]
    fitted.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, StaticStyles)
    assert rank_customers(loaded, view, customers, k=2).to_numpy().tolist() == found.to_numpy().tolist()
    assert loaded.vectors.tolist() == fitted.vectors.tolist()


def test_customers_with_few_purchases_get_no_answer(fitted: StaticStyles, view: View) -> None:
    assert rank_customers(fitted, view, np.array([1, 18], np.int32), k=2).empty


def test_articles_without_content_are_refused(make_view: MakeView) -> None:
    with pytest.raises(
        InputError,
        match=r"fashion_dna: Fashion DNA is computed from the content of articles, and `features` declares none",
    ):
        fit(make_view(BOUGHT))


def test_a_view_without_frequent_customers_is_refused(view: View) -> None:
    with pytest.raises(
        InputError, match=r"none of 17 customer\(s\) bought 9 articles.*`recommender\.fashion_dna\.min_articles`"
    ):
        fit(view, SETTINGS.model_copy(update={"min_articles": 9}))
