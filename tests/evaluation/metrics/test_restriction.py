import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.metrics.rank_tables import check_candidates
from tfrs_fashion.evaluation.metrics.restriction import restrict
from tfrs_fashion.schema import CANDIDATE_COLUMNS, InputError

# Out of order, so that ranks and not rows decide.
ROWS = [(3, 4, 2, 0.6, "a"), (2, 2, 1, 0.9, "a"), (3, 2, 1, 0.7, "a"), (2, 3, 2, 0.8, "a"), (3, 3, 3, 0.5, "b")]
CANDIDATES = pd.DataFrame(ROWS, columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


def rows_of(candidates: pd.DataFrame) -> list[tuple[int, int, int]]:
    return list(candidates[["customer_index", "article_index", "rank"]].itertuples(index=False, name=None))


def test_given_articles_move_up() -> None:
    found = restrict(CANDIDATES, np.array([3, 4, 99]))
    assert rows_of(found) == [(2, 3, 1), (3, 4, 1), (3, 3, 2)]
    assert found["source"].tolist() == ["a", "a", "b"]
    check_candidates(found.astype(CANDIDATE_COLUMNS), num_articles=3, where="restricted")
    assert found.dtypes.to_dict() == CANDIDATES.dtypes.to_dict()


def test_each_customer_may_have_articles_of_their_own() -> None:
    pairs = pd.DataFrame({"customer_index": [2, 3, 3], "article_index": [4, 3, 2]})
    assert rows_of(restrict(CANDIDATES, pairs)) == [(3, 2, 1), (3, 3, 2)]
    assert restrict(CANDIDATES, pairs.head(0)).empty
    assert restrict(CANDIDATES.head(0), pairs).empty


def test_pairs_without_a_customer_are_refused() -> None:
    with pytest.raises(InputError, match=r"allowed: missing column\(s\) customer_index; found \['article_index'\]"):
        restrict(CANDIDATES, pd.DataFrame({"article_index": [2]}))
