import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.evaluation.metrics.near_misses import GROUP_COLUMN, add_groups, index_groups


def test_article_with_unknown_code_forms_its_own_group() -> None:
    found = index_groups(pd.Series(["108", None, "110", "108", np.nan]))
    assert found.dtype == np.int32
    padding, unknown, a, b, c, d, e = found.tolist()
    assert (padding, unknown) == (0, 1)
    assert a == d
    assert len({a, b, c, e}) == 4
    assert min(found[2:]) == 2


def test_articles_without_any_code_form_one_group_each() -> None:
    assert index_groups(pd.Series([None, None, None])).tolist() == [0, 1, 2, 3, 4]
    assert index_groups(pd.Series([], dtype=object)).tolist() == [0, 1]


def test_add_groups_copies_the_table_and_gives_unknown_articles_no_group() -> None:
    frame = pd.DataFrame({"article_index": [2, 3, 1, 99]})
    assert add_groups(frame, np.array([0, 1, 7, 8]))[GROUP_COLUMN].tolist() == [7, 8, 1, 0]
    assert list(frame) == ["article_index"]


def test_group_bought_twice_is_one_target_that_is_hit_once() -> None:
    # Articles 2, 3 and 4 are one design; 5 another. Bought: 2 and 3 and 5. Shown: 9, 4, 2.
    groups = np.array([0, 1, 2, 2, 2, 3, 4, 5, 6, 7])
    targets = pd.DataFrame({"customer_index": [1, 1, 1], "article_index": [2, 3, 5]})
    candidates = pd.DataFrame({"customer_index": [1, 1, 1], "article_index": [9, 4, 2], "rank": [1, 2, 3]})
    found = measure_accuracy(add_groups(candidates, groups), add_groups(targets, groups), k=3, key=GROUP_COLUMN).loc[1]
    assert found["recall"] == 1 / 2
    assert found["precision"] == 1 / 3
    # The one hit has rank 2; two designs were bought.
    assert found["map"] == 1 / 2 * 1 / 2
