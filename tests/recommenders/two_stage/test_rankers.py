"""Rankers find what tells purchases apart, and are calibrated."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.models.trees import Trees, read_trees
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.recommenders.two_stage.network import draw_for_bins, fit_network, make_list_dataset
from tfrs_fashion.recommenders.two_stage.ranker_week import Calibration, RankerWeek, calibrate, score_week
from tfrs_fashion.recommenders.two_stage.rankers import Ranker, TreesRanker, load_ranker
from tfrs_fashion.recommenders.two_stage.trees import fit_trees
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.rankers import NetworkRankerConfig, TreesRankerConfig

CATEGORIES = np.array([[0], [0], *[[2 + number % 2] for number in range(10)]], np.int32)
TREES = TreesRankerConfig(rounds=40, patience=10, min_data_in_leaf=5, learning_rate=0.2)
NETWORK = NetworkRankerConfig(
    num_bins=8, hidden_dims=(16,), epochs=6, batch_lists=8, learning_rate=0.02, list_size=6, embedding_dim=2
)

CONTEXT = FitContext("two_stage", k=3)


class Articles:
    """What a ranking network reads of a view's articles."""

    category_sizes = (4,)

    def category_matrix(self) -> np.ndarray:
        return CATEGORIES


# A view of nothing else than these, and of the number of customers.
VIEW: Any = SimpleNamespace(articles=Articles(), timelines=SimpleNamespace(num_customers=60))


def make_week(seed: int, *, num_customers: int = 60) -> RankerWeek:
    """Lists of 3 to 9 candidates; a large first number, or an unknown one, is what is bought. One customer has no candidate."""
    random = np.random.default_rng(seed)
    length = random.integers(3, 10, num_customers)
    length[5] = 0
    customer = np.repeat(np.arange(num_customers, dtype=np.int32), length)
    features = random.normal(size=(len(customer), 3)).astype(np.float32)
    features[random.random(len(customer)) < 0.1, 0] = np.nan
    features[:, 2] = 1.0
    chance = 1 / (1 + np.exp(-(4 * np.nan_to_num(features[:, 0], nan=1.5) - 4)))
    is_bought = random.random(len(customer)) < chance
    return RankerWeek(
        customer=customer,
        customer_index=np.arange(2, 2 + num_customers, dtype=np.int32),
        article_index=random.integers(2, 12, len(customer)).astype(np.int32),
        features=features,
        is_bought=is_bought,
        num_orders=is_bought.astype(np.int32),
        quantity=is_bought.astype(np.float32) * 2,
    )


WEEKS = [make_week(seed) for seed in (1, 2)]


def auc(score: np.ndarray, is_bought: np.ndarray) -> float:
    return float((score[is_bought][:, np.newaxis] > score[~is_bought][np.newaxis, :]).mean())


def check_attributions(ranker: Ranker, week: RankerWeek) -> None:
    """They add up to the differences of scores, and most is due to the number that tells purchases apart."""
    rows = slice(0, 40)
    customer_index = week.customer_index[week.customer]
    found = ranker.attribute(week.features[rows], week.article_index[rows], customer_index[rows], num_compared=40)
    score = score_week(ranker, week)[rows]
    # What is compared with is the same for all.
    assert np.diff(found.sum(axis=1)) == pytest.approx(np.diff(score), abs=0.05)
    assert np.abs(found).mean(axis=0).argmax() == 0
    assert np.abs(found[:, 2]).max() < 1e-5
    # What is asked for beside them changes nothing.
    more = slice(0, 60)
    beside = ranker.attribute(week.features[more], week.article_index[more], customer_index[more], num_compared=40)
    np.testing.assert_allclose(beside[rows], found, atol=1e-5)


@pytest.mark.parametrize("loss", ["pointwise", "listwise", "lambdarank"])
def test_trees_learn_the_pattern_and_stop_by_the_held_out_week(
    loss: str, skip_or_fail: Callable[[str], NoReturn]
) -> None:
    try:
        import lightgbm  # noqa: F401
    except ImportError:
        skip_or_fail("the package lightgbm is not installed")
    settings = TREES.model_copy(update={"loss": loss})
    later = make_week(3)
    chosen, rounds = fit_trees(WEEKS, settings, CONTEXT, held_out=later)
    assert 1 <= rounds <= 40
    assert auc(score_week(chosen, later), later.is_bought) > 0.85
    again, same_rounds = fit_trees(WEEKS, settings, CONTEXT, num_rounds=rounds)
    assert same_rounds == rounds
    np.testing.assert_allclose(score_week(again, later), score_week(chosen, later), rtol=1e-6)
    loaded = load_ranker(*chosen.state())
    np.testing.assert_array_equal(score_week(loaded, later), score_week(chosen, later))
    check_attributions(loaded, later)


def test_a_network_learns_the_pattern_and_is_loaded() -> None:
    later, judged = make_week(3), []

    def validate(ranker: object) -> dict[str, float]:
        judged.append(auc(score_week(ranker, later), later.is_bought))
        return {"val_map@3": judged[-1]}

    ranker, best = fit_network(WEEKS, NETWORK, VIEW, CONTEXT, validate=validate)
    assert best == int(np.argmax(judged)) + 1
    assert max(judged) > 0.85
    loaded = load_ranker(*ranker.state())
    np.testing.assert_array_equal(score_week(loaded, later), score_week(ranker, later))
    check_attributions(loaded, later)
    again, _best = fit_network(WEEKS, NETWORK, VIEW, CONTEXT, epochs=best)
    np.testing.assert_allclose(score_week(again, later), score_week(ranker, later), rtol=1e-4, atol=1e-5)


def test_sampled_lists_hold_all_purchases_and_weigh_as_much_as_all_candidates() -> None:
    week = make_week(4)
    (batch, *others) = list(make_list_dataset([week], NETWORK, seed=1).as_numpy_iterator())
    whole = [batch, *others]
    has_bought = np.unique(week.customer[week.is_bought])
    listed = np.concatenate([part["customer_index"] for part in whole])
    assert sorted(listed.tolist()) == week.customer_index[has_bought].tolist()
    for part in whole:
        for row, customer_index in enumerate(part["customer_index"]):
            rows = week.customer == customer_index - 2
            label, weight = part["label"][row], part["weight"][row]
            assert (label == 1).sum() == week.is_bought[rows].sum()
            assert weight[label == 0].sum() == pytest.approx((~week.is_bought[rows]).sum(), rel=1e-6)
            assert (weight[label == 1] == 1).all()
            assert (label >= 0).sum() <= max(6, week.is_bought[rows].sum() + 1)
            taken = part["features"][row][label >= 0, 1]
            assert len(np.unique(taken)) == len(taken)
            assert set(taken.tolist()) <= set(week.features[rows, 1].tolist())


def test_calibration_turns_scores_into_probabilities() -> None:
    random = np.random.default_rng(1)
    logit = random.normal(-1, 2, 100_000)
    is_bought = random.random(len(logit)) < 1 / (1 + np.exp(-logit))
    slope, offset, mean, deviation = calibrate(3 * logit - 5, is_bought)
    assert slope == pytest.approx(1 / 3, rel=0.05)
    assert offset == pytest.approx(5 / 3, rel=0.05)
    # An order is never turned round, and nothing is made of nothing.
    assert (mean, deviation) == pytest.approx((np.mean(3 * logit - 5), np.std(3 * logit)))
    assert calibrate(-logit, is_bought)[:2] == (1.0, 0.0)
    assert calibrate(logit, np.zeros(len(logit), bool))[:2] == (1.0, 0.0)


def test_a_calibration_is_carried_over_to_scores_that_lie_elsewhere_and_are_wider() -> None:
    score = np.random.default_rng(1).normal(size=1000)
    calibration = Calibration(slope=0.5, offset=-2.0, mean=float(score.mean()), deviation=float(score.std()))
    slope, offset = calibration.carry_over(4 * score + 7)
    assert slope * (4 * score + 7) + offset == pytest.approx(0.5 * score - 2)
    assert calibration.carry_over(score[:0]) == (0.5, -2.0)
    # Scores of one value keep the slope, and lie where the mean did.
    slope, offset = calibration.carry_over(np.full(3, 9.0))
    assert (slope, slope * 9 + offset) == (0.5, pytest.approx(0.5 * score.mean() - 2))


@pytest.mark.parametrize("bought", [False, True])
def test_weeks_with_only_one_class_are_refused(bought: bool) -> None:
    week = make_week(1)
    alone = RankerWeek(**{**vars(week), "is_bought": np.full(len(week.customer), bought)})
    with pytest.raises(InputError, match=r"two_stage: of 3\d\d candidates in 1 past week.*weeks"):
        fit_network([alone], NETWORK, VIEW, CONTEXT)


def test_a_week_is_stored_whole(tmp_path: Path) -> None:
    week = WEEKS[0]
    week.save(tmp_path / "week.npz")
    loaded = RankerWeek.load(tmp_path / "week.npz")
    for name, values in vars(week).items():
        np.testing.assert_array_equal(getattr(loaded, name), values)
    assert week.row_splits[6] - week.row_splits[5] == 0
    assert tf.reduce_sum(tf.constant(np.diff(week.row_splits))).numpy() == len(week.customer)


def test_bins_are_fine_where_purchases_lie() -> None:
    random = np.random.default_rng(1)
    value = random.random(20_000).astype(np.float32)
    is_bought = value > 0.95
    nothing = np.zeros(len(value), np.int32)
    week = RankerWeek(
        customer=nothing,
        customer_index=np.array([2], np.int32),
        article_index=nothing + 2,
        features=value[:, np.newaxis],
        is_bought=is_bought,
        num_orders=nothing,
        quantity=value,
    )
    edges = np.quantile(draw_for_bins([week], random)[:, 0], np.linspace(0, 1, 17))
    # Half of the 16 bins lie where everything that was bought does, and not one of them.
    assert (edges > 0.95).sum() in {8, 9}
    # Where little is bought, there are others to go by.
    few = draw_for_bins([dataclasses.replace(week, is_bought=value > 0.9999)], random)
    assert 1_000 <= len(few) <= 1_010


def test_an_empty_week_changes_nothing(skip_or_fail: Callable[[str], NoReturn]) -> None:
    """Where every buyer of a week is new, its lists are of nobody."""
    week = make_week(1)
    nobody = RankerWeek(**{name: values[:0] for name, values in vars(week).items()})
    alone, beside = (fit_network(weeks, NETWORK, VIEW, CONTEXT, epochs=2)[0] for weeks in ([week], [week, nobody]))
    np.testing.assert_array_equal(score_week(alone, week), score_week(beside, week))
    try:
        import lightgbm  # noqa: F401
    except ImportError:
        skip_or_fail("the package lightgbm is not installed")
    alone, beside = (fit_trees(weeks, TREES, CONTEXT, num_rounds=5)[0] for weeks in ([week], [week, nobody]))
    np.testing.assert_array_equal(score_week(alone, week), score_week(beside, week))


def test_explaining_trees_needs_the_package_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    trees = TreesRanker(Trees(read_trees({"tree_info": []})), "", calibration=(1.0, 0.0))
    nothing = np.zeros(1, np.int32)
    with pytest.raises(InputError, match=r"pip install 'tfrs-fashion\[baselines\]'"):
        trees.attribute(np.zeros((1, 2), np.float32), nothing, nothing, num_compared=1)
