import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.metrics.table_checks import check_candidates, check_target_ranks
from tfrs_fashion.schema import CANDIDATE_COLUMNS, TARGET_RANK_COLUMNS, InputError

NAN = float("nan")


def make_candidates(rows: list[tuple[int, int, int, float]]) -> pd.DataFrame:
    return pd.DataFrame([(*row, "test") for row in rows], columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


# Customers interleaved and out of order: ranks are checked by customer, not by row.
VALID = [(3, 2, 2, 0.5), (2, 4, 1, -1.0), (3, 4, 1, 0.7), (2, 2, 2, -2.0)]


def test_valid_candidates_pass() -> None:
    # Three articles have the indices 2, 3 and 4.
    check_candidates(make_candidates(VALID), num_articles=3, where="test")
    check_candidates(make_candidates([]), num_articles=3, where="test")


@pytest.mark.parametrize(
    ("rows", "what", "sample"),
    [
        ([*VALID, (3, 2, 3, 0.1)], "1 candidate row(s) that repeat an article", "(3, 2)"),
        ([*VALID, (3, 3, 4, 0.1)], "1 candidate row(s) whose ranks are not 1, 2, 3, …", "(3, 3)"),
        ([(2, 2, 0, 1.0)], "1 candidate row(s) whose ranks are not 1, 2, 3, …", "(2, 2)"),
        ([(2, 2, 1, 1.0), (2, 3, 1, 1.0)], "1 candidate row(s) whose ranks are not 1, 2, 3, …", "(2, 3)"),
        ([*VALID, (3, 5, 3, 0.1)], "1 candidate row(s) with an unknown article", "(3, 5)"),
        ([*VALID, (3, 1, 3, 0.1)], "1 candidate row(s) with an unknown article", "(3, 1)"),
        ([*VALID, (3, 0, 3, 0.1)], "1 candidate row(s) with an unknown article", "(3, 0)"),
        ([*VALID, (3, 3, 3, NAN)], "1 candidate row(s) with a NaN score", "(3, 3)"),
        ([*VALID, (1, 3, 1, 0.1)], "1 candidate row(s) with an unknown customer", "(1, 3)"),
        ([*VALID, (9, 3, 1, 0.1)], "1 candidate row(s) with an unknown customer", "(9, 3)"),
    ],
)
def test_invalid_candidates_are_refused(rows: list[tuple[int, int, int, float]], what: str, sample: str) -> None:
    with pytest.raises(InputError) as caught:
        check_candidates(make_candidates(rows), num_articles=3, num_customers=2, where="als")
    assert str(caught.value) == f"als: {what}; (customer_index, article_index) e.g. {sample}."


@pytest.mark.parametrize("missing", [None, NAN])
def test_candidates_without_a_source_are_refused(missing: float | None) -> None:
    frame = make_candidates(VALID).astype({"source": object})
    frame.loc[[1, 3], "source"] = missing
    expected = r"^als: 2 candidate row\(s\) without a source; .* e\.g\. \(2, 4\), \(2, 2\)\.$"
    with pytest.raises(InputError, match=expected):
        check_candidates(frame, num_articles=3, where="als")


@pytest.mark.parametrize("column", list(CANDIDATE_COLUMNS))
def test_missing_candidate_column_is_named(column: str) -> None:
    with pytest.raises(InputError, match=rf"^als: candidates lack column\(s\) {column}; expected "):
        check_candidates(make_candidates(VALID).drop(columns=column), num_articles=3, where="als")


def test_ranks_are_checked_whatever_the_index_of_the_frame() -> None:
    frame = make_candidates(VALID)
    frame.index = pd.Index(np.array([9, 3, 5, 1]))
    check_candidates(frame, num_articles=3, where="test")


def test_every_broken_rule_is_listed_with_its_count() -> None:
    rows = [(2, 2, 1, NAN), (2, 2, 2, NAN), (2, 7, 9, 0.0), (2, 8, 10, 0.0), (2, 9, 11, 0.0)]
    with pytest.raises(InputError) as caught:
        check_candidates(make_candidates(rows), num_articles=3, where="als")
    assert str(caught.value) == (
        "als: 2 candidate row(s) with a NaN score; (customer_index, article_index) e.g. (2, 2), (2, 2). "
        "3 candidate row(s) with an unknown article; (customer_index, article_index) e.g. (2, 7), (2, 8), (2, 9). "
        "1 candidate row(s) that repeat an article; (customer_index, article_index) e.g. (2, 2). "
        "3 candidate row(s) whose ranks are not 1, 2, 3, …; (customer_index, article_index) e.g. (2, 7), (2, 8), (2, 9)."
    )


@pytest.mark.parametrize("column", ["customer_index", "article_index", "rank"])
def test_fractions_and_numbers_beyond_32_bits_are_refused(column: str) -> None:
    frame = make_candidates(VALID)
    with pytest.raises(InputError, match=rf"als: column `{column}` of the candidates has type float64, expected whole"):
        check_candidates(frame.astype({column: "float64"}), num_articles=3, where="als")
    with pytest.raises(InputError, match=rf"als: column `{column}` of the candidates runs from -1 to"):
        check_candidates(frame.assign(**{column: [-1, 2, 3, 4]}), num_articles=3, where="als")
    with pytest.raises(InputError, match=r"expected 0 to 2,147,483,647"):
        check_candidates(frame.assign(**{column: [2**31, 2, 3, 4]}), num_articles=3, where="als")


def make_target_ranks(rows: list[tuple[int, int, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame([(*row, "test") for row in rows], columns=list(TARGET_RANK_COLUMNS))
    return frame.astype(TARGET_RANK_COLUMNS)


# Customer 3 bought two of five ranked articles, customer 2 one of four.
VALID_TARGETS = [(3, 4, 5, 5), (2, 2, 1, 4), (3, 2, 1, 5)]


def test_valid_target_ranks_pass() -> None:
    check_target_ranks(make_target_ranks(VALID_TARGETS), num_articles=3, where="test")
    check_target_ranks(make_target_ranks([]), num_articles=3, where="test")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ((3, 5, 2, 5), "with an unknown article"),
        ((3, 1, 2, 5), "with an unknown article"),
        ((1, 3, 1, 5), "with an unknown customer"),
        ((3, 4, 2, 5), "that repeat a target"),
        ((3, 3, 5, 5), "whose rank another target of the customer has"),
        ((3, 3, 0, 5), "whose rank lies outside 1 to `num_ranked`"),
        ((3, 3, 6, 5), "whose rank lies outside 1 to `num_ranked`"),
        ((3, 3, 2, 4), "whose `num_ranked` is not the customer's"),
        ((4, 3, 1, 1), "of customers who bought everything that was ranked"),
    ],
)
def test_invalid_target_ranks_are_refused(row: tuple[int, int, int, int], what: str) -> None:
    with pytest.raises(InputError) as caught:
        check_target_ranks(make_target_ranks([*VALID_TARGETS, row]), num_articles=3, where="lstm")
    expected = f"lstm: 1 target rank row(s) {what}; (customer_index, article_index) e.g. ({row[0]}, {row[1]})."
    assert str(caught.value) == expected


def test_missing_target_rank_column_is_named() -> None:
    with pytest.raises(InputError, match=r"^lstm: target ranks lack column\(s\) num_ranked; expected "):
        check_target_ranks(make_target_ranks(VALID_TARGETS).drop(columns="num_ranked"), num_articles=3, where="lstm")
