"""Pools, quotas, the selector and what a blend answers, by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.models.selector import Selector
from tfrs_fashion.recommenders.blend.blend import Blend
from tfrs_fashion.recommenders.blend.fit import fit_quotas, fit_selector_of, quota_scores, selector_scores
from tfrs_fashion.recommenders.blend.labelled_pool import LabelledPool
from tfrs_fashion.recommenders.blend.pool import make_pool
from tfrs_fashion.recommenders.kinds import load_recommender
from tfrs_fashion.recommenders.popularity import Popularity
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.repurchase import Repurchase
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.rankers import BlendConfig

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]
# Customer 2 bought 5 twice and 4 once, customer 3 bought 2; everyone is shown 2, 3, 4.
ROWS = [(2, 5, 3), (2, 5, 8), (2, 4, 9), (3, 2, 9)]

NOTHING = np.zeros((8, 0), np.float32)


def make_generators() -> dict[str, Recommender]:
    popular = Popularity(np.array([2, 3, 4], np.int32), np.array([9.0, 5.0, 1.0], np.float32), name="popular")
    return {"again": Repurchase(name="again"), "popular": popular}


def make_labelled(
    rank: Sequence[Sequence[int]], is_bought: Sequence[bool], customer: Sequence[int], num_bought: Sequence[int]
) -> LabelledPool:
    ranks = np.array(rank, np.int16)
    return LabelledPool(
        customer=np.array(customer, np.int32),
        customer_index=np.arange(2, 2 + len(num_bought), dtype=np.int32),
        article_index=np.arange(2, 2 + len(ranks), dtype=np.int32),
        score=np.where(ranks > 0, 1.0 / np.maximum(ranks, 1), 0.0).astype(np.float32),
        rank=ranks,
        context=np.ones((len(ranks), 2), np.float32),
        article_features=np.zeros((2 + len(ranks), 1), np.float32),
        is_bought=np.array(is_bought),
        num_bought=np.array(num_bought, np.int32),
    )


def test_a_pool_holds_each_candidate_once_with_the_scores_of_all_generators(make_view: MakeView) -> None:
    view = make_view(ROWS)
    customers = np.array([2, 1, 3], np.int32)
    pool = make_pool(
        list(make_generators().values()),
        HistoryTable(view.timelines, view.profiles)(tf.constant(customers)),
        now=tf.constant(view.now[customers]),
        num_candidates=2,
        exclude=tf.zeros([3, 0], tf.int32),
    )
    found = {
        (int(row), int(article)): (rank.tolist(), score.tolist(), events.tolist())
        for row, article, rank, score, events in zip(
            *(pool.row.numpy(), pool.article_index.numpy(), pool.rank.numpy(), pool.score.numpy()),
            pool.context.numpy(),
            strict=True,
        )
    }
    assert found == {
        (0, 5): ([1, 0], [2, 0], [3.0, 1.5]),
        (0, 4): ([2, 0], [1, 0], [3.0, 1.5]),
        (0, 2): ([0, 1], [0, 9], [3.0, 1.5]),
        (0, 3): ([0, 2], [0, 5], [3.0, 1.5]),
        (1, 2): ([0, 1], [0, 9], [0.0, 0.0]),
        (1, 3): ([0, 2], [0, 5], [0.0, 0.0]),
        (2, 2): ([1, 1], [1, 9], [1.0, 1.5]),
        (2, 3): ([0, 2], [0, 5], [1.0, 1.5]),
    }
    assert (np.diff(pool.row.numpy()) >= 0).all()


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        # One of each in turn, the first generator first where they are level.
        ([1.0, 1.0], [5, 2, 4, 3]),
        # Three of what was bought for each popular one: places 1/3, 2/3 and 1.
        ([3.0, 1.0], [5, 4, 2, 3]),
        ([0.0, 1.0], [2, 3, 4]),
        ([1.0, 0.0], [5, 4]),
    ],
)
def test_quotas_set_the_pace_at_which_generators_are_read(
    make_view: MakeView, quotas: list[float], expected: list[int], tmp_path: Path
) -> None:
    view = make_view(ROWS)
    blend = Blend(make_generators(), num_candidates=3, quotas=np.array(quotas, np.float32), article_features=NOTHING)
    assert not blend.needs_history
    blend.save(tmp_path)
    loaded = load_recommender(tmp_path)
    for asked in (blend, loaded):
        found = rank_customers(asked, view, np.array([2], np.int32), k=9)
        assert found["article_index"].tolist() == expected


def test_the_source_is_the_generator_that_ranked_an_article_highest(make_view: MakeView) -> None:
    view = make_view(ROWS)
    blend = Blend(make_generators(), num_candidates=3, quotas=np.ones(2, np.float32), article_features=NOTHING)
    customers = np.array([2, 1], np.int32)
    found = blend(
        HistoryTable(view.timelines, view.profiles)(tf.constant(customers)),
        now=tf.constant(view.now[customers]),
        k=tf.constant(6),
        exclude=tf.constant([[3], [0]]),
    )
    assert found.article_index.numpy().tolist() == [[5, 2, 4, 0, 0, 0], [2, 3, 4, 0, 0, 0]]
    assert found.source.numpy().tolist() == [
        [b"again", b"popular", b"again", b"", b"", b""],
        [b"popular", b"popular", b"popular", b"", b"", b""],
    ]
    # Place 2 of 4's own list for customer 2: it moved up as 3 was excluded.
    assert found.score.numpy().tolist() == [[-1, -1, -2, 0, 0, 0], [-1, -2, -3, 0, 0, 0]]


def test_a_blend_with_a_selector_is_saved_and_loaded(make_view: MakeView, tmp_path: Path) -> None:
    view = make_view(ROWS)
    selector = Selector(num_generators=2, num_candidates=3, num_article_features=1, hidden_dims=(4,), seed=5)
    selector.adapt(
        np.array([[2, 9], [0, 1.0]], np.float32),
        np.array([[1, 1], [0, 3]], np.float32),
        np.ones((2, 2)),
        np.ones((2, 1)),
    )
    known = np.arange(8, dtype=np.float32)[:, np.newaxis]
    known[3] = np.nan
    blend = Blend(
        make_generators(),
        num_candidates=3,
        quotas=np.ones(2, np.float32),
        article_features=known,
        selector=selector,
        hidden_dims=(4,),
    )
    blend.save(tmp_path)
    loaded = load_recommender(tmp_path)
    customers = np.array([1, 2, 3], np.int32)
    lists = [rank_customers(asked, view, customers, k=4) for asked in (blend, loaded)]
    assert lists[0].equals(lists[1])
    assert sorted(lists[0].loc[lists[0]["customer_index"] == 2, "article_index"]) == [2, 3, 4, 5]


def test_recall_of_a_pool_counts_the_best_of_each_customer() -> None:
    # Customer 0 bought one thing, at the second place by score; customer 1 two, one of which has no candidate.
    pool = make_labelled([[1], [2], [1], [2]], [False, True, True, False], [0, 0, 1, 1], [1, 2])
    score = np.array([0.9, 0.5, 0.8, 0.7])
    assert pool.recall(score, k=1) == (0 + 1 / 2) / 2
    assert pool.recall(score, k=2) == (1 + 1 / 2) / 2


def test_quotas_go_to_the_generator_with_most_purchases_per_new_candidate() -> None:
    # Twenty candidates of each of two generators for one customer; the first names the bought ones at 1 to 5, the
    # second at 11 to 14; what both name costs once.
    first = [[place, 0] for place in range(1, 21)]
    second = [[0, place] for place in range(1, 21)]
    is_bought = [place <= 5 for place in range(1, 21)] + [11 <= place <= 14 for place in range(1, 21)]
    pool = make_labelled(first + second, is_bought, [0] * 40, [9])
    # Ten of the first hold five; its next ten none, nor do the second's first ten, so that reading stops.
    assert fit_quotas([pool], budget=40).tolist() == [10, 0]
    # Twenty of the second hold four, which pays less than the first's ten, and more than nothing.
    assert fit_quotas([pool], budget=40, step=20).tolist() == [20, 20]
    assert fit_quotas([pool], budget=10, step=20).tolist() == [20, 0]


def test_pools_without_a_purchase_are_refused() -> None:
    pool = make_labelled([[1, 0], [0, 1]], [False, False], [0, 0], [3])
    with pytest.raises(
        InputError, match=r"blend: none of 2 candidates of 1 customers was bought .* Raise the blend's `weeks`"
    ):
        fit_quotas([pool], budget=10)


def test_scores_of_quotas_are_those_of_the_blend() -> None:
    rank = np.array([[1, 0], [4, 1], [0, 6], [0, 0]])
    assert quota_scores(rank, np.array([2.0, 3.0])).tolist() == [-0.5, -1 / 3, -2.0, -np.inf]
    assert quota_scores(rank, np.array([2.0, 0.0])).tolist() == [-0.5, -2.0, -np.inf, -np.inf]


def test_a_selector_learns_which_generator_names_purchases(tmp_path: Path) -> None:
    """The second generator names what is bought; the first names anything, and higher up."""
    random = np.random.default_rng(2)
    customers, each = 300, 8
    customer = np.repeat(np.arange(customers), each)
    position = np.tile(np.arange(each), customers)
    rank = np.stack([position + 1, np.where(position >= 5, position - 4, 0)], axis=1)
    is_bought = (position >= 5) & (random.random(len(position)) < 0.8)
    num_bought = np.maximum(np.bincount(customer[is_bought], minlength=customers), 1)
    pool = make_labelled(rank.tolist(), is_bought.tolist(), customer.tolist(), num_bought.tolist())
    pool.save(tmp_path / "pool.npz")
    blend = BlendConfig(
        num_candidates=each, hidden_dims=(8,), epochs=6, batch_size=64, learning_rate=0.01, negative_share=0.5
    )
    selector = fit_selector_of(blend, [LabelledPool.load(tmp_path / "pool.npz")], seed=1)
    found = selector_scores(selector, pool, batch_size=1000)
    assert pool.recall(found, k=3) == pytest.approx(np.isin(np.arange(customers), customer[is_bought]).mean())
    assert pool.recall(-rank[:, 0], k=3) == 0.0
    again = fit_selector_of(blend, [pool], seed=1)
    assert selector_scores(again, pool).tolist() == pytest.approx(found.tolist())
