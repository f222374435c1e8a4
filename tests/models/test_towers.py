import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.articles import ContentValues, make_content_values
from tfrs_fashion.features.inputs import (
    SECONDS_A_DAY,
    Histories,
    HistoryTable,
    make_training_baskets,
    make_training_dataset,
)
from tfrs_fashion.features.view import View
from tfrs_fashion.models.encoders import ArticleEncoder
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.retrieval import TwoTowerModel
from tfrs_fashion.models.towers import CandidateTower, QueryTower
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX

DIM = 8
NOW = 100 * SECONDS_A_DAY


def make_model(view: View, *, seed: int = 1) -> TwoTowerModel:
    """Two towers of the tiny pipeline, as small as they come."""
    articles = view.articles
    size = articles.num_articles + FIRST_INDEX
    id_index = np.where(np.arange(size) >= FIRST_INDEX, np.arange(size) - 1, 0).astype(np.int32)
    encoder = ArticleEncoder(
        id_index, make_content_values(articles, num_text_buckets=32), embedding_dim=DIM, content_scale=0.1, seed=seed
    )
    query_tower = QueryTower(
        num_customers=view.timelines.num_customers,
        profile_sizes=[len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()],
        embedding_dim=DIM,
        time_scales_days=(7.0, 30.0),
        num_articles=10,
        num_steps=2,
        seed=seed,
    )
    return TwoTowerModel(
        encoder=encoder,
        query_tower=query_tower,
        candidate_tower=CandidateTower(encoder, np.zeros(size, np.float32)),
        temperature=0.1,
        log_probability=np.zeros(size, np.float32),
        sampling_rate=np.full(size, 0.2, np.float32),
        new_weight=0.5,
    )


def make_dataset(view: View) -> tf.data.Dataset:
    baskets = make_training_baskets(view.timelines, since=0, history_length=20)
    return make_training_dataset(HistoryTable(view.timelines, view.profiles), baskets, batch_size=64, seed=1)


def make_histories(customers: list[int], histories: list[list[int]], num_features: int = 1) -> Histories:
    lengths = tf.constant([len(row) for row in histories], tf.int64)
    flat = [article for row in histories for article in row]

    def ragged(values: list[float], dtype: tf.DType) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_row_lengths(tf.constant(values, dtype), lengths)

    days = [day for row in histories for day in range(len(row))]
    unknown = Histories.empty(len(customers), num_features=num_features, num_numbers=0)
    return unknown._replace(
        customer_index=tf.constant(customers, tf.int32),
        article_index=ragged(flat, tf.int32),
        time=ragged([day * SECONDS_A_DAY for day in days], tf.int64),
        price=ragged([1.0] * len(flat), tf.float32),
    )


def make_query_tower(num_customers: int = 5) -> QueryTower:
    return QueryTower(
        num_customers=num_customers,
        profile_sizes=[4],
        embedding_dim=DIM,
        time_scales_days=(7.0, 30.0),
        num_articles=3,
        num_steps=2,
        seed=1,
    )


def embed(tower: QueryTower, histories: Histories) -> np.ndarray:
    """Embeds with one fixed random direction for each article."""
    table = np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    now = tf.fill([len(histories.customer_index)], tf.constant(NOW, tf.int64))
    _bought, strongest = tower.read(histories, now)
    found: np.ndarray = tower(strongest, tf.gather(table, strongest.article_index), histories, now).numpy()
    return found


def own_embeddings(tower: QueryTower) -> tf.Variable:
    (found,) = [weight for weight in tower.trainable_weights if "customer_embedding" in weight.name]
    return found


def test_queries_have_length_one_with_and_without_a_history() -> None:
    found = embed(make_query_tower(), make_histories([2, 3, 1], [[5, 6, 5], [], [7]]))
    assert found.shape == (3, DIM + 1)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_batch_without_any_history_and_an_empty_batch() -> None:
    tower = make_query_tower()
    found = embed(tower, make_histories([1, 2], [[], []]))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert embed(tower, make_histories([], [])).shape == (0, DIM + 1)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    tower = make_query_tower()
    together = embed(tower, make_histories([2, 3, 4], [[5, 6], [], [7, 8, 9]]))
    alone = embed(tower, make_histories([4], [[7, 8, 9]]))
    assert together[2] == pytest.approx(alone[0], abs=1e-5)


def test_only_so_many_articles_of_a_history_are_read() -> None:
    # Each article once, one a day: the three bought last are the strongest.
    tower = make_query_tower()
    histories = make_histories([2], [[5, 6, 7, 8]])
    _bought, strongest = tower.read(histories, tf.constant([NOW], tf.int64))
    assert sorted(strongest.article_index.numpy().tolist()) == [6, 7, 8]


def test_unknown_customers_share_the_embedding_of_index_one() -> None:
    tower = make_query_tower(num_customers=5)
    embed(tower, make_histories([1], [[]]))
    own = own_embeddings(tower)
    own.assign(np.random.default_rng(0).normal(size=own.shape))
    # Customers 2 to 6 are known; 7 and beyond are not.
    found = embed(tower, make_histories([1, 7, 10**6, 6, 2], [[5, 6]] * 5))
    assert found[1] == pytest.approx(found[0])
    assert found[2] == pytest.approx(found[0])
    assert np.abs(found[3] - found[0]).max() > 0.01
    changed = own.numpy()
    changed[OUT_OF_VOCABULARY_INDEX] += 1
    own.assign(changed)
    after = embed(tower, make_histories([1, 7, 10**6, 6, 2], [[5, 6]] * 5))
    assert all(np.abs(after[row] - found[row]).max() > 0.01 for row in (0, 1, 2))
    assert after[3:] == pytest.approx(found[3:])


def test_before_training_customer_and_profile_say_nothing() -> None:
    tower = make_query_tower()
    histories = make_histories([2, 3], [[5, 6], [5, 6]])
    found = embed(tower, histories._replace(profile=tf.constant([[1], [3]])))
    assert found[0] == pytest.approx(found[1])


# Article 2 has both, 3 and 4 only the same content, 5 only its own embedding, 6 neither.
ID_INDEX = np.array([0, 0, 1, 0, 0, 2, 0], np.int32)
CONTENT = ContentValues(np.array([0, 1, 1, 2, 1, 2], np.int32), np.array([0, 0, 0, 2, 4, 6, 6, 6]), size=3)


def make_encoder() -> ArticleEncoder:
    return ArticleEncoder(ID_INDEX, CONTENT, embedding_dim=DIM, content_scale=0.1, seed=1)


def encode(encoder: ArticleEncoder, *articles: int) -> np.ndarray:
    found: np.ndarray = encoder(tf.constant(articles, tf.int32)).numpy()
    return found


def weight_of(encoder: ArticleEncoder, name: str) -> tf.Variable:
    (found,) = [weight for weight in encoder.trainable_weights if name in weight.name]
    return found


def test_an_article_without_an_embedding_of_its_own_is_its_content() -> None:
    encoder = make_encoder()
    before = encode(encoder, 2, 3, 4, 5)
    content = weight_of(encoder, "content_embedding").numpy()
    expected = content[1] + content[2]
    assert before[1] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)
    assert before[2] == pytest.approx(before[1])
    own = weight_of(encoder, "id_embedding")
    own.assign(own + 1.0)
    after = encode(encoder, 2, 3, 4, 5)
    assert after[1:3] == pytest.approx(before[1:3])
    assert np.abs(after[[0, 3]] - before[[0, 3]]).max() > 0.01


def test_an_article_is_the_sum_of_its_own_embedding_and_its_content() -> None:
    encoder = make_encoder()
    own, content = weight_of(encoder, "id_embedding").numpy(), weight_of(encoder, "content_embedding").numpy()
    # Of two values, each weighs 1 / √2, so that content keeps its length whatever the number of values.
    expected = own[1] + (content[0] + content[1]) / np.sqrt(2)
    assert encode(encoder, 2)[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)
    assert encode(encoder, 5)[0] == pytest.approx(own[2] / np.linalg.norm(own[2]), abs=1e-5)


def test_articles_have_length_one_and_those_of_nothing_length_zero() -> None:
    found = encode(make_encoder(), 6, 0, 1, 2, 3, 5)
    assert np.linalg.norm(found, axis=1) == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-5)
    assert encode(make_encoder()).shape == (0, DIM)


def test_candidates_have_length_one_and_carry_their_bias() -> None:
    encoder = make_encoder()
    bias = np.array([0, 0, 2.0, 0, 0, 0, 0], np.float32)
    tower = CandidateTower(encoder, bias)
    articles = tf.constant([2, 3, 5], tf.int32)
    found = tower(articles).numpy()
    assert found.shape == (3, DIM + 1)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    # A unit embedding beside a bias b has b / √(1 + b²) in the last place.
    assert found[:, -1] == pytest.approx([2 / np.sqrt(5), 0, 0], abs=1e-5)
    assert tower(articles, encoder(articles)).numpy() == pytest.approx(found)


def test_a_step_reaches_every_weight(view: View) -> None:
    model = make_model(view)
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01))
    batch = next(iter(make_dataset(view)))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    assert np.isfinite(float(loss))
    weights = model.trainable_weights
    gradients = tape.gradient(loss, weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.name
        assert np.isfinite(tf.convert_to_tensor(gradient).numpy()).all(), weight.name
    # What starts behind a map of zeros gets its first gradient with the second step.
    before = [weight.numpy().copy() for weight in weights]
    for _step in range(2):
        figures = model.train_step(batch)
        assert np.isfinite(float(figures["loss"]))
    for weight, former in zip(weights, before, strict=True):
        assert np.isfinite(weight.numpy()).all(), weight.name
        assert not np.array_equal(weight.numpy(), former), weight.name


def test_the_loss_falls_on_every_batch(view: View) -> None:
    tf.keras.utils.set_random_seed(1)
    model = make_model(view)
    # Every article is a candidate of every batch, so that two losses of one batch differ by the weights alone.
    model._sampling_rate = tf.ones_like(model._sampling_rate)
    batches = list(make_dataset(view).take(4))
    before = [float(model.compute_loss(batch)) for batch in batches]
    model.compile(optimizer=tf.keras.optimizers.Adam(0.02))
    fit_model(model, make_dataset(view), epochs=2)
    after = [float(model.compute_loss(batch)) for batch in batches]
    assert all(later < former for later, former in zip(after, before, strict=True))


def test_new_articles_weigh_as_much_as_they_are_told(view: View) -> None:
    # One basket of two articles, one bought before: the loss is the weighted mean, and at weight 0 only the old counts.
    histories = make_histories([2], [[5]], num_features=2)
    losses = {}
    for targets, weight in (([5, 7], 0.0), ([5, 7], 1.0), ([5], 1.0)):
        model = make_model(view)
        model._new_weight = weight
        model._sampling_rate = tf.cast(tf.range(tf.size(model._sampling_rate)) == 9, tf.float32)
        batch = {
            "histories": histories,
            "now": tf.constant([NOW], tf.int64),
            "target": tf.RaggedTensor.from_row_lengths(
                tf.constant(targets, tf.int32), tf.constant([len(targets)], tf.int64)
            ),
        }
        losses[(*targets, weight)] = float(model.compute_loss(batch))
    # The negatives of both are article 9 alone, so article 5's own loss is the same with and without article 7.
    assert losses[(5, 7, 0.0)] == pytest.approx(losses[(5, 1.0)], rel=1e-5)
    assert losses[(5, 7, 1.0)] != pytest.approx(losses[(5, 1.0)], rel=1e-3)
