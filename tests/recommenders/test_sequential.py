"""A sequential tower learns what follows what, and answers whatever history it is given."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.models.objectives import LossKind
from tfrs_fashion.models.sequence_encoders import SequenceKind
from tfrs_fashion.recommenders import sequential
from tfrs_fashion.recommenders.fashion_dna import StaticStyles
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.recommenders.sequence_query import SequenceQuery
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, InputError
from tfrs_fashion.settings.sequences import SequentialConfig

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]
SETTINGS: dict[str, Any] = {
    "embedding_dim": 16,
    "hidden_dim": 16,
    "loss": "full_softmax",
    "dropout": 0.0,
    "article_dropout": 0.0,
    "learning_rate": 0.03,
    "epochs": 25,
    "batch_events": 40,
    "history_length": 10,
    "event_features": ("gap",),
}


def fit(view: View, *, vectors: np.ndarray | None = None, **changed: Any) -> IndexedTower:
    given = {} if vectors is None else {"vectors_of": "styles"}

    def part(name: str) -> StaticStyles:
        nobody = np.zeros((1, vectors.shape[1]), np.float32)
        return StaticStyles(nobody, vectors, view.articles.in_store, name=name)

    return sequential.fit(view, SequentialConfig(**{**SETTINGS, **given, **changed}), FitContext("gru", part=part))


# What follows 2 and 3 depends on which of them came first: 4 or 5. Nothing but the order tells.
ORDERED = [(customer, article, 1 + 2 * place) for customer in range(2, 14) for place, article in enumerate((2, 3, 4))]
ORDERED += [(customer, article, 1 + 2 * place) for customer in range(14, 26) for place, article in enumerate((3, 2, 5))]
ORDERED += [(26, 2, 6), (26, 3, 8), (27, 3, 6), (27, 2, 8)]


@pytest.fixture(scope="module")
def view(make_view: MakeView) -> View:
    return make_view(ORDERED)


@pytest.mark.parametrize("kind", ["gru", "lstm", "attention"])
def test_the_order_of_purchases_determines_the_next_one(view: View, kind: SequenceKind, tmp_path: Path) -> None:
    customers = np.array([26, 27], np.int32)
    fitted = fit(view, tower=kind)
    found = rank_customers(fitted, view, customers, k=3)
    assert found.loc[found["rank"] == 1, "article_index"].tolist() == [4, 5]
    fitted.save(tmp_path)
    again = rank_customers(sequential.load(tmp_path), view, customers, k=3)
    assert again.to_numpy().tolist() == found.to_numpy().tolist()


@pytest.mark.parametrize(
    "loss", ["in_batch", "sampled_softmax", "sampled_sigmoid", "sigmoid_rank", "calibrated_sigmoid"]
)
def test_every_loss_learns(view: View, loss: LossKind) -> None:
    # Six articles and more negatives than that.
    fitted = fit(view, loss=loss, num_negatives=9, num_sampled_negatives=9)
    found = rank_customers(fitted, view, np.array([26, 27], np.int32), k=3)
    assert found.loc[found["rank"] == 1, "article_index"].tolist() == [4, 5]


def test_shuffled_histories_carry_less_information(view: View) -> None:
    fitted = fit(view, shuffle=True, event_features=())
    table = HistoryTable(view.timelines, view.profiles)
    query = fitted.embed(table(tf.constant([26, 27])), tf.constant(view.now[[26, 27]])).numpy()
    cosine = float(query[0] @ query[1])
    ordered = fit(view, event_features=())
    query = ordered.embed(table(tf.constant([26, 27])), tf.constant(view.now[[26, 27]])).numpy()
    assert cosine > float(query[0] @ query[1]) + 0.1


def test_unusual_histories_are_answered(view: View, make_view: MakeView) -> None:
    fitted = fit(view, epochs=1)
    others = make_view(
        [
            (2, OUT_OF_VOCABULARY_INDEX, 1),  # an unknown article alone
            (3, 2, 1),
            *((4, 2 + number % 5, 1 + number % 10) for number in range(3000)),
            (6, 400, 3),  # an article that came after the fit
            (7, 3, 10),
        ]
    )
    # Customer 5 has no history, and 7 bought after now.
    now = others.now.copy()
    now[7] -= 20 * 86_400
    customers = np.array([1, 2, 3, 4, 5, 6, 7], np.int32)
    table = HistoryTable(others.timelines, others.profiles)
    answer = fitted(
        table(tf.constant(customers)),
        now=tf.constant(now[customers]),
        k=tf.constant(3),
        exclude=tf.zeros([7, 0], tf.int32),
    )
    assert np.isfinite(answer.score.numpy()).all()
    assert (answer.article_index.numpy() >= FIRST_INDEX).all()
    stranger, unknown = answer.score.numpy()[[0, 4]]
    assert stranger.tolist() == unknown.tolist()


def test_customers_with_only_unknown_articles_do_no_harm(view: View) -> None:
    timelines = view.timelines
    article = timelines.article_index.copy()
    article[:9] = OUT_OF_VOCABULARY_INDEX
    fitted = fit(replace(view, timelines=replace(timelines, article_index=article)), epochs=2)
    assert np.isfinite(fitted.in_store.embedding).all()


@pytest.mark.parametrize("loss", ["full_softmax", "in_batch", "sampled_softmax"])
def test_a_batch_without_a_target_teaches_nothing(view: View, loss: LossKind) -> None:
    timelines = view.timelines
    # One customer a batch; of the first nothing is known that could be predicted.
    article = timelines.article_index.copy()
    article[:3] = OUT_OF_VOCABULARY_INDEX
    fitted = fit(
        replace(view, timelines=replace(timelines, article_index=article)), loss=loss, epochs=1, batch_events=3
    )
    assert np.isfinite(fitted.in_store.embedding).all()


def test_nothing_to_learn_from_is_told(view: View) -> None:
    with pytest.raises(InputError, match=r"gru: no baskets to train on.*`recommender\.gru\.target_days`"):
        fit(view, target_days=1)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_given_vectors_stay_fixed_unless_fine_tuned(view: View, fine_tune: bool) -> None:
    vectors = np.random.default_rng(3).normal(size=(8, 6)).astype(np.float32)
    fitted = fit(view, vectors=vectors, fine_tune=fine_tune)
    given = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert isinstance(fitted.query, SequenceQuery)
    moved = np.abs(fitted.query.article_embedding.numpy() - given).max()
    assert moved > 0.01 if fine_tune else moved < 1e-6
    found = rank_customers(fitted, view, np.array([26, 27], np.int32), k=3)
    assert found.loc[found["rank"] == 1, "article_index"].tolist() == [4, 5]


def test_hidden_purchases_are_predicted_from_both_sides(view: View, tmp_path: Path) -> None:
    told: dict[str, Any] = {"tower": "attention", "masked_share": 0.3, "epochs": 60}
    fitted = fit(view, **told)
    found = rank_customers(fitted, view, np.array([26, 27], np.int32), k=3)
    assert found.loc[found["rank"] == 1, "article_index"].tolist() == [4, 5]
    fitted.save(tmp_path)
    again = rank_customers(sequential.load(tmp_path), view, np.array([26, 27], np.int32), k=3)
    assert again.to_numpy().tolist() == found.to_numpy().tolist()
