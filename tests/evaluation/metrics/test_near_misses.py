import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.customer_metrics import customer_metrics
from tfrs_fashion.evaluation.metrics.near_misses import GROUP_COLUMN, add_groups, index_groups


def test_an_unknown_code_is_a_group_of_its_own() -> None:
    found = index_groups(pd.Series(["108", None, "110", "108", np.nan]))
    assert found.dtype == np.int32
    padding, unknown, a, b, c, d, e = found.tolist()
    assert (padding, unknown) == (0, 1)
    assert a == d
    assert len({a, b, c, e}) == 4
    assert min(found[2:]) == 2


def test_what_has_no_code_at_all_has_as_many_groups_as_articles() -> None:
    assert index_groups(pd.Series([None, None, None])).tolist() == [0, 1, 2, 3, 4]
    assert index_groups(pd.Series([], dtype=object)).tolist() == [0, 1]


def test_groups_are_added_to_a_copy_and_nothing_lies_beyond_the_catalogue() -> None:
    frame = pd.DataFrame({"article_index": [2, 3, 1, 99]})
    assert add_groups(frame, np.array([0, 1, 7, 8]))[GROUP_COLUMN].tolist() == [7, 8, 1, 0]
    assert list(frame) == ["article_index"]


def test_a_group_bought_twice_is_one_target_that_is_hit_once() -> None:
    # Articles 2, 3 and 4 are one design; 5 another. Bought: 2 and 3 and 5. Shown: 9, 4, 2.
    groups = np.array([0, 1, 2, 2, 2, 3, 4, 5, 6, 7])
    targets = pd.DataFrame({"customer_index": [1, 1, 1], "article_index": [2, 3, 5]})
    candidates = pd.DataFrame({"customer_index": [1, 1, 1], "article_index": [9, 4, 2], "rank": [1, 2, 3]})
    found = customer_metrics(add_groups(candidates, groups), add_groups(targets, groups), k=3, key=GROUP_COLUMN).loc[1]
    assert found["recall"] == 1 / 2
    assert found["precision"] == 1 / 3
    # The one hit stands second; two designs were bought.
    assert found["map"] == 1 / 2 * 1 / 2
