"""The sequential tower: what each encoder computes, what it may see, and what becomes of odd histories."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.sequences import Steps
from tfrs_fashion.models.objectives import FullSoftmax, InBatch, Sampled
from tfrs_fashion.models.sequence_encoders import Lstm, SequenceKind, make_sequence_encoder
from tfrs_fashion.models.sequential import describe_steps, hide_baskets
from tfrs_fashion.recommenders.sequence_query import make_sequential_tower

KINDS: tuple[SequenceKind, ...] = ("gru", "lstm", "attention")
DAY = 86_400
SETTINGS: dict[str, Any] = {
    "embedding_dim": 8,
    "hidden_dim": 6,
    "length": 12,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.5,
    "event_features": ["gap", "season", "price", "discount", "sales_channel_id"],
    "is_masked": False,
    "num_customers": 5,
    "has_customer": True,
    "profile_sizes": [4],
    "num_profile_numbers": 1,
    "encoding": "one_hot",
    "number_encoding": "log",
    "num_bins": 4,
    "seed": 3,
}


def make_steps(article: list[list[int]], *, price: float = 2.0, day: float = 1.0) -> Steps:
    index = tf.constant(article, tf.int32)
    time = tf.cast(tf.range(index.shape[1])[tf.newaxis] * DAY, tf.int64) + tf.zeros_like(index, tf.int64)
    return Steps(
        article_index=index,
        time=time,
        next_time=time + int(day * DAY),
        price=tf.fill(index.shape, price),
        discount=tf.fill(index.shape, 0.25),
        sales_channel_id=tf.fill(index.shape, 2),
        num_steps=tf.reduce_sum(tf.cast(index > 0, tf.int32), axis=1) + 1,
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def test_an_lstm_is_an_lstm() -> None:
    encoder = make_sequence_encoder("lstm", dim=5, length=9, num_layers=1, num_heads=1, dropout=0.3, seed=1)
    inputs = np.random.default_rng(1).normal(size=(2, 6, 4)).astype(np.float32)
    found = encoder(tf.constant(inputs), tf.constant([6, 6])).numpy()
    encoder.set_weights([np.random.default_rng(2).normal(size=weight.shape) * 0.5 for weight in encoder.get_weights()])
    found = encoder(tf.constant(inputs), tf.constant([6, 6])).numpy()
    kernel, bias = encoder.get_weights()
    hidden = cell = np.zeros((2, 5))
    for place in range(6):
        gates = np.concatenate([inputs[:, place], hidden], axis=1) @ kernel + bias
        gate_in, candidate, gate_forget, gate_out = np.split(gates, 4, axis=1)
        cell = sigmoid(gate_forget) * cell + sigmoid(gate_in) * np.tanh(candidate)
        hidden = sigmoid(gate_out) * np.tanh(cell)
        assert found[:, place] == pytest.approx(hidden, abs=1e-5)


def test_an_lstm_starts_and_learns_as_that_of_keras() -> None:
    steps = tf.random.stateless_normal([3, 9, 7], [1, 2])
    ours = Lstm(5, seed=3)
    glorot, orthogonal = tf.keras.initializers.GlorotUniform(3), tf.keras.initializers.Orthogonal(seed=4)
    theirs = tf.keras.layers.LSTM(5, return_sequences=True, kernel_initializer=glorot, recurrent_initializer=orthogonal)
    # Keras has the state behind the gate of forgetting.
    turn = np.r_[0:5, 10:15, 5:10, 15:20]
    theirs(steps)
    kernel, recurrent, bias = theirs.get_weights()
    ours(steps)
    assert ours.get_weights()[1].tolist() == bias[turn].tolist()
    limit = (6 / (7 + 20)) ** 0.5
    assert 0.9 * limit < np.abs(ours.get_weights()[0][:7]).max() <= limit
    assert ours.get_weights()[0][7:] @ ours.get_weights()[0][7:].T == pytest.approx(np.eye(5), abs=1e-5)
    ours.set_weights([np.concatenate([kernel, recurrent])[:, turn], bias[turn]])
    gradients = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(steps)
            loss = tf.reduce_sum(layer(steps)[:, 1:8] ** 2)
        gradients.append(tape.gradient(loss, [steps, *layer.trainable_variables]))
    (to_steps, to_kernel, to_bias), wanted = gradients
    assert to_steps.numpy() == pytest.approx(wanted[0].numpy(), abs=1e-5)
    assert to_kernel.numpy() == pytest.approx(np.concatenate(wanted[1:3])[:, turn], abs=1e-4)
    assert to_bias.numpy() == pytest.approx(wanted[3].numpy()[turn], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_sees_no_later_one(kind: SequenceKind) -> None:
    encoder = make_sequence_encoder(kind, dim=6, length=9, num_layers=2, num_heads=2, dropout=0.3, seed=1)
    inputs = np.random.default_rng(1).normal(size=(1, 7, 6)).astype(np.float32)
    before = encoder(tf.constant(inputs), tf.constant([7])).numpy()
    inputs[:, 4] += 1.0
    after = encoder(tf.constant(inputs), tf.constant([7])).numpy()
    assert after[:, :4] == pytest.approx(before[:, :4], abs=1e-6)
    assert (np.abs(after[:, 4:] - before[:, 4:]).max(axis=2) > 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: SequenceKind) -> None:
    tower = make_sequential_tower({**SETTINGS, "kind": kind})
    vectors = tf.constant(np.random.default_rng(1).normal(size=(9, 8)), tf.float32)
    alone = make_steps([[0, 2, 3]])
    beside = make_steps([[0, 2, 3, 0, 0], [0, 4, 5, 6, 7]])
    found = tower.encode(tf.gather(vectors, beside.article_index), beside).numpy()
    assert found[0, :3] == pytest.approx(
        tower.encode(tf.gather(vectors, alone.article_index), alone).numpy()[0], abs=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_order_time_and_price_are_read(kind: SequenceKind) -> None:
    tower = make_sequential_tower({**SETTINGS, "kind": kind})
    vectors = tf.constant(np.random.default_rng(1).normal(size=(9, 8)), tf.float32)

    def last(steps: Steps) -> np.ndarray:
        return tower.encode(tf.gather(vectors, steps.article_index), steps).numpy()[0, -1]

    plain = last(make_steps([[0, 2, 3, 4]]))
    for other in (
        make_steps([[0, 3, 2, 4]]),
        make_steps([[0, 2, 3, 4]], day=9.0),
        make_steps([[0, 2, 3, 4]], price=30.0),
    ):
        assert np.abs(last(other) - plain).max() > 1e-4
    unread = make_sequential_tower({**SETTINGS, "kind": kind, "event_features": []})
    steps, dear = make_steps([[0, 2, 3, 4]]), make_steps([[0, 2, 3, 4]], price=30.0)
    read = [unread.encode(tf.gather(vectors, made.article_index), made).numpy() for made in (steps, dear)]
    assert read[0].tolist() == read[1].tolist()


def test_features_of_events_by_hand() -> None:
    steps = make_steps([[0, 2]], day=np.e - 1)
    found = describe_steps(steps, ["gap", "price", "discount", "sales_channel_id"]).numpy()[0, 1]
    assert found[:4] == pytest.approx([1 / 3, np.log(3), 1.0, 0.25], abs=1e-4)
    assert found[4:].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    unknown = steps._replace(
        price=tf.fill([1, 2], float("nan")), discount=tf.fill([1, 2], float("nan")), sales_channel_id=tf.fill([1, 2], 0)
    )
    found = describe_steps(unknown, ["price", "discount", "sales_channel_id"]).numpy()
    assert not found.any()
    # A quarter of a year is a quarter turn.
    turned = steps._replace(next_time=tf.fill([1, 2], tf.constant(int(365.25 / 4 * DAY), tf.int64)))
    assert describe_steps(turned, ["season"]).numpy()[0, 0] == pytest.approx([1, 0], abs=1e-4)


def test_a_query_has_length_1_and_unknown_customers_are_strangers() -> None:
    tower = make_sequential_tower({**SETTINGS, "kind": "gru"})
    profile, numbers = tf.constant([[2], [2], [2]]), tf.constant([[1.0], [1.0], [float("nan")]])
    tower.fit(np.array([[0.0], [1.0], [5.0]], np.float32))
    told = tower.describe_customers(tf.constant([0, 99, 1]), profile, numbers)
    assert told[0].numpy().tolist() == told[1].numpy().tolist()
    query = tower.embed(tf.random.normal([3, 6]), told).numpy()
    assert np.isfinite(query).all()
    assert np.linalg.norm(query, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)


def make_sampled(store: list[list[int]], *, num_negatives: int) -> Sampled:
    splits = np.concatenate([[0], np.cumsum([len(week) for week in store])])
    return Sampled(
        "sampled_softmax",
        num_negatives=num_negatives,
        store_splits=splits,
        store=np.concatenate([np.array(week) for week in store]),
        as_of=100 * DAY,
        week_seconds=7 * DAY,
        num_articles=9,
        calibration=0.5,
    )


def test_negatives_are_those_in_store_at_the_time() -> None:
    sampled = make_sampled([[2, 3], [4, 5, 6]], num_negatives=200)
    # The last second before the cutoff, the first of the last week, the last of the week before it, and long ago.
    now = tf.constant([100 * DAY - 1, 93 * DAY, 93 * DAY - 1, 0], tf.int64)
    drawn = tf.reshape(sampled.draw(tf.constant([2, 2, 2, 2]), now), [4, 200]).numpy()
    assert [set(row) for row in drawn.tolist()] == [{2, 3}, {2, 3}, {4, 5, 6}, {4, 5, 6}]


def test_more_negatives_than_are_in_store_and_the_positive_is_none() -> None:
    sampled = make_sampled([[2, 3]], num_negatives=50)
    now = tf.constant([99 * DAY], tf.int64)
    drawn = sampled.draw(tf.constant([2]), now)
    articles, column = tf.unique(tf.concat([drawn, [2]], axis=0))
    query = tf.constant([[1.0]])
    candidate = tf.where(articles == 2, 5.0, 0.0)[:, tf.newaxis]
    (loss,) = sampled.measure(query, candidate, articles, target=column[-1:], drawn=column[:-1], now=now).numpy()
    others = int((drawn.numpy() == 3).sum())
    assert 0 < others < 50
    assert loss == pytest.approx(np.log1p(others * np.exp(-5.0)), rel=1e-4)


def test_the_full_softmax_is_over_all_articles() -> None:
    objective = FullSoftmax(3)
    assert objective.draw(tf.constant([4]), tf.constant([0], tf.int64)).numpy().tolist() == [2, 3, 4]
    logits = np.array([[1.0, 2.0, 4.0]])
    loss = objective.measure(
        tf.constant([[1.0]]), tf.constant(logits.T, tf.float32), tf.constant([2, 3, 4]), target=tf.constant([1])
    )
    assert loss.numpy() == pytest.approx([np.log(np.exp(logits).sum()) - 2.0], rel=1e-5)


def test_in_batch_logits_are_corrected_for_how_often_each_is_there() -> None:
    log_probability = np.log(np.array([1, 1, 0.5, 0.25, 0.125], np.float32))
    objective = InBatch(log_probability, np.array([0, 0, 1, 0, 1], np.float32))
    assert objective.draw(tf.constant([3]), tf.constant([0], tf.int64)).numpy().tolist() == [2, 4]
    logits = np.array([0.5, 1.0, -1.0])
    loss = objective.measure(
        tf.constant([[1.0]]),
        tf.constant(logits[:, np.newaxis], tf.float32),
        tf.constant([2, 4, 3]),
        target=tf.constant([2]),
    )
    corrected = np.exp(logits - np.log([0.5, 0.125, 0.25]))
    assert loss.numpy() == pytest.approx([-np.log(corrected[2] / corrected.sum())], rel=1e-5)


def test_masked_attention_sees_both_sides_and_no_padding() -> None:
    tower = make_sequential_tower({**SETTINGS, "kind": "attention", "event_features": ["gap"], "is_masked": True})
    vectors = tf.constant(np.random.default_rng(1).normal(size=(9, 8)), tf.float32)

    def encode(article: list[list[int]]) -> np.ndarray:
        # Two purchases around a hidden one, and one more step of padding.
        steps = make_steps(article)._replace(num_steps=tf.constant([3]))
        encoded: np.ndarray = tower.encode(tf.gather(vectors, steps.article_index), steps).numpy()
        return encoded

    found = encode([[2, 0, 4, 0]])
    assert np.abs(encode([[3, 0, 4, 0]])[0, 1] - found[0, 1]).max() > 1e-4
    assert np.abs(encode([[2, 0, 5, 0]])[0, 1] - found[0, 1]).max() > 1e-4
    assert encode([[2, 0, 4, 7]])[0, :3] == pytest.approx(found[0, :3], abs=1e-5)


def test_a_masked_query_hides_what_comes_next() -> None:
    tower = make_sequential_tower({**SETTINGS, "kind": "attention", "event_features": [], "is_masked": True})
    arranged = tower.arrange(make_steps([[0, 5, 6], [0, 7, 0]]))
    assert arranged.article_index.numpy().tolist() == [[5, 6, 0], [7, 0, 0]]
    assert arranged.num_steps.numpy().tolist() == [3, 2]


def test_baskets_are_hidden_whole() -> None:
    article = [[2 + place for place in range(9)]] * 400
    time = np.tile(np.array([0, 0, 1, 2, 2, 2, 3, 4, 4]) * DAY, (400, 1))
    steps = make_steps(article)._replace(next_time=tf.constant(time), num_steps=tf.fill([400], 9))
    hidden = hide_baskets(steps, share=0.3).numpy()
    for first, last in ((0, 1), (3, 4), (4, 5), (7, 8)):
        assert (hidden[:, first] == hidden[:, last]).all()
    # 0.3, and the last basket in every other sequence besides: 1 - 0.7 / 2. Four standard deviations are 0.1.
    assert hidden[:, 2].mean() == pytest.approx(0.3, abs=0.1)
    assert hidden[:, 8].mean() == pytest.approx(0.65, abs=0.1)
    assert not hide_baskets(steps, share=0.0).numpy()[:, :7].any()
