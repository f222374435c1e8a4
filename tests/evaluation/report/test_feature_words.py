import math

import pytest

from tfrs_fashion.evaluation.report.feature_words import describe_feature, describe_odds
from tfrs_fashion.features.article_weeks import FEATURES
from tfrs_fashion.features.pair_lookups import CUSTOMER_FEATURES, KEY_FEATURES, PRICE_FEATURES
from tfrs_fashion.schema import InputError


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rank item_knn", 3.0, "ranked 3 by item_knn"),
        ("rank item_knn", math.nan, "not proposed by item_knn"),
        ("article times", 4.0, "it was in 4 of the customer's baskets"),
        ("product_code times", 4.0, "something of its product code was in 4 of the customer's baskets"),
        ("section days_since", math.nan, "section days since is not known"),
        ("best rank", 1.0, "ranked 1 by the generator that ranks it highest"),
        ("best rank", math.inf, "not proposed by any generator"),
        ("price_to_paid", math.log(1.5), "costs 1.5 times what the customer pays on average"),
        ("customer age", 41.0, "the customer is 41 years old"),
        ("customer", 0.0, "what was learned about this customer"),
        ("similarity two_tower", 0.25, "has a similarity of 0.25 according to two_tower"),
    ],
)
def test_feature_is_described_in_words(name: str, value: float, words: str) -> None:
    assert describe_feature(name, value) == words


def test_description_of_every_feature_contains_its_number() -> None:
    keys = [f"{key} {name}" for key in ("article", "section") for name in KEY_FEATURES]
    for name in (*keys, *(f"customer {name}" for name in CUSTOMER_FEATURES), *PRICE_FEATURES, *FEATURES):
        text = describe_feature(name, 0.37)
        assert any(character.isdigit() for character in text), text
        assert "{" not in text
        assert describe_feature(name, math.nan).endswith("is not known")


def test_odds_are_described_as_a_factor_and_nan_is_refused() -> None:
    assert describe_odds(math.log(3)) == "3.00 times the odds"
    with pytest.raises(InputError, match="nan"):
        describe_odds(math.nan)
