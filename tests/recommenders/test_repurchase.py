"""Repurchase in its variants: all baskets or the last ones, counted or decayed, in store or not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.kinds import fit_by_name, load_recommender
from tfrs_fashion.recommenders.repurchase import Repurchase
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.settings.file import load_config

# Customer 2: article 2 on three early days, 3 on two, the later one yesterday, 4 and 5 in the last basket.
ROWS = [(2, 2, 1), (2, 2, 2), (2, 2, 3), (2, 3, 4), (2, 3, 9), (2, 4, 10), (2, 5, 10), (3, 6, 2)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {2: [2, 3, 4, 5], 3: [6]}),
        ({"last_basket": True}, {2: [4, 5], 3: [6]}),
        # The cutoff is the 11th at midnight: two days reach back to the 9th, and each article was bought once since.
        ({"days": 2}, {2: [4, 5, 3]}),
        ({"days": 1}, {2: [4, 5]}),
        # A basket halves each day: 4 and 5: 2**-.5; 3: 2**-1.5 + 2**-6.5; 2: less than 2**-6.
        ({"half_life_days": 1.0}, {2: [4, 5, 3, 2], 3: [6]}),
        # In four days: 2: 2**(-9.5/4) + 2**(-8.5/4) + 2**(-7.5/4) = .69; 3: 2**(-1.5/4) + 2**(-6.5/4) = 1.10;
        # 4 and 5: 2**(-.5/4) = .92.
        ({"half_life_days": 4.0}, {2: [3, 4, 5, 2], 3: [6]}),
        ({"days": 2, "half_life_days": 4.0}, {2: [4, 5, 3]}),
    ],
)
def test_repurchases_are_counted_and_decayed_as_set(
    make_view: Callable[[Sequence[tuple[int, int, int]]], View],
    settings: dict[str, float],
    expected: dict[int, list[int]],
) -> None:
    view = make_view(ROWS)
    found = rank_customers(Repurchase(**settings), view, np.array([1, 2, 3], np.int32), k=9)  # type: ignore[arg-type]
    assert {int(key): rows["article_index"].tolist() for key, rows in found.groupby("customer_index")} == expected


@pytest.mark.parametrize(
    ("settings", "in_store", "expected"),
    [
        # The best of customer 2 is sold out, and the others move up; customer 3 has nothing else.
        ("", [3, 4, 5], {2: [3, 4]}),
        # What has a higher index than anything in store is as much out of it.
        ("", [2, 3], {2: [2, 3]}),
        ("", [], {}),
        # The last basket is what it was, in store or not.
        ("last_basket = true", [2, 5], {2: [5]}),
        ("in_store_only = false", [3, 4, 5], {2: [2, 3], 3: [6]}),
    ],
)
def test_articles_out_of_store_are_left_out_before_top_k(
    make_view: Callable[[Sequence[tuple[int, int, int]]], View],
    root: Path,
    tmp_path: Path,
    settings: str,
    in_store: list[int],
    expected: dict[int, list[int]],
) -> None:
    view = make_view(ROWS)
    view = replace(view, articles=replace(view.articles, in_store=np.array(in_store, np.int32)))
    kind = f"recommender.mine={{kind = 'repurchase'{', ' if settings else ''}{settings}}}"
    config = load_config(root / "pipelines" / "tiny.toml", [kind])
    fitted = fit_by_name("mine", view, config.recommender)
    fitted.save(tmp_path)
    for recommender in (fitted, load_recommender(tmp_path)):
        found = rank_customers(recommender, view, np.array([1, 2, 3], np.int32), k=2)
        assert {int(key): rows["article_index"].tolist() for key, rows in found.groupby("customer_index")} == expected
