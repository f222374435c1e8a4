import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_fashion.models.losses import (
    basket_softmax,
    calibrated_sigmoid,
    sampled_sigmoid,
    sampled_softmax,
    sampling_probability,
    sigmoid_rank,
)


def loss_of(logits: np.ndarray, pairs: list[tuple[int, int]], log_probability: np.ndarray | list[float]) -> list[float]:
    """Losses of (query, candidate) positives."""
    query, candidate = (tf.constant([pair[side] for pair in pairs], tf.int32) for side in (0, 1))
    found = basket_softmax(
        tf.constant(logits, tf.float32),
        query=query,
        candidate=candidate,
        log_probability=tf.constant(log_probability, tf.float32),
    )
    losses: list[float] = found.numpy().tolist()
    return losses


def slow_loss(logits: np.ndarray, pairs: list[tuple[int, int]], log_probability: np.ndarray) -> list[float]:
    """-log(e^p / (e^p + Σ e^n)) with corrected logits, one positive at a time."""
    losses = []
    for query, candidate in pairs:
        corrected = [logits[query, column] - log_probability[column] for column in range(logits.shape[1])]
        positives = {column for row, column in pairs if row == query}
        negatives = sum(math.exp(value) for column, value in enumerate(corrected) if column not in positives)
        positive = math.exp(corrected[candidate])
        losses.append(-math.log(positive / (positive + negatives)))
    return losses


def test_equals_the_formula() -> None:
    random = np.random.default_rng(0)
    logits, log_probability = random.normal(size=(3, 6)), np.log(random.uniform(0.05, 1, size=6))
    # Baskets of three, one and two articles; candidate 4 belongs to two baskets.
    pairs = [(0, 0), (0, 1), (0, 4), (1, 2), (2, 4), (2, 3)]
    assert loss_of(logits, pairs, log_probability) == pytest.approx(slow_loss(logits, pairs, log_probability), rel=1e-5)


def test_by_hand() -> None:
    # Equal logits: the positive against two negatives of equal and of half the probability, 1 / (1 + 1 + 2).
    log_probability = np.log([0.5, 0.5, 0.25])
    assert loss_of(np.zeros((1, 3)), [(0, 0)], log_probability) == pytest.approx([math.log(4)])


def test_other_articles_of_the_basket_are_no_negatives() -> None:
    alone = loss_of(np.zeros((1, 2)), [(0, 0)], np.zeros(2))
    # A second positive with a huge logit would crush the first one, were it a negative.
    together = loss_of(np.array([[0.0, 0.0, 50.0]]), [(0, 0), (0, 2)], np.zeros(3))
    assert together[0] == pytest.approx(alone[0]) == pytest.approx(math.log(2))
    # For another basket it is one.
    assert loss_of(np.array([[0.0, 0.0, 50.0]]), [(0, 0)], np.zeros(3)) == pytest.approx([50.0])


def test_a_basket_of_all_candidates_has_nothing_to_learn() -> None:
    logits = tf.Variable([[1.0, -2.0]])
    with tf.GradientTape() as tape:
        loss = basket_softmax(
            logits, query=tf.constant([0, 0]), candidate=tf.constant([0, 1]), log_probability=tf.zeros([2])
        )
        total = tf.reduce_sum(loss)
    assert loss.numpy().tolist() == [0.0, 0.0]
    assert tape.gradient(total, logits).numpy().tolist() == [[0.0, 0.0]]


def test_a_frequent_negative_weighs_less_than_a_rare_one() -> None:
    # A frequent article is drawn as a negative more often, so each draw has to count less: subtracting log q from its
    # logit lowers the loss as q grows. Of a positive it is the other way round.
    rare, frequent = math.log(0.01), math.log(0.9)
    logits = np.zeros((1, 2))
    (against_frequent,) = loss_of(logits, [(0, 0)], [rare, frequent])
    (against_rare,) = loss_of(logits, [(0, 0)], [rare, rare])
    (frequent_against_rare,) = loss_of(logits, [(0, 0)], [frequent, rare])
    assert against_frequent < against_rare < frequent_against_rare
    assert against_frequent == pytest.approx(math.log(1 + 0.01 / 0.9), rel=1e-4)
    assert frequent_against_rare == pytest.approx(math.log(1 + 0.9 / 0.01), rel=1e-4)


def expected_negatives(scores: np.ndarray, probability: np.ndarray, *, sign: float) -> float:
    """The mean of Σ e^n over all sets of negatives, each with its own probability, as the loss has it.

    The positive is always drawn, with logit 0 and log q 0, so Σ e^n = e^loss - 1.
    """
    total = 0.0
    for drawn in itertools.product([False, True], repeat=len(scores)):
        chance = float(np.prod(np.where(drawn, probability, 1 - probability)))
        taken = np.flatnonzero(drawn)
        if len(taken):
            logits = np.concatenate([[0.0], scores[taken]])[np.newaxis]
            (loss,) = loss_of(logits, [(0, 0)], [0.0, *(sign * np.log(probability[taken]))])
            total += chance * math.expm1(loss)
    return total


def test_the_sampled_denominator_is_that_of_the_full_softmax_on_average() -> None:
    scores, probability = np.array([1.0, -0.5, 0.3, 0.0]), np.array([0.9, 0.05, 0.4, 0.2])
    full = float(np.exp(scores).sum())
    assert expected_negatives(scores, probability, sign=1.0) == pytest.approx(full, rel=1e-4)
    # With the sign reversed it is Σ q² e^n, and without correction Σ q e^n: neither is the softmax.
    assert expected_negatives(scores, probability, sign=-1.0) == pytest.approx(
        float((probability**2 * np.exp(scores)).sum()), rel=1e-4
    )


def test_articles_of_equal_scores_push_equally_only_with_the_right_sign() -> None:
    # What article i adds to the denominator on average, q e^(s - log q), is free of q; with the wrong sign a frequent
    # article would add more, be pushed down more, and fall behind a rare one of equal score.
    scores, probability = np.zeros(2), np.array([0.9, 0.1])
    for sign, expected in ((1.0, [1.0, 1.0]), (-1.0, [0.9**2, 0.1**2])):
        added = [expected_negatives(scores[[one]], probability[[one]], sign=sign) for one in (0, 1)]
        assert added == pytest.approx(expected, rel=1e-4)


def test_one_positive_a_basket_is_the_retrieval_task() -> None:
    random = np.random.default_rng(1)
    query = random.normal(size=(5, 3)).astype(np.float32)
    candidate = random.normal(size=(5, 3)).astype(np.float32)
    probability = random.uniform(0.05, 1, size=5).astype(np.float32)
    task = tfrs.tasks.Retrieval()
    # The task's loss is the sum over the batch.
    expected = task(
        tf.constant(query), tf.constant(candidate), candidate_sampling_probability=tf.constant(probability)
    ).numpy()
    found = loss_of(query @ candidate.T, [(row, row) for row in range(5)], np.log(probability))
    assert sum(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("scale", [-1000.0, 0.0, 1000.0])
def test_large_logits_stay_finite(scale: float) -> None:
    losses = loss_of(np.array([[0.0, scale]]), [(0, 0)], np.log([1e-12, 1.0]))
    assert np.isfinite(losses).all()
    assert losses[0] == pytest.approx(max(scale + math.log(1e-12), 0.0), abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_sampling_probability_equals_a_simulation(batch_size: int) -> None:
    # Articles in 0, 1, 10, 50 and all of 100 baskets, in batches drawn with replacement.
    num_baskets, total, trials = np.array([0, 1, 10, 50, 100]), 100, 20_000
    found = sampling_probability(tf.constant(num_baskets), total_baskets=total, batch_size=batch_size).numpy()
    random = np.random.default_rng(0)
    batches = random.integers(total, size=(trials, batch_size))
    simulated = [(batches < count).any(axis=1).mean() for count in num_baskets]
    # Four standard errors of a share among so many trials.
    assert found == pytest.approx(simulated, abs=4 * 0.5 / math.sqrt(trials))
    assert found.dtype == np.float32
    assert found[0] == 0
    assert found[-1] == 1


def test_sampling_probability_of_rare_articles_keeps_its_digits() -> None:
    found = sampling_probability(tf.constant([1]), total_baskets=10**7, batch_size=2).numpy()
    assert found[0] == pytest.approx(2e-7, rel=1e-3)


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@pytest.fixture(scope="module")
def sampled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of four positives and of five negatives each, of which some are the positive itself."""
    random = np.random.default_rng(5)
    is_hit = np.zeros((4, 5), bool)
    is_hit[1, 2] = is_hit[2, 0] = is_hit[2, 4] = True
    return random.normal(size=4) * 2, random.normal(size=(4, 5)) * 2, is_hit


def measured(loss: Callable[..., tf.Tensor], sampled: tuple[np.ndarray, ...], **settings: float) -> list[float]:
    positive, negative, is_hit = sampled
    found = loss(
        tf.constant(positive, tf.float32), tf.constant(negative, tf.float32), is_hit=tf.constant(is_hit), **settings
    )
    losses: list[float] = found.numpy().tolist()
    return losses


def test_sampled_losses_equal_their_formulas(sampled: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    expected: dict[str, list[float]] = {"sigmoid": [], "softmax": [], "rank": [], "gbce": []}
    num_candidates, calibration = 21, 0.6
    rate = 5 / 20
    power = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    for p, row, hits in zip(*sampled, strict=True):
        negatives = [n for n, hit in zip(row, hits, strict=True) if not hit]
        away = -sum(math.log(sigmoid(-n)) for n in negatives)
        expected["sigmoid"].append(-math.log(sigmoid(p)) + away)
        expected["softmax"].append(-math.log(math.exp(p) / (math.exp(p) + sum(math.exp(n) for n in negatives))))
        expected["rank"].append(sum(sigmoid(n - p) for n in negatives) / len(negatives))
        expected["gbce"].append(-math.log(sigmoid(p) ** power) + away)
    assert measured(sampled_sigmoid, sampled) == pytest.approx(expected["sigmoid"], rel=1e-5)
    assert measured(sampled_softmax, sampled) == pytest.approx(expected["softmax"], rel=1e-5)
    assert measured(sigmoid_rank, sampled) == pytest.approx(expected["rank"], rel=1e-5)
    told = {"num_candidates": num_candidates, "calibration": calibration}
    assert measured(calibrated_sigmoid, sampled, **told) == pytest.approx(expected["gbce"], rel=1e-5)


def test_without_calibration_gbce_is_the_plain_cross_entropy(sampled: tuple[np.ndarray, ...]) -> None:
    plain = measured(sampled_sigmoid, sampled)
    assert measured(calibrated_sigmoid, sampled, num_candidates=100, calibration=0.0) == pytest.approx(plain, rel=1e-5)
    # Nor is there anything to undo where all others are drawn.
    assert measured(calibrated_sigmoid, sampled, num_candidates=6, calibration=1.0) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("loss", [sampled_sigmoid, sampled_softmax, sigmoid_rank])
def test_where_every_negative_is_the_positive_nothing_is_undefined(loss: Callable[..., tf.Tensor]) -> None:
    positive, negative = tf.Variable([0.5]), tf.Variable([[0.5, 0.5]])
    with tf.GradientTape() as tape:
        found = loss(positive, negative, is_hit=tf.constant([[True, True]]))
    assert np.isfinite(found.numpy()).all()
    assert all(np.isfinite(gradient.numpy()).all() for gradient in tape.gradient(found, [positive, negative]))
