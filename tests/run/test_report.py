"""What the report counts of the values that judged customers and articles have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.view import View
from tfrs_fashion.run.notes import make_notes
from tfrs_fashion.run.report import count_unseen
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX, RowCount
from tfrs_fashion.settings.pipeline import load_config


def test_values_out_of_vocabulary_are_counted_among_those_judged_and_in_store(view: View) -> None:
    known, unseen, missing = FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX
    # Two rows of nobody, then five customers of whom the last is not judged.
    city = np.array([missing, missing, unseen, known, missing, unseen, unseen])
    band = np.array([missing, missing, known, known, known, known, unseen])
    # Articles 2 to 5, of which 5 is not in store.
    colour = np.array([missing, missing, unseen, known, missing, unseen])
    changed = replace(
        view,
        profile_vocabulary={"city": ["Wien"], "band": ["20-29"]},
        profiles=view.profiles._replace(categorical=np.stack([city, band], axis=1).astype(np.int32)),
        articles=replace(
            view.articles,
            categorical={"colour": colour.astype(np.int32), "fine": np.full(6, known, np.int32)},
            in_store=np.array([2, 3, 4], np.int32),
        ),
    )
    # Customer 99 was not known before the cutoff.
    assert count_unseen(changed, np.array([2, 3, 4, 5, 99])) == (
        RowCount("customers", "judged, whose `city` is out of vocabulary", 2),
        RowCount("articles", "in store, whose `colour` is out of vocabulary", 1),
    )
    assert count_unseen(changed, np.array([3])) == (
        RowCount("articles", "in store, whose `colour` is out of vocabulary", 1),
    )


@pytest.mark.parametrize(
    ("override", "is_judged"),
    [("split.test_days=7", True), ("split.test_days=28", False), ("split.kind=last_basket", False)],
)
def test_probabilities_are_of_windows_as_long_as_weeks(root: Path, override: str, is_judged: bool) -> None:
    settings = ['recommenders=["popularity_7d", "two_stage"]', "recommend.recommender=two_stage", override]
    config = load_config(root / "pipelines" / "tiny.toml", settings)
    pairs = pd.DataFrame({"customer_index": [2], "article_index": [2]})
    told = [note for note in make_notes(config, pairs, pairs) if "purchase within 7 days" in note]
    assert config.probabilities_are_of_window == is_judged == (not told)
