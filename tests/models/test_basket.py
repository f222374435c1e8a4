"""The perceptron over baskets: its input, its loss and its gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.models.basket import BasketEncoder, BasketModel
from tfrs_fashion.models.losses import basket_sigmoid

DAY = SECONDS_PER_DAY


def make_histories(events: list[list[tuple[int, int]]]) -> Histories:
    """Histories of `(article_index, day)`."""
    empty = Histories.empty(len(events), num_features=0, num_numbers=0)
    lengths = [len(row) for row in events]
    flat = [event for row in events for event in row]

    def ragged(values: list[float], dtype: tf.DType) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_row_lengths(tf.constant(values, dtype), tf.constant(lengths, tf.int64))

    def ones(dtype: tf.DType) -> tf.RaggedTensor:
        return ragged([1] * len(flat), dtype)

    return empty._replace(
        article_index=ragged([article for article, _day in flat], tf.int32),
        time=ragged([day * DAY for _article, day in flat], tf.int64),
        price=ones(tf.float32),
        quantity=ones(tf.int32),
        discount=ones(tf.float32),
        sales_channel_id=ones(tf.int32),
        store_index=ones(tf.int32),
    )


def make_encoder(hidden_dims: tuple[int, ...], *, history_articles: int = 9, dropout: float = 0.0) -> BasketEncoder:
    encoder = BasketEncoder(size=6, hidden_dims=hidden_dims, history_articles=history_articles, dropout=dropout, seed=3)
    # Biases begin at zero, where leaving one out would not be seen.
    random = np.random.default_rng(4)
    encoder.set_weights([random.normal(size=weight.shape).astype(np.float32) for weight in encoder.get_weights()])
    return encoder


@pytest.mark.parametrize("hidden_dims", [(5,), (5, 4), (5, 4, 3)])
def test_the_input_is_a_multi_hot_vector_of_length_one(hidden_dims: tuple[int, ...]) -> None:
    encoder = make_encoder(hidden_dims)
    # Twice the same article is once; 1 is unknown, and 7 came after the fit.
    histories = make_histories([[(2, 1), (2, 3), (5, 3), (1, 4), (7, 4)], [], [(3, 1)], [(1, 2), (7, 2)]])
    hidden, num_read = encoder(histories, tf.fill([4], tf.constant(9 * DAY, tf.int64)))
    multi_hot = np.zeros((4, 6))
    multi_hot[0, [2, 5]] = 2**-0.5
    multi_hot[2, 3] = 1.0
    # Each layer has a width of its own, which tells its weights.
    weights = encoder.get_weights()
    kernels = {len(weight): weight for weight in weights if weight.ndim == 2}
    biases = {len(weight): weight for weight in weights if weight.ndim == 1}
    expected = multi_hot
    for width in hidden_dims:
        expected = np.maximum(expected @ kernels[expected.shape[1]] + biases[width], 0.0)
    assert hidden.numpy() == pytest.approx(expected, abs=1e-5)
    assert num_read.numpy().tolist() == [2, 0, 1, 0]


def test_the_articles_bought_last_are_read() -> None:
    encoder = make_encoder((5,), history_articles=2)
    now = tf.constant([9 * DAY], tf.int64)
    # 2 was bought first, and again after 3.
    found, num_read = encoder(make_histories([[(2, 1), (3, 2), (4, 3), (2, 4)]]), now)
    expected, _num_read = encoder(make_histories([[(4, 3), (2, 4)]]), now)
    assert num_read.numpy().tolist() == [2]
    assert found.numpy() == pytest.approx(expected.numpy())


def test_dropout_is_of_training_alone() -> None:
    encoder = make_encoder((64,), dropout=0.5)
    histories, now = make_histories([[(2, 1)]]), tf.constant([9 * DAY], tf.int64)
    whole = encoder(histories, now)[0].numpy()
    assert encoder(histories, now)[0].numpy() == pytest.approx(whole)
    dropped = encoder(histories, now, training=True)[0].numpy()
    kept = dropped != 0
    assert 0 < kept.sum() < (whole != 0).sum()
    assert dropped[kept] == pytest.approx(2 * whole[kept])


def test_the_loss_is_the_cross_entropy_of_each_candidate() -> None:
    logits = np.array([[0.5, -2.0, 30.0], [-40.0, 0.0, 1.5]], np.float32)
    target = np.array([[1, 0, 1], [0, 0, 0]])
    found = basket_sigmoid(tf.constant(logits), query=tf.constant([0, 0]), candidate=tf.constant([0, 2]))
    probability = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    expected = -(target * np.log(probability) + (1 - target) * np.log1p(-np.where(target, 0.0, probability)))
    assert found.numpy() == pytest.approx(expected.sum(axis=1), rel=1e-5, abs=1e-5)


def make_batch() -> dict[str, object]:
    return {
        "histories": make_histories([[(2, 1), (4, 1)], [(3, 2)]]),
        "now": tf.constant([9 * DAY, 9 * DAY], tf.int64),
        # 4 is no candidate, and 7 lies beyond the last one.
        "target": tf.ragged.constant([[3, 4], [2, 3, 7]], dtype=tf.int32, row_splits_dtype=tf.int64),
    }


def make_model() -> BasketModel:
    return BasketModel(
        make_encoder((5, 4)),
        np.array([2, 3, 5], np.int32),
        share=np.array([0.25, 0.5, 0.5], np.float32),
        hidden_dim=4,
        seed=1,
    )


def test_a_basket_is_learned_from_as_far_as_it_holds_candidates() -> None:
    model, batch = make_model(), make_batch()
    hidden, _num_read = model.encoder(batch["histories"], batch["now"])
    query = np.concatenate([hidden.numpy(), np.ones((2, 1))], axis=1)
    logits = query @ model.candidate_embedding().T
    target = np.array([[0, 1, 0], [1, 1, 0]])
    expected = (np.logaddexp(0.0, logits) - target * logits).sum(axis=1).mean()
    assert float(model.compute_loss(batch)) == pytest.approx(expected, rel=1e-5)


def test_the_odds_begin_at_each_candidates_share() -> None:
    # log(1/4 / 3/4) = -log 3, log(1/2 / 1/2) = 0.
    assert make_model().candidate_embedding()[:, -1] == pytest.approx([-np.log(3.0), 0.0, 0.0], abs=1e-6)


def test_every_weight_has_a_finite_gradient() -> None:
    model = make_model()
    with tf.GradientTape() as tape:
        loss = model.compute_loss(make_batch(), training=True)
    gradients = tape.gradient(loss, model.trainable_variables)
    # Kernel and bias of two layers and of the output.
    assert len(gradients) == 6
    for gradient in gradients:
        assert np.isfinite(gradient.numpy()).all()
        assert np.abs(gradient.numpy()).sum() > 0
