from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.articles import ArticleTable
from tfrs_fashion.features.history import HistoryFeatures
from tfrs_fashion.features.history_lookups import categorical_sizes, number_names
from tfrs_fashion.features.inputs import (
    SECONDS_PER_DAY,
    Histories,
    HistoryTable,
    make_training_baskets,
    make_training_dataset,
)
from tfrs_fashion.features.view import View
from tfrs_fashion.models.encoders import ArticleEncoder, CategoryEncoding
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.retrieval import TwoTowerModel
from tfrs_fashion.models.towers import CandidateTower, QueryTower, residual
from tfrs_fashion.recommenders.two_tower.query import make_history_layer
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX

DIM = 8
NOW = 100 * SECONDS_PER_DAY
NAN = float("nan")


def make_histories(
    customers: list[int],
    histories: list[list[int]],
    *,
    profile: list[list[int]] | None = None,
    numbers: list[list[float]] | None = None,
) -> Histories:
    lengths = tf.constant([len(row) for row in histories], tf.int64)
    flat = [article for row in histories for article in row]

    def ragged(values: Sequence[float], dtype: tf.DType) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_row_lengths(tf.constant(values, dtype), lengths)

    days = [day for row in histories for day in range(len(row))]
    unknown = Histories.empty(len(customers), num_features=1, num_numbers=1)
    changed: dict[str, Any] = {"profile": profile, "profile_numbers": numbers}
    changed = {name: tf.constant(values) for name, values in changed.items() if values is not None}
    return unknown._replace(
        customer_index=tf.constant(customers, tf.int32),
        article_index=ragged(flat, tf.int32),
        time=ragged([day * SECONDS_PER_DAY for day in days], tf.int64),
        price=ragged([1.0] * len(flat), tf.float32),
        quantity=ragged([1] * len(flat), tf.int32),
        discount=ragged([0.0] * len(flat), tf.float32),
        sales_channel_id=ragged([1] * len(flat), tf.int32),
        store_index=ragged([0] * len(flat), tf.int32),
        **changed,
    )


def make_query_tower(
    *, hidden_dims: Sequence[int] = (), num_history_numbers: int = 1, encoding: CategoryEncoding = "one_hot"
) -> QueryTower:
    """Of customers 2 to 6, of whom 2, 4 and 6 have an embedding of their own."""
    tower = QueryTower(
        num_customers=5,
        num_own=3,
        profile_sizes=[4],
        num_profile_numbers=1,
        history_sizes=[5],
        num_history_numbers=num_history_numbers,
        num_bins=2,
        embedding_dim=DIM,
        time_scales_days=(7.0, 30.0),
        num_articles=3,
        num_steps=2,
        history_gain=1.0,
        number_encoding="quantile",
        encoding=encoding,
        hidden_dims=hidden_dims,
        seed=1,
    )
    numbers = np.random.default_rng(0).normal(size=(30, 1 + num_history_numbers)).astype(np.float32)
    tower.fit(np.array([0, 0, 1, 0, 2, 0, 3], np.int32), numbers)
    return tower


def embed(
    tower: QueryTower,
    histories: Histories,
    *,
    numbers: np.ndarray | None = None,
    categorical: np.ndarray | None = None,
    keep: list[int] | None = None,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Embeds with one fixed random direction for each article."""
    table = np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    batch = len(histories.customer_index)
    now = tf.fill([batch], tf.constant(NOW, tf.int64))
    features = HistoryFeatures(
        numbers=tf.constant(np.zeros([batch, 1]) if numbers is None else numbers, tf.float32),
        categorical=tf.constant(np.zeros([batch, 1]) if categorical is None else categorical, tf.int32),
    )
    _bought, strongest = tower.read(histories, now)
    found: np.ndarray = tower(
        strongest,
        tf.gather(table, strongest.article_index),
        tf.zeros([len(strongest.article_index), 2]) if weight is None else tf.gather(weight, strongest.article_index),
        histories,
        features,
        now,
        None if keep is None else tf.constant(keep),
    ).numpy()
    return found


def shuffle_weights(model: tf.keras.Model) -> None:
    """Makes every trained weight say something."""
    random = np.random.default_rng(5)
    for weight in model.trainable_weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))


@pytest.mark.parametrize("hidden_dims", [(), (6,), (6, 4)])
@pytest.mark.parametrize("encoding", ["one_hot", "embedding"])
def test_queries_have_length_one_with_and_without_a_history(
    hidden_dims: Sequence[int], encoding: CategoryEncoding
) -> None:
    tower = make_query_tower(hidden_dims=hidden_dims, encoding=encoding)
    histories = make_histories(
        [2, 3, 1], [[5, 6, 5], [], [7]], profile=[[1], [0], [3]], numbers=[[NAN], [3e38], [-4.0]]
    )
    for _again in range(2):
        found = embed(
            tower, histories, numbers=np.array([[1.0], [np.inf], [0.0]]), categorical=np.array([[1], [4], [0]])
        )
        assert found.shape == (3, DIM + 1)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
        shuffle_weights(tower)


def test_a_batch_without_any_history_and_an_empty_batch() -> None:
    tower = make_query_tower(hidden_dims=(4,))
    found = embed(tower, make_histories([1, 2], [[], []]))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert embed(tower, make_histories([], [])).shape == (0, DIM + 1)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    tower = make_query_tower(hidden_dims=(4,))
    embed(tower, make_histories([1], [[]]))
    shuffle_weights(tower)
    together = embed(tower, make_histories([2, 3, 4], [[5, 6], [], [7, 8, 9]]))
    alone = embed(tower, make_histories([4], [[7, 8, 9]]))
    assert together[2] == pytest.approx(alone[0], abs=1e-5)


def test_only_so_many_articles_of_a_history_are_read() -> None:
    # Each article once, one a day: the three bought last are the strongest.
    tower = make_query_tower()
    histories = make_histories([2], [[5, 6, 7, 8]])
    bought, strongest = tower.read(histories, tf.constant([NOW], tf.int64))
    assert bought.article_index.numpy().tolist() == [5, 6, 7, 8]
    assert sorted(strongest.article_index.numpy().tolist()) == [6, 7, 8]


def test_strangers_share_one_embedding_and_customers_with_one_of_their_own_do_not() -> None:
    tower = make_query_tower()
    embed(tower, make_histories([1], [[]]))
    own = tower._customer_embedding
    assert own.shape == (4, DIM)
    own.assign(np.random.default_rng(0).normal(size=own.shape))
    # Customers 3 and 5 have none; 7 and beyond are not known at all.
    customers = [1, 0, 3, 5, 7, 10**6, 2, 4, 6]
    histories = make_histories(customers, [[5, 6]] * len(customers))
    found = embed(tower, histories)
    assert found[1:6] == pytest.approx(np.repeat(found[:1], 5, axis=0), abs=1e-6)
    for row in (6, 7, 8):
        assert np.abs(found[row] - found[0]).max() > 0.01
    assert np.abs(found[7] - found[6]).max() > 0.01
    # Whoever is dropped is a stranger.
    dropped = embed(tower, histories, keep=[1, 1, 1, 1, 1, 1, 0, 0, 1])
    assert dropped[6:8] == pytest.approx(np.repeat(found[:1], 2, axis=0), abs=1e-6)
    assert dropped[8] == pytest.approx(found[8], abs=1e-6)
    changed = own.numpy()
    changed[0] += 1
    own.assign(changed)
    after = embed(tower, histories)
    assert np.abs(after[:6] - found[:6]).max(axis=1).min() > 0.01
    assert after[6:] == pytest.approx(found[6:], abs=1e-6)


@pytest.mark.parametrize("hidden_dims", [(), (6, 4)])
def test_before_training_the_history_alone_speaks(hidden_dims: Sequence[int]) -> None:
    tower = make_query_tower(hidden_dims=hidden_dims)
    histories = make_histories([2, 3], [[5, 6], [5, 6]], profile=[[1], [3]], numbers=[[NAN], [2.0]])
    found = embed(tower, histories, numbers=np.array([[0.0], [9.0]]), categorical=np.array([[1], [4]]))
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize("encoding", ["one_hot", "embedding"])
def test_each_kind_of_feature_moves_a_query(encoding: CategoryEncoding) -> None:
    tower = make_query_tower(encoding=encoding)
    plain: dict[str, Any] = {"profile": [[2]], "numbers": [[0.1]]}
    base: dict[str, Any] = {"numbers": np.array([[0.2]]), "categorical": np.array([[2]])}
    embed(tower, make_histories([2], [[5, 6]], **plain), **base)
    shuffle_weights(tower)
    found = [
        embed(tower, make_histories([2], [[5, 6]], **{**plain, **given}), **{**base, **computed})
        for given, computed in (
            ({}, {}),
            ({"profile": [[3]]}, {}),
            ({"profile": [[OUT_OF_VOCABULARY_INDEX]]}, {}),
            ({"profile": [[0]]}, {}),
            ({"numbers": [[-0.4]]}, {}),
            ({"numbers": [[NAN]]}, {}),
            ({}, {"numbers": np.array([[-0.5]])}),
            ({}, {"categorical": np.array([[3]])}),
        )
    ]
    for row, one in enumerate(found):
        assert all(np.abs(one - other).max() > 1e-3 for other in found[:row]), row


def test_deep_towers_start_as_the_shallow_ones() -> None:
    histories = make_histories([2, 3], [[5, 6], []], profile=[[1], [3]], numbers=[[NAN], [2.0]])
    numbers = np.array([[0.3], [0.1]])
    shallow, deep = (embed(make_query_tower(hidden_dims=dims), histories, numbers=numbers) for dims in ((), (6, 4)))
    np.testing.assert_array_equal(shallow, deep)
    candidates = [
        make_candidate_tower(hidden_dims=dims)(tf.constant([2, 3, 5]), tf.constant(1)).numpy() for dims in ((), (6, 4))
    ]
    np.testing.assert_array_equal(*candidates)
    assert residual((), 5, seed=1) is None
    layers = residual((6, 4), 5, seed=1)
    assert layers is not None
    assert (layers(tf.ones([2, 3])).numpy() == 0).all()
    assert [weight.shape for weight in layers.weights[::2]] == [(3, 6), (6, 4), (4, 5)]


# Articles 2 to 6; 2 and 5 have an embedding of their own, 2, 3 and 4 have content.
BIAS = np.array([0, 0, 2.0, 0, 0, 0, 0], np.float32)
# Two weeks before the time before; of article 2 both features are known, of 3 one, of the others none.
WEEKS = np.full([3, 7, 2], np.nan, np.float32)
WEEKS[0, 2], WEEKS[1, 2], WEEKS[0, 3, 0] = (3.0, 10.0), (1.0, 30.0), 2.0


def make_article_encoder(weeks: np.ndarray) -> ArticleEncoder:
    table = ArticleTable(
        article_id=np.array(["p", "q", "r", "s", "t"], dtype=object),
        categorical={"colour": np.array([0, 0, 3, 2, 2, 0, 0], np.int32)},
        vocabulary={"colour": ["blue", "red"]},
        numbers={},
        vectors=np.zeros((7, 0), np.float32),
        num_baskets=np.ones(7, np.int64),
        in_store=np.arange(2, 7, dtype=np.int32),
        never_sold=np.zeros(0, np.int32),
    )
    id_index = np.array([0, 0, 1, 0, 0, 2, 0], np.int32)
    return ArticleEncoder(
        id_index,
        table,
        None,
        weeks,
        embedding_dim=DIM,
        content_scale=0.1,
        number_encoding="quantile",
        num_bins=2,
        seed=1,
    )


def make_candidate_tower(*, hidden_dims: Sequence[int] = (), weeks: np.ndarray = WEEKS) -> CandidateTower:
    return CandidateTower(make_article_encoder(weeks), BIAS, embedding_dim=DIM, hidden_dims=hidden_dims)


def test_candidates_start_as_their_embedding_and_bias() -> None:
    tower = make_candidate_tower()
    articles = tf.constant([2, 3, 5], tf.int32)
    found = tower(articles, tf.constant(0)).numpy()
    encoded = tower._encoder(articles, tf.constant(0))
    expected = np.concatenate([encoded.embedding.numpy(), [[2.0], [0.0], [0.0]]], axis=1)
    assert found == pytest.approx(expected, abs=1e-6)
    assert tower(articles, tf.constant(0), encoded).numpy() == pytest.approx(found)
    # What belongs to the article alone is dropped, its bias among it; the encoder is told by itself.
    dropped = tower(articles, tf.constant(0), encoded, tf.constant([0.0, 1.0, 1.0])).numpy()
    assert dropped[:, -1].tolist() == [0, 0, 0]
    assert dropped[:, :-1] == pytest.approx(encoded.embedding.numpy(), abs=1e-6)


def test_before_training_weeks_and_content_say_nothing() -> None:
    tower = make_candidate_tower()
    articles = tf.constant([2, 3, 4], tf.int32)
    found = [tower(articles, tf.constant(week)).numpy() for week in range(3)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_candidate_is_scaled_and_moved_by_what_its_week_says() -> None:
    tower = make_candidate_tower()
    articles = tf.constant([2, 3, 5], tf.int32)
    tower(articles, tf.constant(0))
    shuffle_weights(tower)
    (move,), (scale,) = (layer.get_weights() for layer in (tower._move, tower._log_scale))
    bias = tower._bias.numpy()[[2, 3, 5]][:, np.newaxis]
    for week in range(3):
        embedding, side = (part.numpy() for part in tower._encoder(articles, tf.constant(week)))
        scaled = embedding * np.exp(np.clip(side @ scale, -2, 2))
        expected = np.concatenate([scaled, bias], axis=1) + side @ move
        assert tower(articles, tf.constant(week)).numpy() == pytest.approx(expected, abs=1e-5)
    recent, earlier = (tower(articles, tf.constant(week)).numpy() for week in (0, 1))
    # Article 5 is unknown in all weeks alike.
    assert np.abs(recent[:2] - earlier[:2]).max(axis=1).min() > 1e-3
    assert recent[2] == pytest.approx(earlier[2], abs=1e-6)


@pytest.mark.parametrize("hidden_dims", [(), (4,)])
def test_candidates_without_features_of_weeks(hidden_dims: Sequence[int]) -> None:
    tower = make_candidate_tower(weeks=np.zeros([2, 7, 0], np.float32), hidden_dims=hidden_dims)
    found = tower(tf.constant([2, 3, 5, 2], tf.int32), tf.constant(1)).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0], found[3])
    assert tower(tf.zeros([0], tf.int32), tf.constant(0)).shape == (0, DIM + 1)


def test_what_an_article_is_weighs_it_in_a_history() -> None:
    tower = make_query_tower()
    side = tf.constant(np.random.default_rng(1).normal(size=(50, 3)), tf.float32)
    # Before training every article weighs what its purchases say.
    assert (tower.weigh(side).numpy() == 0).all()
    histories = make_histories([2], [[5, 6]])
    plain = embed(tower, histories)
    heavier = np.zeros([50, 2], np.float32)
    heavier[5, 0] = 3.0
    found = embed(tower, histories, weight=heavier)
    directions = np.random.default_rng(0).normal(size=(50, DIM))
    five = directions[5] / np.linalg.norm(directions[5])
    assert found[0, :DIM] @ five > plain[0, :DIM] @ five


def make_model(
    view: View,
    *,
    hidden_dims: Sequence[int] = (),
    article_dropout: float = 0.0,
    customer_dropout: float = 0.0,
    new_weight: float = 0.5,
    sampling_rate: np.ndarray | None = None,
) -> TwoTowerModel:
    """Two towers of the tiny pipeline, as small as they come."""
    articles = view.articles
    size = articles.num_articles + FIRST_INDEX
    id_index = np.where(np.arange(size) >= FIRST_INDEX, np.arange(size) - 1, 0).astype(np.int32)
    words = view.read_words(32)
    weeks = view.read_weeks(3).values
    encoder = ArticleEncoder(
        id_index,
        articles,
        words,
        weeks,
        embedding_dim=DIM,
        content_scale=0.1,
        number_encoding="quantile",
        num_bins=4,
        seed=1,
    )
    assert view.lookups is not None
    num_history_numbers = len(number_names(view.lookups))
    num_customers = view.timelines.num_customers
    query_tower = QueryTower(
        num_customers=num_customers,
        num_own=num_customers,
        profile_sizes=[len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()],
        num_profile_numbers=view.profiles.numbers.shape[1],
        history_sizes=categorical_sizes(view.lookups),
        num_history_numbers=num_history_numbers,
        num_bins=4,
        embedding_dim=DIM,
        time_scales_days=(7.0, 30.0),
        num_articles=10,
        num_steps=2,
        history_gain=1.0,
        number_encoding="quantile",
        encoding="one_hot",
        hidden_dims=hidden_dims,
        seed=1,
    )
    own_row = np.maximum(np.arange(num_customers + FIRST_INDEX) - 1, 0).astype(np.int32)
    numbers = np.random.default_rng(0).normal(size=(100, view.profiles.numbers.shape[1] + num_history_numbers))
    query_tower.fit(own_row, numbers)
    candidate_tower = CandidateTower(encoder, np.zeros(size, np.float32), embedding_dim=DIM, hidden_dims=hidden_dims)
    return TwoTowerModel(
        encoder=encoder,
        query_tower=query_tower,
        candidate_tower=candidate_tower,
        history_features=make_history_layer(view.lookups),
        temperature=0.1,
        log_probability=np.zeros([len(weeks), size], np.float32),
        sampling_rate=np.full(size, 0.2, np.float32) if sampling_rate is None else sampling_rate,
        new_weight=new_weight,
        article_dropout=article_dropout,
        customer_dropout=customer_dropout,
    )


def make_dataset(view: View) -> tf.data.Dataset:
    baskets = make_training_baskets(view.timelines, since=0, history_length=20)
    week = np.minimum((view.now[0] - baskets.time) // (7 * SECONDS_PER_DAY), 3)
    table = HistoryTable(view.timelines, view.profiles)
    return make_training_dataset(table, baskets, week=week, batch_size=64, seed=1)


def gradients_of(model: TwoTowerModel, batch: dict[str, Any]) -> list[tuple[tf.Variable, np.ndarray]]:
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    assert np.isfinite(float(loss))
    weights = model.trainable_weights
    gradients = tape.gradient(loss, weights)
    assert all(gradient is not None for gradient in gradients)
    return [
        (weight, tf.convert_to_tensor(gradient).numpy()) for weight, gradient in zip(weights, gradients, strict=True)
    ]


@pytest.mark.parametrize("hidden_dims", [(), (6,)])
def test_a_step_reaches_every_weight(view: View, hidden_dims: Sequence[int]) -> None:
    model = make_model(view, hidden_dims=hidden_dims, article_dropout=0.1, customer_dropout=0.1)
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01))
    batch = next(iter(make_dataset(view)))
    for weight, gradient in gradients_of(model, batch):
        assert np.isfinite(gradient).all(), weight.name
    # What starts behind a map of zeros gets its first gradient with the second step.
    weights = model.trainable_weights
    before = [weight.numpy().copy() for weight in weights]
    for _step in range(2):
        figures = model.train_step(batch)
        assert np.isfinite(float(figures["loss"]))
    for weight, former in zip(weights, before, strict=True):
        assert np.isfinite(weight.numpy()).all(), weight.name
        assert not np.array_equal(weight.numpy(), former), weight.name


def test_what_is_dropped_learns_nothing(view: View) -> None:
    batch = next(iter(make_dataset(view)))
    whole, dropped = (
        {id(weight): gradient for weight, gradient in gradients_of(model, batch)} | {"model": model}
        for model in (make_model(view), make_model(view, article_dropout=1.0, customer_dropout=1.0))
    )
    for found, is_dropped in ((whole, False), (dropped, True)):
        model = found["model"]
        own_articles = found[id(model.encoder._id_embedding)]
        bias = found[id(model.candidate_tower._bias)]
        own_customers = found[id(model.query_tower._customer_embedding)]
        assert (np.abs(own_articles).max() == 0) == is_dropped
        assert (np.abs(bias).max() == 0) == is_dropped
        # Row 0 is the strangers'; here every customer has an embedding of their own.
        assert (np.abs(own_customers[1:]).max() == 0) == is_dropped
        assert (np.abs(own_customers[0]).max() > 0) == is_dropped
        assert np.abs(found[id(model.encoder._categories._kernel)]).max() > 0


def test_the_loss_falls_on_every_batch(view: View) -> None:
    tf.keras.utils.set_random_seed(1)
    # Every article is a candidate of every batch, so that two losses of one batch differ by the weights alone.
    model = make_model(view, sampling_rate=np.ones(view.articles.num_articles + FIRST_INDEX, np.float32))
    batches = list(make_dataset(view).take(4))
    before = [float(model.compute_loss(batch)) for batch in batches]
    model.compile(optimizer=tf.keras.optimizers.Adam(0.02))
    fit_model(model, make_dataset(view), epochs=1)
    after = [float(model.compute_loss(batch)) for batch in batches]
    assert all(later < former for later, former in zip(after, before, strict=True))


def test_new_articles_weigh_as_much_as_they_are_told(view: View) -> None:
    # One basket of two articles, one bought before: the loss is the weighted mean, and at weight 0 only the old counts.
    histories = make_histories([2], [[5]])
    histories = histories._replace(profile=tf.zeros([1, 2], tf.int32))
    nine = (np.arange(view.articles.num_articles + FIRST_INDEX) == 9).astype(np.float32)
    losses = {}
    for targets, weight in (([5, 7], 0.0), ([5, 7], 1.0), ([5], 1.0)):
        model = make_model(view, new_weight=weight, sampling_rate=nine)
        batch = {
            "histories": histories,
            "now": tf.constant([NOW], tf.int64),
            "target": tf.RaggedTensor.from_row_lengths(
                tf.constant(targets, tf.int32), tf.constant([len(targets)], tf.int64)
            ),
            "week": tf.constant(0),
        }
        losses[(*targets, weight)] = float(model.compute_loss(batch))
    # The negatives of both are article 9 alone, so article 5's own loss is the same with and without article 7.
    assert losses[(5, 7, 0.0)] == pytest.approx(losses[(5, 1.0)], rel=1e-5)
    assert losses[(5, 7, 1.0)] != pytest.approx(losses[(5, 1.0)], rel=1e-3)
