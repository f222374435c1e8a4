"""Checks of collapse on hand-made tables, on both sides of their thresholds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_fashion.evaluation.checks.collapse import (
    effective_rank,
    find_concentrated_exposure,
    find_low_rank,
    find_popularity_copy,
    find_same_list,
    list_keys,
)

CUSTOMERS = np.arange(2, 42)
POPULAR = [90, 91, 92]


def make_candidates(lists: dict[int, list[int]]) -> pd.DataFrame:
    rows = [(customer, article, rank) for customer, shown in lists.items() for rank, article in enumerate(shown, 1)]
    return pd.DataFrame(rows, columns=["customer_index", "article_index", "rank"])


def mostly(num_same: int, customers: np.ndarray = CUSTOMERS) -> pd.DataFrame:
    """Gives the first customers the popular list, in either order, and each other customer a list of its own."""
    lists = {}
    for place, customer in enumerate(customers):
        own = POPULAR[:: 1 if place % 2 else -1] if place < num_same else [100 + 3 * place + step for step in range(3)]
        lists[int(customer)] = own
    return make_candidates(lists)


@given(st.lists(st.lists(st.integers(2, 8), unique=True, min_size=1, max_size=4), min_size=1, max_size=8))
def test_list_keys_are_equal_exactly_for_equal_sets(lists: list[list[int]]) -> None:
    keys = list_keys(make_candidates(dict(enumerate(lists, 2))), k=3)
    assert list(keys.index) == list(range(2, 2 + len(lists)))
    for first, one in zip(keys, lists, strict=True):
        for second, other in zip(keys, lists, strict=True):
            assert (first == second) == (set(one[:3]) == set(other[:3]))


def test_empty_candidates_have_no_finding() -> None:
    assert list_keys(make_candidates({}), k=3).empty
    assert find_same_list(make_candidates({}), CUSTOMERS, k=3, num_rankable=99, recommender="als") is None


@pytest.mark.parametrize(("num_same", "is_found"), [(20, False), (21, True), (40, True)])
def test_list_shared_by_more_than_half_the_customers_is_found(num_same: int, is_found: bool) -> None:
    found = find_same_list(mostly(num_same), CUSTOMERS, k=3, num_rankable=99, recommender="als")
    assert (found is not None) == is_found
    if found is not None:
        assert (found.kind, found.severity, found.check) == ("collapse", "error", "same_list_for_everyone")
        assert found.seen == f"{num_same} of 40 customers with a history get the same 3 articles."


def test_list_shared_by_cold_start_customers_is_no_finding() -> None:
    cold_start = mostly(60, np.arange(100, 160))
    both = pd.concat([mostly(10), cold_start])
    assert find_same_list(both, CUSTOMERS, k=3, num_rankable=99, recommender="als") is None


def test_few_customers_or_articles_give_no_finding() -> None:
    assert find_same_list(mostly(40), CUSTOMERS[:19], k=3, num_rankable=99, recommender="als") is None
    assert find_same_list(mostly(40), CUSTOMERS[:20], k=3, num_rankable=99, recommender="als") is not None
    assert find_same_list(mostly(40), CUSTOMERS, k=3, num_rankable=5, recommender="als") is None
    assert find_same_list(mostly(40), CUSTOMERS, k=3, num_rankable=6, recommender="als") is not None


@pytest.mark.parametrize(("num_same", "is_found"), [(20, False), (21, True)])
def test_copy_of_popularity_is_found(num_same: int, is_found: bool) -> None:
    everyone = make_candidates({int(customer): POPULAR for customer in CUSTOMERS})
    found = find_popularity_copy(
        mostly(num_same), everyone, CUSTOMERS, k=3, num_rankable=6, recommender="als", popularity="popularity_7d"
    )
    assert (found is not None) == is_found
    if found is not None:
        assert found.seen == "21 of 40 customers with a history get the 3 articles of popularity_7d."


def test_copy_of_personalised_popularity_is_found_customer_by_customer() -> None:
    # Each customer gets popularity's list for that customer; shifted by one customer, nobody does.
    def copied(own: pd.DataFrame, num: int = 40) -> bool:
        found = find_popularity_copy(
            own, mostly(0), CUSTOMERS[:num], k=3, num_rankable=99, recommender="als", popularity="popularity_by_age"
        )
        return found is not None

    assert copied(mostly(0))
    assert not copied(mostly(0), num=19)
    assert not copied(mostly(0).assign(customer_index=lambda rows: (rows["customer_index"] - 1) % 40 + 2))


def exposed(extra: int) -> bool:
    """Whether lists of eight are found whose last place rotates over `extra` articles."""
    lists = {int(customer): [*range(2, 9), 10 + place % extra] for place, customer in enumerate(CUSTOMERS)}
    found = find_concentrated_exposure(
        make_candidates(lists), CUSTOMERS, k=8, rankable=np.arange(2, 102), recommender="als"
    )
    if found is not None:
        assert (found.severity, found.check) == ("warning", "concentrated_exposure")
    return found is not None


def gini_worth(exposures: list[int]) -> float:
    """Computes (1 - Gini) N of 100 articles by the mean absolute difference of all pairs."""
    shown = np.array([*exposures, *[0] * (100 - len(exposures))], dtype=float)
    gini = np.abs(shown[:, None] - shown[None, :]).mean() / (2 * shown.mean())
    return float((1 - gini) * 100)


def test_exposure_is_concentrated_below_a_quarter_more_articles_than_a_list() -> None:
    for extra in (1, 2, 5, 10, 20, 40):
        # Seven articles are shown to all 40 customers, the others to 40 / extra each. A quarter more than eight is ten.
        assert exposed(extra) == (gini_worth([40] * 7 + [40 // extra] * extra) < 10)
    assert exposed(2)
    assert not exposed(40)


def test_concentration_needs_enough_customers_and_articles() -> None:
    same = make_candidates({int(customer): POPULAR for customer in CUSTOMERS})

    def found(customers: np.ndarray, num_rankable: int) -> bool:
        rankable = np.arange(90, 90 + num_rankable)
        return find_concentrated_exposure(same, customers, k=3, rankable=rankable, recommender="als") is not None

    assert found(CUSTOMERS, 12)
    assert not found(CUSTOMERS, 11)
    assert not found(CUSTOMERS[:19], 12)


def test_effective_rank_of_small_matrices_equals_hand_worked_values() -> None:
    assert effective_rank(np.eye(5)) == pytest.approx(5)
    assert effective_rank(np.ones((7, 3))) == pytest.approx(1)
    assert effective_rank(np.zeros((7, 3))) == 0
    # Singular values 3 and 1: the shares 3/4 and 1/4.
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank(np.diag([3.0, 1.0, 0.0])) == pytest.approx(np.exp(entropy))


def directions(num: int, width: int, *, num_rows: int = 200) -> np.ndarray:
    """Makes rows along `num` of the axes, equally often: the effective rank is their number."""
    return np.eye(width)[np.arange(num_rows) % num]


@pytest.mark.parametrize(
    ("num", "width", "is_found"),
    [(3, 16, True), (4, 16, False), (6, 64, True), (7, 64, False), (1, 4, True), (2, 4, False)],
)
def test_embedding_of_low_effective_rank_is_found(num: int, width: int, is_found: bool) -> None:
    found = find_low_rank(directions(num, width, num_rows=420), recommender="two_tower")
    assert (found is not None) == is_found
    if found is not None:
        assert (found.kind, found.check) == ("collapse", "embedding_rank")
        assert f"420 embeddings of width {width} have an effective rank of {num}.0" in found.seen


def test_nearly_equal_embeddings_are_found() -> None:
    random = np.random.default_rng(0)
    spread = random.normal(size=(300, 32))
    assert find_low_rank(spread, recommender="two_tower") is None
    assert find_low_rank(1 + 1e-3 * spread, recommender="two_tower") is not None


def test_few_embeddings_give_no_finding_unless_one_is_not_finite() -> None:
    few = np.ones((15, 16))
    assert find_low_rank(few, recommender="two_tower") is None
    few[3, 2] = np.nan
    found = find_low_rank(few, recommender="two_tower")
    assert found is not None
    assert found.seen == "1 of 15 embeddings hold NaN or infinite numbers."
