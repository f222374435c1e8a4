"""The perceptron over baskets finds what follows what."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.basket_mlp import BasketMlp, fit_basket_mlp
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import InputError

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]
SETTINGS: dict[str, Any] = {
    "hidden_dims": (8,),
    "epochs": 30,
    "batch_size": 8,
    "learning_rate": 0.03,
    "dropout": 0.0,
    "history_articles": 9,
    "target_days": 100,
    "seed": 1,
    "name": "basket_mlp",
}
# Customers 2 to 11 buy article 2 and then 3; 12 to 21 buy 4 and then 5. The last two have bought the first half alone.
PAIRS = [(customer, 2 + basket, 1 + 4 * basket) for customer in range(2, 12) for basket in (0, 1)]
PAIRS += [(customer, 4 + basket, 1 + 4 * basket) for customer in range(12, 22) for basket in (0, 1)]
PAIRS += [(22, 2, 3), (23, 4, 3)]


@pytest.fixture(scope="module")
def view(make_view: MakeView) -> View:
    return make_view(PAIRS)


@pytest.mark.parametrize("hidden_dims", [(8,), (8, 6)])
def test_who_bought_the_first_is_shown_the_second(view: View, hidden_dims: tuple[int, ...], tmp_path: Path) -> None:
    customers = np.array([22, 23], np.int32)
    fitted = fit_basket_mlp(view, **{**SETTINGS, "hidden_dims": hidden_dims})
    found = rank_customers(fitted, view, customers, k=4)
    assert found.loc[found["rank"] == 1, "article_index"].tolist() == [3, 5]
    fitted.save(tmp_path)
    again = rank_customers(BasketMlp.load(tmp_path), view, customers, k=4)
    assert again.to_numpy().tolist() == found.to_numpy().tolist()


def test_who_bought_nothing_is_left_to_others(view: View) -> None:
    fitted = fit_basket_mlp(view, **{**SETTINGS, "epochs": 1})
    assert rank_customers(fitted, view, np.array([1], np.int32), k=4).empty


def test_what_is_not_in_store_is_not_shown(view: View) -> None:
    kept = np.array([2, 4, 5], np.int32)
    emptied = replace(view, articles=replace(view.articles, in_store=kept))
    fitted = fit_basket_mlp(emptied, **{**SETTINGS, "epochs": 1})
    found = rank_customers(fitted, emptied, np.array([22], np.int32), k=9)
    assert sorted(found["article_index"]) == kept.tolist()


def test_training_stops_when_the_figure_no_longer_rises(view: View) -> None:
    figures = iter([0.1, 0.3, 0.2, 0.2, 0.9])
    judged: list[BasketMlp] = []

    def validate(fitted: Any) -> dict[str, float]:
        judged.append(fitted)
        return {"val_map@12": next(figures)}

    fit_basket_mlp(view, **SETTINGS, validate=validate, patience=2)
    # The second epoch is the best, and two more are waited for.
    assert [fitted.name for fitted in judged] == ["basket_mlp"] * 4


def test_no_basket_in_time_is_told_by_its_own_name(view: View) -> None:
    with pytest.raises(
        InputError, match=r"mine: no baskets .* last `generators\.mine\.target_days` days.* or leave mine out"
    ):
        # The last purchase is of the 5th, five and a half days before the cutoff.
        fit_basket_mlp(view, **{**SETTINGS, "target_days": 2, "name": "mine"})
