"""The base two towers learn who buys what."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.models.base_two_tower import BaseTower, BaseTwoTowerModel
from tfrs_fashion.recommenders import base_two_tower
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.recommenders import BaseTwoTowerConfig

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]
SETTINGS: dict[str, Any] = {
    "embedding_dim": 4,
    "encoding": "one_hot",
    "hidden_dims": (),
    "epochs": 40,
    "batch_size": 8,
    "learning_rate": 0.05,
}
# Even customers buy 2, 3 and 4, odd ones 5, 6 and 7.
ROWS = [(customer, article + 3 * (customer % 2), 1 + article) for customer in range(2, 20) for article in (2, 3, 4)]


@pytest.mark.parametrize("encoding", ["one_hot", "embedding"])
@pytest.mark.parametrize("hidden_dims", [(), (8, 6)])
def test_the_base_two_towers_recommend_past_purchases(
    make_view: MakeView, encoding: str, hidden_dims: tuple[int, ...]
) -> None:
    view = make_view(ROWS)
    # Rectifiers die of large steps.
    steps = {"learning_rate": 0.01, "epochs": 100} if hidden_dims else {}
    settings = BaseTwoTowerConfig(**{**SETTINGS, **steps, "encoding": encoding, "hidden_dims": hidden_dims})
    fitted = base_two_tower.fit(view, settings, FitContext("base_two_tower"))
    assert isinstance(fitted, Factorization)
    found = rank_customers(fitted, view, np.arange(1, 20, dtype=np.int32), k=3)
    shown = {int(key): set(rows["article_index"]) for key, rows in found.groupby("customer_index")}
    # Customer 1 is nobody, and is not answered.
    assert shown == {customer: {2, 3, 4} if customer % 2 == 0 else {5, 6, 7} for customer in range(2, 20)}


def make_tower(sizes: list[int], seed: int) -> BaseTower:
    tower = BaseTower(sizes, embedding_dim=3, encoding="one_hot", hidden_dims=(), seed=seed)
    random = np.random.default_rng(seed)
    tower.set_weights([random.normal(size=weight.shape).astype(np.float32) for weight in tower.get_weights()])
    return tower


def test_the_loss_is_the_squared_error_of_what_was_bought_and_of_as_many_others() -> None:
    query_tower, candidate_tower = make_tower([4, 3], 1), make_tower([5, 4], 2)
    features = np.array([[0], [0], [2], [0], [3]], np.int32)
    # One article to draw from, so that chance plays no part.
    model = BaseTwoTowerModel(query_tower, candidate_tower, features=features, negatives=np.array([4], np.int32))
    histories = Histories.empty(2, num_features=1, num_numbers=0)._replace(
        customer_index=tf.constant([2, 3]), profile=tf.constant([[2], [0]])
    )
    target = tf.ragged.constant([[2, 3], [2]], dtype=tf.int32, row_splits_dtype=tf.int64)
    with tf.GradientTape() as tape:
        loss = model.compute_loss({"histories": histories, "target": target})

    (query_bias, query_kernel), (bias, kernel) = (
        sorted((weight.numpy() for weight in tower.trainable_variables), key=np.ndim)
        for tower in (query_tower, candidate_tower)
    )
    # Rows of the second feature follow those of the first; index 0 of a feature is missing and adds nothing.
    query = np.stack([query_kernel[2] + query_kernel[4 + 2], query_kernel[3]]) + query_bias
    candidate = {2: kernel[2] + kernel[5 + 2] + bias, 3: kernel[3] + bias, 4: kernel[4] + kernel[5 + 3] + bias}
    errors = []
    for row, article in ((0, 2), (0, 3), (1, 2)):
        for shown, wanted in ((article, 1.0), (4, 0.0)):
            errors.append((1.0 / (1.0 + np.exp(-query[row] @ candidate[shown])) - wanted) ** 2)
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-5)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert len(gradients) == 4
    assert all(np.isfinite(gradient.numpy()).all() and np.abs(gradient.numpy()).sum() > 0 for gradient in gradients)


def test_a_view_without_purchases_is_refused(make_view: MakeView) -> None:
    view = make_view(ROWS)
    empty = replace(view, timelines=view.timelines.before(np.zeros(len(view.now), np.int64)))
    assert not len(empty.timelines.time)
    with pytest.raises(InputError, match=r"mine: nothing was bought by a known customer .* Leave mine out"):
        base_two_tower.fit(empty, BaseTwoTowerConfig(**SETTINGS), FitContext("mine"))
