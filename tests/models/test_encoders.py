"""Encoders against NumPy, and numbers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.articles import ArticleTable
from tfrs_fashion.features.hashed_words import HashedWords
from tfrs_fashion.features.vocabulary import ValueSets
from tfrs_fashion.models.encoders import (
    ArticleEncoder,
    CategoryEncoder,
    CategoryEncoding,
    NumberEncoder,
    NumberEncoding,
    WordEncoder,
)
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX

DIM = 8
# All values of one row of numbers together are at most so large, however many features there are.
SCALE = 2.0
NAN, INF = float("nan"), float("inf")
ENCODINGS: tuple[CategoryEncoding, ...] = ("one_hot", "embedding")

SIZES = (4, 3, 5)
INDEX = np.array([[2, 2, 4], [1, 0, 3], [0, 0, 0], [3, 1, 2], [2, 2, 4]], np.int32)


def make_categories(
    encoding: CategoryEncoding, *, scale: float = 1.0, sizes: tuple[int, ...] = SIZES
) -> CategoryEncoder:
    return CategoryEncoder(sizes, output_dim=DIM, encoding=encoding, scale=scale, seed=3)


def test_one_hot_is_the_joined_one_hot_vectors_times_one_matrix() -> None:
    encoder = make_categories("one_hot")
    (kernel,) = encoder.get_weights()
    assert kernel.shape == (sum(SIZES), DIM)
    one_hot = [np.eye(size)[INDEX[:, feature]] for feature, size in enumerate(SIZES)]
    for part in one_hot:
        part[:, PADDING_INDEX] = 0
    expected = np.concatenate(one_hot, axis=1) @ kernel
    assert encoder(tf.constant(INDEX)).numpy() == pytest.approx(expected, abs=1e-6)


def test_embedding_is_a_narrow_embedding_of_each_joined_and_projected() -> None:
    encoder = make_categories("embedding")
    *tables, project = encoder.get_weights()
    # The width grows as size^.56, from 2 on: 4^.56 = 2.17, 3^.56 = 1.85, 5^.56 = 2.46.
    assert [table.shape for table in tables] == [(4, 2), (3, 2), (5, 2)]
    parts = [table[INDEX[:, feature]] * (INDEX[:, feature : feature + 1] > 0) for feature, table in enumerate(tables)]
    expected = np.concatenate(parts, axis=1) @ project
    assert encoder(tf.constant(INDEX)).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_missing_values_add_nothing_and_unknown_ones_only_what_was_learned(encoding: CategoryEncoding) -> None:
    encoder, index = make_categories(encoding), tf.constant([[0, 0, 0], [1, 0, 0], [0, 0, 1], [2, 0, 0]])
    before = encoder(index).numpy()
    assert before[:3].tolist() == [[0] * DIM] * 3
    assert np.abs(before[3]).max() > 0.01
    target = np.zeros((4, DIM), np.float32)
    target[:, 0], target[2, 1] = 1.0, 2.0
    optimizer = tf.keras.optimizers.Adam(0.1)
    for _step in range(5):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(encoder(index) - target))
        gradients = tape.gradient(loss, encoder.trainable_weights)
        optimizer.apply_gradients(zip(gradients, encoder.trainable_weights, strict=True))
    after = encoder(index).numpy()
    assert after[0].tolist() == [0] * DIM
    assert np.abs(after[1:3]).max(axis=1).min() > 0.01
    assert not np.allclose(after[1], after[2])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_the_output_starts_with_the_length_asked_for(encoding: CategoryEncoding, scale: float) -> None:
    sizes, dim = (50,) * 6, 32
    encoder = CategoryEncoder(sizes, output_dim=dim, encoding=encoding, scale=scale, seed=1)
    index = np.random.default_rng(0).integers(1, 50, size=(400, len(sizes)))
    length = np.linalg.norm(encoder(tf.constant(index, tf.int32)).numpy(), axis=1)
    assert np.sqrt(np.mean(length**2)) == pytest.approx(scale, rel=0.2)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_starts_as_nothing_learns(encoding: CategoryEncoding) -> None:
    encoder = make_categories(encoding, scale=0.0)
    with tf.GradientTape() as tape:
        found = encoder(tf.constant(INDEX))
        loss = tf.reduce_sum(found)
    assert (found.numpy() == 0).all()
    gradients = tape.gradient(loss, encoder.trainable_weights)
    assert max(float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient)))) for gradient in gradients) > 0


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("batch", "num_features"), [(0, 3), (2, 0), (0, 0)])
def test_no_rows_and_no_categories(encoding: CategoryEncoding, batch: int, num_features: int) -> None:
    encoder = make_categories(encoding, sizes=SIZES[:num_features])
    found = encoder(tf.zeros([batch, num_features], tf.int32))
    assert found.numpy().tolist() == [[0.0] * DIM] * batch


def encode_numbers(
    fitted: list[list[float]], asked: list[list[float]], *, num_bins: int, encoding: NumberEncoding = "quantile"
) -> np.ndarray:
    """The values of the bins and the flags, without the common scale."""
    num_features = len(asked[0])
    encoder = NumberEncoder(num_features, num_bins, encoding)
    encoder.fit(np.array(fitted, np.float32).reshape(-1, num_features))
    found = encoder(tf.constant(asked, tf.float32)).numpy()
    assert np.isfinite(found).all()
    assert found.shape == (len(asked), encoder.output_dim) == (len(asked), num_features * (num_bins + 1))
    scaled: np.ndarray = found * encoder.output_dim / SCALE
    return scaled


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Quantiles 0, 2 and 4 of 0 to 4: bins from 0 to 2 and from 2 to 4, and a flag.
        (0.0, [0, 0, 0]),
        (1.0, [0.5, 0, 0]),
        (2.0, [1, 0, 0]),
        (3.5, [1, 0.75, 0]),
        (4.0, [1, 1, 0]),
        (-5.0, [0, 0, 0]),
        (9.0, [1, 1, 0]),
        (INF, [1, 1, 0]),
        (-INF, [0, 0, 0]),
        (3e38, [1, 1, 0]),
        # The median is 2.
        (NAN, [1, 0, 1]),
    ],
)
def test_a_number_is_its_place_among_quantiles(value: float, expected: list[float]) -> None:
    found = encode_numbers([[0], [4], [1], [NAN], [3], [2], [INF], [-INF]], [[value]], num_bins=2)
    assert found[0].tolist() == pytest.approx(expected)


def test_quantiles_between_numbers_are_interpolated() -> None:
    # Of 0 and 10, four bins: 0, 2.5, 5, 7.5, 10.
    found = encode_numbers([[0], [10]], [[6.0], [7.5]], num_bins=4)
    assert found.tolist() == [pytest.approx([1, 1, 0.4, 0, 0]), pytest.approx([1, 1, 1, 0, 0])]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Bins of equal width in log(1 + x) of 0 to 7: their edges are 0, 1, 3 and 7.
        (0.0, [0, 0, 0, 0]),
        (1.0, [1, 0, 0, 0]),
        (3.0, [1, 1, 0, 0]),
        (4.0, [1, 1, np.log(5 / 4) / np.log(2), 0]),
        (7.0, [1, 1, 1, 0]),
        (-3.0, [0, 0, 0, 0]),
        (INF, [1, 1, 1, 0]),
        (NAN, [0, 0, 0, 1]),
    ],
)
def test_bins_by_the_logarithm_tell_the_largest_apart(value: float, expected: list[float]) -> None:
    found = encode_numbers([[0], [0], [0], [0], [7], [NAN]], [[value]], num_bins=3, encoding="log")
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_logarithm_of_numbers_below_zero_has_their_sign() -> None:
    found = encode_numbers([[-3], [3]], [[-1.0], [0.0]], num_bins=2, encoding="log")
    assert found.tolist() == [pytest.approx([0.5, 0, 0]), pytest.approx([1, 0, 0])]


def test_bins_of_no_width_are_steps() -> None:
    # Four of five are 0, so the edges are 0, 0 and 8.
    found = encode_numbers([[0], [0], [0], [0], [8]], [[-0.1], [0], [2], [8]], num_bins=2)
    assert found[:, :2].tolist() == [[0, 0], [1, 0], [1, pytest.approx(0.25)], [1, 1]]


def test_a_constant_tells_below_from_above() -> None:
    found = encode_numbers([[5], [5], [NAN]], [[4.9], [5], [5.1], [NAN]], num_bins=3)
    assert found.tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_a_missing_number_has_the_place_of_the_median() -> None:
    # Of ages 20, 30, 60 and of 20, 30, 40, 60 the medians are 30 and 35; each feature has its own.
    fitted = [[20, 20.0], [30, 30], [60, 40], [NAN, 60]]
    found = encode_numbers(fitted, [[NAN, NAN], [30, 35], [NAN, 35]], num_bins=4).reshape(3, 2, 5)
    assert found[0, :, :4] == pytest.approx(found[1, :, :4])
    assert found[2, :, :4] == pytest.approx(found[1, :, :4])
    assert found[:, :, 4].tolist() == [[1, 1], [0, 0], [1, 0]]
    assert 0 < found[0, 0, :4].mean() < 1


def test_a_missing_number_is_at_the_median_of_logarithmic_bins_too() -> None:
    encoder = NumberEncoder(1, 2, "log")
    encoder.fit(np.expm1(np.array([[0.0], [0.5], [2.0], [np.nan]])).astype(np.float32))
    # Bins from 0 to 1 and from 1 to 2 in log1p; the median is half-way through the first.
    found = encoder(tf.constant([[NAN], [np.expm1(0.5)], [np.expm1(1.5)]])).numpy() * encoder.output_dim / SCALE
    assert found == pytest.approx(np.array([[0.5, 0, 1], [0.5, 0, 0], [1, 0.5, 0]]), abs=1e-6)


@pytest.mark.parametrize("fitted", [[], [[NAN], [NAN]], [[INF], [-INF]]])
def test_a_feature_that_was_always_missing_is_fitted(fitted: list[list[float]]) -> None:
    found = encode_numbers(fitted, [[NAN], [3.0], [-3.0]], num_bins=2)
    assert found.tolist() == [[0, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_the_largest_numbers_there_are_stay_finite() -> None:
    largest = 3.4e38
    found = encode_numbers([[-largest], [largest]], [[-largest], [0], [largest], [INF], [-INF]], num_bins=2)
    assert found[:, :2].tolist() == [[0, 0], [1, 0], [1, 1], [1, 1], [0, 0]]


def test_each_feature_has_bins_of_its_own_and_they_follow_each_other() -> None:
    found = encode_numbers([[0, 100], [4, 300]], [[1.0, NAN], [NAN, 150.0]], num_bins=1)
    # Missing ones are at the medians, 2 of 0 and 4, and 200 of 100 and 300.
    assert found.tolist() == [[0.25, 0, 0.5, 1], [0.5, 1, 0.25, 0]]
    assert NumberEncoder(0, 4, "log")(tf.zeros([3, 0])).shape == (3, 0)
    assert encode_numbers([[0.0]], [[0.0]], num_bins=1)[:0].shape == (0, 2)


def test_words_add_up_over_the_root_of_their_number() -> None:
    words = HashedWords(np.array([3, 0, 3, 1], np.int32), np.array([0, 0, 0, 3, 3, 4], np.int64), num_buckets=4)
    encoder = WordEncoder(words, output_dim=DIM, scale=1.0, seed=1)
    (kernel,) = encoder.get_weights()
    found = encoder(tf.constant([2, 0, 3, 4, 2])).numpy()
    # Article 2 has the words 3, 0, 3; 3 has none; 4 has word 1.
    three = (2 * kernel[3] + kernel[0]) / np.sqrt(3)
    nothing = np.zeros(DIM)
    assert found == pytest.approx(np.stack([three, nothing, nothing, kernel[1], three]), abs=1e-6)
    assert encoder(tf.zeros([0], tf.int32)).shape == (0, DIM)


def test_values_of_a_set_add_up_over_the_root_of_their_number() -> None:
    # Article 2 has values 2 and 3, article 3 an unknown one, article 4 value 3 and an unknown one, article 5 none.
    sets = ValueSets(np.array([2, 3, 1, 1, 3], np.int32), np.array([0, 0, 0, 2, 3, 5, 5], np.int64), ["cotton", "wool"])
    encoder = WordEncoder(sets, output_dim=DIM, scale=1.0, seed=1)
    (kernel,) = encoder.get_weights()
    assert kernel.shape == (4, DIM)
    assert (kernel[1] == 0).all()
    kernel[1] = 7.0
    encoder.set_weights([kernel])
    found = encoder(tf.range(6)).numpy()
    both, mixed, nothing = (kernel[2] + kernel[3]) / np.sqrt(2), (kernel[1] + kernel[3]) / np.sqrt(2), np.zeros(DIM)
    assert found == pytest.approx(np.stack([nothing, nothing, both, kernel[1], mixed, nothing]), abs=1e-6)


def test_sets_are_content() -> None:
    values = ValueSets(np.array([2, 3, 3], np.int32), np.array([0, 0, 0, 2, 2, 3, 3, 3], np.int64), ["cotton", "wool"])
    table = replace(make_table(), sets={"material": values, "again": values})
    articles = tf.range(7)
    encoder = make_encoder(table)
    expected = make_encoder()(articles, tf.constant(0)).side + encoder._sets[0](articles) + encoder._sets[1](articles)
    found = encoder(articles, tf.constant(0)).side.numpy()
    assert found == pytest.approx(expected.numpy(), abs=1e-6)
    assert np.abs(found - make_encoder()(articles, tf.constant(0)).side.numpy()).max(axis=1)[[2, 4]].min() > 0.01
    assert len(encoder.trainable_weights) == len(make_encoder().trainable_weights) + 2


# Article 2 has an embedding of its own and content; 3 and 4 only content, the same; 5 only an embedding of its own; 6
# neither.
ID_INDEX = np.array([0, 0, 1, 0, 0, 2, 0], np.int32)
WORDS = HashedWords(np.array([1, 2, 2, 2], np.int32), np.array([0, 0, 0, 2, 3, 4, 4, 4], np.int64), num_buckets=3)


def make_table(*, numbers: list[float] | None = None, vectors: np.ndarray | None = None) -> ArticleTable:
    size = len(ID_INDEX)
    return ArticleTable(
        article_id=np.array(["p", "q", "r", "s", "t"], dtype=object),
        categorical={"colour": np.array([0, 0, 3, 2, 2, 0, 0], np.int32)},
        vocabulary={"colour": ["blue", "red"]},
        numbers={} if numbers is None else {"list_price": np.array([NAN, NAN, *numbers], np.float32)},
        vectors=np.zeros((size, 0), np.float32) if vectors is None else vectors,
        num_baskets=np.array([0, 0, 3, 1, 1, 1, 0]),
        in_store=np.arange(2, 6, dtype=np.int32),
        never_sold=np.array([6], np.int32),
    )


# Two weeks and the time before them; of article 2 the feature is known in both weeks, of article 3 in one.
WEEKS = np.full([3, 7, 1], np.nan, np.float32)
WEEKS[0, 2], WEEKS[1, 2], WEEKS[0, 3] = 5.0, 1.0, 3.0
NO_WEEKS = WEEKS[:, :, :0]


def make_encoder(
    table: ArticleTable | None = None, *, encoding: CategoryEncoding = "one_hot", weeks: np.ndarray = NO_WEEKS
) -> ArticleEncoder:
    return ArticleEncoder(
        ID_INDEX,
        table or make_table(),
        WORDS,
        weeks,
        embedding_dim=DIM,
        content_scale=0.5,
        encoding=encoding,
        number_encoding="quantile",
        num_bins=2,
        seed=1,
    )


def encode(encoder: ArticleEncoder, *articles: int, keep: list[float] | None = None) -> np.ndarray:
    found = encoder(tf.constant(articles, tf.int32), tf.constant(0), None if keep is None else tf.constant(keep))
    embedding: np.ndarray = found.embedding.numpy()
    return embedding


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_article_is_the_sum_of_its_own_embedding_and_its_content(encoding: CategoryEncoding) -> None:
    encoder = make_encoder(encoding=encoding)
    own = encoder._id_embedding.numpy()
    articles = tf.constant([2, 3], tf.int32)
    content = (encoder._categories(tf.constant([[3], [2]])) + encoder._words(articles)).numpy()
    assert encode(encoder, 2)[0] == pytest.approx(unit(own[1] + content[0]), abs=1e-5)
    assert encode(encoder, 3)[0] == pytest.approx(unit(content[1]), abs=1e-5)
    assert encode(encoder, 5)[0] == pytest.approx(unit(own[2]), abs=1e-5)
    assert encoder(articles, tf.constant(0)).side.numpy() == pytest.approx(content, abs=1e-6)


def test_own_embeddings_move_those_articles_alone_that_have_one() -> None:
    encoder = make_encoder()
    before = encode(encoder, 2, 3, 4, 5)
    assert before[2] == pytest.approx(before[1])
    encoder._id_embedding.assign(encoder._id_embedding + 1.0)
    after = encode(encoder, 2, 3, 4, 5)
    assert after[1:3] == pytest.approx(before[1:3])
    assert np.abs(after[[0, 3]] - before[[0, 3]]).max(axis=1).min() > 0.01


def test_without_its_own_embedding_an_article_is_its_content() -> None:
    encoder = make_encoder()
    found = encode(encoder, 2, 2, 5, 3, 3, keep=[1.0, 0.0, 0.0, 1.0, 0.0])
    content = encoder(tf.constant([2], tf.int32), tf.constant(0)).side.numpy()[0]
    assert found[0] == pytest.approx(encode(encoder, 2)[0])
    assert found[1] == pytest.approx(unit(content), abs=1e-5)
    assert np.linalg.norm(found[2]) == 0
    assert found[3] == pytest.approx(found[4])


def test_numbers_and_vectors_are_content() -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    vectors[:FIRST_INDEX] = 0
    encoder = make_encoder(make_table(numbers=[1.0, 3.0, 2.0, NAN, 100.0], vectors=vectors))
    articles = tf.range(7)
    parts = encoder._categories(tf.constant([[0], [0], [3], [2], [2], [0], [0]])) + encoder._words(articles)
    # The edges are the quantiles of what was sold, 1, 2 and 3: article 6, never sold at 100, has no say in them. Where
    # there is no number it is at the median, 2.
    bins = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]) * SCALE / 3
    expected = parts.numpy() + np.concatenate([bins, vectors], axis=1) @ encoder._dense_kernel.numpy()
    assert encoder(articles, tf.constant(0)).side.numpy() == pytest.approx(expected, abs=1e-5)


def test_recent_sales_stand_beside_the_content_and_move_no_embedding() -> None:
    encoder, plain = make_encoder(weeks=WEEKS), make_encoder()
    articles = tf.constant([2, 3, 5], tf.int32)
    content = plain(articles, tf.constant(0)).side.numpy()
    for week in range(3):
        found = encoder(articles, tf.constant(week))
        sales = encoder._week_encoder(tf.constant(WEEKS[week, [2, 3, 5]])).numpy()
        assert found.side.numpy() == pytest.approx(np.concatenate([content, sales], axis=1), abs=1e-6)
        np.testing.assert_array_equal(found.embedding.numpy(), plain(articles, tf.constant(0)).embedding.numpy())
    recent, earlier, before = (encoder(articles, tf.constant(week)).side.numpy() for week in range(3))
    assert np.abs(recent[0] - earlier[0]).max() > 0.1
    # Of article 5, and of the time before, nothing is known.
    np.testing.assert_array_equal(recent[2], before[2])
    np.testing.assert_array_equal(before[:, DIM:], np.repeat(recent[2:, DIM:], 3, axis=0))


def test_articles_have_length_one_and_those_of_nothing_length_zero() -> None:
    found = encode(make_encoder(), 6, 0, 1, 2, 3, 5)
    assert np.linalg.norm(found, axis=1) == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-5)
    assert encode(make_encoder()).shape == (0, DIM)
