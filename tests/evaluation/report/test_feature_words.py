import math

import pytest

from tfrs_fashion.evaluation.report.feature_words import say_feature, say_odds
from tfrs_fashion.features.article_weeks import FEATURES
from tfrs_fashion.features.pair_lookups import CUSTOMER_FEATURES, KEY_FEATURES, PRICE_FEATURES
from tfrs_fashion.schema import InputError


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rank item_knn", 3.0, "placed 3 by item_knn"),
        ("rank item_knn", math.nan, "not named by item_knn"),
        ("article times", 4.0, "it was in 4 of the customer's baskets"),
        ("product_code times", 4.0, "something of its product code was in 4 of the customer's baskets"),
        ("section days_since", math.nan, "section days since is not known"),
        ("best rank", 1.0, "placed 1 by the generator that ranks it highest"),
        ("best rank", math.inf, "not named by any generator"),
        ("price_to_paid", math.log(1.5), "costs 1.5 times what the customer pays on average"),
        ("customer age", 41.0, "the customer is 41 years old"),
        ("customer", 0.0, "what was learned of this very customer"),
        ("similarity two_tower", 0.25, "scored 0.25 by two_tower, whatever is asked"),
    ],
)
def test_features_in_words(name: str, value: float, words: str) -> None:
    assert say_feature(name, value) == words


def test_every_feature_has_words_that_hold_its_number() -> None:
    keys = [f"{key} {name}" for key in ("article", "section") for name in KEY_FEATURES]
    for name in (*keys, *(f"customer {name}" for name in CUSTOMER_FEATURES), *PRICE_FEATURES, *FEATURES):
        said = say_feature(name, 0.37)
        assert any(character.isdigit() for character in said), said
        assert "{" not in said
        assert say_feature(name, math.nan).endswith("is not known")


def test_odds() -> None:
    assert say_odds(math.log(3)) == "3.00 times the odds"
    with pytest.raises(InputError, match="nan"):
        say_odds(math.nan)
