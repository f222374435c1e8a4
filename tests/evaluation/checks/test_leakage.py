"""Checks of leakage on hand-made tables, on both sides of their thresholds."""

import datetime
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_fashion.evaluation.checks.finding import Finding
from tfrs_fashion.evaluation.checks.leakage import (
    feature_auc,
    find_beaten_repeat_oracle,
    find_foreseen_purchases,
    find_future_rows,
    find_labels_in_features,
    find_late_generators,
    find_random_split,
    find_telling_features,
    find_test_purchases,
    repeat_oracle,
)

Lists = dict[int, list[int]]


def make_candidates(lists: Lists) -> pd.DataFrame:
    rows = [(customer, article, rank) for customer, shown in lists.items() for rank, article in enumerate(shown, 1)]
    return pd.DataFrame(rows, columns=["customer_index", "article_index", "rank"])


def make_pairs(bought: Lists) -> pd.DataFrame:
    rows = [(customer, article) for customer, articles in bought.items() for article in articles]
    return pd.DataFrame(rows, columns=["customer_index", "article_index"], dtype="int64")


def make_rows(*rows: tuple[int, int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["customer_index", "article_index", "time", "basket"])


def seen(finding: Finding | None) -> str:
    assert finding is not None
    assert (finding.kind, finding.severity) == ("leakage", "error")
    return finding.seen


def test_row_at_the_cutoff_is_found_and_row_before_it_is_not() -> None:
    customers, cutoff = np.array([2, 3, 4]), np.array([10, 10, 7])
    assert find_future_rows(customers, np.array([9, 9, 6]), cutoff) is None
    found = find_future_rows(customers, np.array([9, 10, 8]), cutoff, where="timelines")
    assert seen(found).startswith("2 of 3 customers have visible timelines at or after their cutoff")
    assert "customer_index 3, 4." in seen(found)


def test_future_rows_are_found_by_timestamps() -> None:
    instants = np.array(["2024-01-01", "2024-01-01T23:59:59.999999"], dtype="datetime64[us]")
    midnight = np.array(["2024-01-02"] * 2, dtype="datetime64[us]")
    assert find_future_rows(np.array([2, 3]), instants, midnight) is None
    assert find_future_rows(np.array([2, 3]), instants, instants) is not None


def test_repeat_purchase_is_no_leak() -> None:
    assert find_test_purchases(make_rows((2, 5, 1, "a")), make_rows((2, 5, 9, "b"))) is None


def test_target_among_visible_rows_is_found_by_its_instant() -> None:
    visible = make_rows((2, 5, 1, "a"), (2, 5, 9, "other"), (3, 6, 2, "c"))
    targets = make_rows((2, 5, 9, "b"), (2, 6, 9, "b"), (3, 6, 9, "d"))
    assert seen(find_test_purchases(visible, targets)).startswith("1 of 3 target purchases")
    # Other customers and articles may share the instant.
    assert find_test_purchases(make_rows((2, 7, 9, "b"), (4, 6, 9, "b")), targets) is None


@pytest.mark.parametrize(("num_shared", "is_found"), [(0, False), (1, False), (2, True)])
def test_more_than_one_percent_of_shared_baskets_is_found(num_shared: int, is_found: bool) -> None:
    # One line in a hundred is allowed: tills restart their receipt numbers.
    targets = make_rows(*((2, article, 9, f"b{article}") for article in range(100)))
    visible = make_rows(*((2, article, 1, f"b{article}" if article < num_shared else "old") for article in range(100)))
    found = find_test_purchases(visible, targets)
    assert (found is not None) == is_found
    if found is not None:
        assert seen(found).startswith("2 of 100 target purchases are also visible rows")
        assert "and basket" in found.seen


@pytest.mark.parametrize(("num_earlier", "is_found"), [(0, False), (1, False), (2, True)])
def test_more_than_ten_percent_of_targets_before_visible_rows_is_found(num_earlier: int, is_found: bool) -> None:
    # Customer 2's last visible row is at 5. Of ten targets one may lie before it.
    visible = make_rows((2, 5, 1, "a"), (2, 6, 5, "b"), (4, 5, 99, "c"))
    targets = make_rows(*((2, 7, 4 if number < num_earlier else 5, "d") for number in range(9)), (3, 7, 0, "e"))
    found = find_random_split(visible, targets)
    assert (found is not None) == is_found
    if found is not None:
        assert seen(found).startswith("2 of 10 target purchases (20%)")


def test_empty_tables_are_no_random_split() -> None:
    assert find_random_split(make_rows(), make_rows((2, 5, 1, "a"))) is None
    assert find_random_split(make_rows((2, 5, 1, "a")), make_rows()) is None


@given(st.lists(st.tuples(st.integers(2, 5), st.integers(0, 20)), min_size=1), st.integers(0, 20))
def test_split_by_time_is_never_a_finding(rows: list[tuple[int, int]], cutoff: int) -> None:
    frame = make_rows(*((customer, 7, time, f"{customer} {time}") for customer, time in rows))
    before = frame["time"] < cutoff
    assert find_random_split(frame[before], frame[~before]) is None
    assert find_test_purchases(frame[before], frame[~before]) is None


def test_generator_fitted_beyond_the_first_week_is_found() -> None:
    week = datetime.datetime(2024, 3, 4)
    fitted = {"als": week, "item_knn": week + datetime.timedelta(seconds=1), "two_tower": datetime.datetime(2024, 2, 1)}
    (found,) = find_late_generators(fitted, first_week=week, ranker="two_stage")
    assert found.recommender == "two_stage"
    assert seen(found) == (
        "item_knn was fitted on rows until 2024-03-04 00:00:01, but the ranker's labels begin on 2024-03-04 00:00:00."
    )


def test_feature_auc_equals_hand_worked_values() -> None:
    # Positives 3 and 1 against 2, 1 and 0: 3 wins three times; 1 wins once and ties once. 4.5 of 6.
    assert feature_auc(np.array([3, 1, 2, 1, 0]), np.array([1, 1, 0, 0, 0])) == pytest.approx(4.5 / 6)
    # The opposite direction separates equally well.
    assert feature_auc(-np.array([3, 1, 2, 1, 0]), np.array([1, 1, 0, 0, 0])) == pytest.approx(4.5 / 6)
    # Known only for purchases: missing values separate perfectly, whatever the values.
    assert feature_auc(np.array([-5, 7, np.nan, np.nan]), np.array([1, 1, 0, 0])) == 1
    # Missing values separate best on the far side of the other negatives.
    assert feature_auc(np.array([-5, -3, 2, 9, np.nan]), np.array([1, 1, 0, 0, 0])) == 1
    assert feature_auc(np.array([5, 3, -2, -9, np.nan]), np.array([1, 1, 0, 0, 0])) == 1
    assert feature_auc(np.zeros(4), np.array([1, 0, 0, 0])) == 0.5


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2))
def test_feature_auc_agrees_with_counting_pairs(rows: list[tuple[int, bool]]) -> None:
    positive = [value for value, label in rows if label]
    negative = [value for value, label in rows if not label]
    if not positive or not negative:
        return
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(positive, negative))
    area = wins / (len(positive) * len(negative))
    values, labels = (np.array(column) for column in zip(*rows, strict=True))
    assert feature_auc(values, labels) == pytest.approx(max(area, 1 - area))


def features_of(num_wrong: int, *, num: int = 100) -> tuple[pd.DataFrame, np.ndarray]:
    """Makes `leak`, the label except for some positives that look like negatives, and `noise`."""
    labels = np.repeat([True, False], num)
    leak = labels.astype(float)
    leak[:num_wrong] = 0
    return pd.DataFrame({"leak": leak, "noise": np.tile([0, 1], num), "words": "a"}), labels


@pytest.mark.parametrize(("num_wrong", "is_found"), [(0, True), (1, True), (2, False), (5, False)])
def test_feature_that_equals_the_label_is_found(num_wrong: int, is_found: bool) -> None:
    # Each positive that looks like a negative ties with all of them: the AUC is 1 - num_wrong / 200, .99 with two.
    features, labels = features_of(num_wrong)
    found = find_telling_features(features, labels, recommender="two_stage")
    assert [finding.check for finding in found] == ["telling_feature"] * is_found
    if found:
        assert f"`leak` alone has an AUC of {1 - num_wrong / 200:.4f} over 200 examples" in seen(found[0])
        assert found[0].seen.endswith("the best other feature has 0.5000.")


def test_two_telling_features_are_both_found_and_few_labels_give_no_finding() -> None:
    features, labels = features_of(0)
    features["leak too"] = -features["leak"]
    assert len(find_telling_features(features, labels, recommender="two_stage")) == 2
    features, labels = features_of(0, num=99)
    assert find_telling_features(features, labels, recommender="two_stage") == []


def test_repeat_oracle_equals_hand_worked_fractions() -> None:
    targets = make_pairs({2: [5, 6, 7], 3: [5], 4: [5, 6, 7, 8]})
    bought = make_pairs({2: [6, 9], 4: [5, 6, 7, 8], 9: [5]})
    # Customer 2: one of three is a repeat; 3: none; 4: four repeats, two places.
    assert repeat_oracle(targets, bought, k=2).to_dict() == {2: 1 / 2, 3: 0, 4: 2 / 2}
    assert repeat_oracle(targets, bought, k=12).to_dict() == {2: 1 / 3, 3: 0, 4: 4 / 4}


def repeaters(num: int, *, num_bought: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Makes customers who buy article 10 again, one of `num_bought` bought before, and article 90 for the first time."""
    customers = range(2, 2 + num)
    targets = make_pairs({customer: [10, 90] for customer in customers})
    return targets, make_pairs({customer: list(range(10, 10 + num_bought)) for customer in customers})


def beaten(lists: list[int], *, num: int = 20, num_bought: int = 4) -> Finding | None:
    targets, bought = repeaters(num, num_bought=num_bought)
    candidates = make_candidates({customer: lists for customer in range(2, 2 + num)})
    return find_beaten_repeat_oracle(candidates, targets, bought, k=3, recommender="als")


def test_lists_as_good_as_the_repeat_oracle_are_found() -> None:
    # The oracle has one hit of two targets: AP 1/2. A list that has the repeat first has just that.
    assert "map@3 is 0.5000" in seen(beaten([10, 11, 12]))
    # Second place: AP 1/4, half the oracle. All targets: AP 1.
    assert beaten([11, 10, 12]) is None
    assert "map@3 is 1.0000" in seen(beaten([90, 10, 12]))


def test_short_histories_and_few_customers_give_no_finding() -> None:
    assert beaten([10, 11, 12], num_bought=3) is None
    assert beaten([10, 11, 12], num=19) is None


def foreseen(num_found: int, *, num_customers: int = 100, popular: int = 0) -> Finding | None:
    """Checks lists of one article; each customer buys a new article of their own, except `popular` who buy article 7."""
    bought = {customer: [7 if customer < 100 + popular else customer] for customer in range(100, 100 + num_customers)}
    last = 100 + num_customers
    shown = {customer: bought[customer] if customer >= last - num_found else [5] for customer in bought}
    nothing = make_pairs({})
    return find_foreseen_purchases(make_candidates(shown), make_pairs(bought), nothing, k=1, recommender="als")


def test_foreseen_purchases_are_found_by_odds_against_the_best_single_list() -> None:
    # One list for all finds one of a hundred: its odds are 1.5 / 99.5. Thirty times those are passed at 31 of 100:
    # 31.5 / 69.5 = 0.453 against 0.452.
    assert foreseen(30) is None
    assert "contain 31.0% of 100 purchases" in seen(foreseen(31))
    # Where 20 of 100 buy the same, its odds are 20.5 / 80.5 = 0.255. Ten times those are passed at 72 of 100:
    # 72.5 / 28.5 = 2.544 against 2.547 at 72, 2.67 at 73.
    assert foreseen(72, popular=20) is None
    assert "the odds are 10 times as high" in seen(foreseen(73, popular=20))


def test_repeat_purchases_are_not_foreseen_purchases() -> None:
    wanted = {customer: [customer] for customer in range(100, 200)}
    pairs = make_pairs(wanted)
    assert find_foreseen_purchases(make_candidates(wanted), pairs, pairs, k=1, recommender="repurchase") is None
    assert find_foreseen_purchases(make_candidates(wanted), pairs, pairs[:0], k=1, recommender="als") is not None


def test_few_new_purchases_give_no_finding() -> None:
    assert foreseen(49, num_customers=49) is None
    assert foreseen(50, num_customers=50) is not None


def test_features_that_count_the_first_label_are_found() -> None:
    day = datetime.datetime(2024, 3, 1)
    before = day - datetime.timedelta(seconds=1)
    assert find_labels_in_features(before, day, recommender="relevance") is None
    assert seen(find_labels_in_features(day, day, recommender="relevance")) == (
        "Features count purchases until 2024-03-01 00:00:00, but the labels begin on 2024-03-01 00:00:00."
    )
