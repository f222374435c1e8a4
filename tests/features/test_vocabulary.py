import numpy as np
import pytest

from tfrs_fashion.features.vocabulary import fit_vocabulary, look_up
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX


def test_values_are_distinct_and_sorted_and_missing_ones_have_no_entry() -> None:
    values = ["Trousers", "Dresses", None, "", float("nan"), "Trousers", "ベージュ", "grön"]
    assert fit_vocabulary(values) == ["Dresses", "Trousers", "grön", "ベージュ"]  # type: ignore[arg-type]
    assert fit_vocabulary([]) == []


@pytest.mark.parametrize(
    ("min_count", "expected"), [(1, ["a", "b", "grön"]), (2, ["a", "b"]), (3, ["a"]), (4, []), (10**9, [])]
)
def test_rare_values_have_no_entry(min_count: int, expected: list[str]) -> None:
    values = ["a", "b", None, "a", "", "grön", "b", "a", "", None]
    assert fit_vocabulary(values, min_count=min_count) == expected


def test_the_order_of_the_rows_changes_nothing() -> None:
    values = ["b", "a", "c", "a"]
    assert fit_vocabulary(values) == fit_vocabulary(values[::-1])


def test_missing_and_unknown_values_have_different_indices() -> None:
    found = look_up(["b", None, "", float("nan"), "z", "a"], ["a", "b"])  # type: ignore[list-item]
    missing, unknown = PADDING_INDEX, OUT_OF_VOCABULARY_INDEX
    assert found.tolist() == [FIRST_INDEX + 1, missing, missing, missing, unknown, FIRST_INDEX]
    assert found.dtype == np.int32


@pytest.mark.parametrize("vocabulary", [[], ["a"]])
def test_no_values_and_no_vocabulary(vocabulary: list[str]) -> None:
    assert look_up([], vocabulary).tolist() == []
    assert look_up([None, "q"], vocabulary).tolist() == [PADDING_INDEX, OUT_OF_VOCABULARY_INDEX]


def test_numbers_are_not_taken_for_words() -> None:
    # "01" and "1" are two values: ids keep their zeros.
    assert look_up(["1", "01"], ["01"]).tolist() == [OUT_OF_VOCABULARY_INDEX, FIRST_INDEX]


def test_what_is_fitted_is_looked_up_in_its_own_order() -> None:
    values = ["x", "b", "é", "B", "日本"]
    assert sorted(look_up(values, fit_vocabulary(values)).tolist()) == list(range(FIRST_INDEX, FIRST_INDEX + 5))
