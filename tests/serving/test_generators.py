"""Every generator, and a blend of them, gives the same candidates from Python, from batch and from its SavedModel."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.every_recommender import SETTINGS, SINGLE
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.blend.blend import Blend
from tfrs_fashion.recommenders.kinds import fit_by_name
from tfrs_fashion.recommenders.popularity import no_recommendations
from tfrs_fashion.recommenders.two_stage.two_stage import TwoStage
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.serving.batch import load_artifact, recommend_batches, to_candidates
from tfrs_fashion.serving.export import export_artifact
from tfrs_fashion.settings.file import load_config

K = 20
BLENDED = ("repurchase_decayed", "item_knn", "popularity_garment_group", "popularity_7d")


@pytest.mark.parametrize("name", [*SINGLE, "popularity_age_band", "popularity_garment_group", "blend", "two_stage"])
def test_one_answer_from_python_batch_and_saved_model(
    view: View,
    root: Path,
    name: str,
    tmp_path: Path,
    make_two_stage: Callable[..., TwoStage],
    skip_or_fail: Callable[[str], NoReturn],
) -> None:
    config = load_config(root / "pipelines" / "tiny.toml", SETTINGS)
    if name in ("als", "bpr") and importlib.util.find_spec("implicit") is None:
        skip_or_fail("the package implicit is not installed")
    if name == "blend":
        parts = {part: fit_by_name(part, view, config.recommender) for part in BLENDED}
        known = np.zeros((view.articles.num_articles + FIRST_INDEX, 0), np.float32)
        recommender = Blend(parts, num_candidates=30, quotas=np.array([3, 2, 1, 1], np.float32), article_features=known)
    elif name == "two_stage":
        recommender = make_two_stage(view, config, "network", "lightgbm")
    else:
        recommender = fit_by_name(name, view, config.recommender)
    # Without a fallback, so that what the recommender says itself is compared.
    export_artifact(recommender, no_recommendations(), tmp_path, view=view, k=5, metadata={})
    artifact = load_artifact(tmp_path)
    customer_id = view.timelines.customer_id
    batches = recommend_batches(artifact, customer_id.tolist(), k=K, batch_size=64)
    found = to_candidates(batches, customer_id=customer_id, article_id=view.articles.article_id)
    customers = np.arange(FIRST_INDEX, FIRST_INDEX + len(customer_id), dtype=np.int32)
    expected = rank_customers(recommender, view, customers, k=K, batch_size=64)
    assert len(found) == len(expected)
    # Where sums of floats are taken in another order, what scores alike to the last digits may change places.
    both = found.merge(expected, on=["customer_index", "rank"], suffixes=("", "_expected"))
    assert len(both) == len(found)
    scores = found.set_index(["customer_index", "article_index"])["score"]
    moved = both[both["article_index"] != both["article_index_expected"]]
    elsewhere = scores.reindex(pd.MultiIndex.from_frame(moved[["customer_index", "article_index_expected"]])).to_numpy()
    assert elsewhere == pytest.approx(moved["score"].to_numpy(), rel=1e-5, abs=1e-6)
    assert len(moved) <= 0.01 * len(found)
    assert len(found) > 0
    alone = artifact(customer_id=tf.constant(customer_id[:1]), exclude=tf.zeros([1, 0], tf.string), k=tf.constant([K]))[
        "article_ids"
    ]
    first = found[found["customer_index"] == FIRST_INDEX]["article_index"].to_numpy()
    given = [article.decode() for article in alone.numpy()[0] if article]
    assert given == view.articles.article_id[first - FIRST_INDEX].tolist()


def test_sequential_artifacts_and_two_stages_answer_in_a_process_with_tensorflow_alone(
    view: View,
    root: Path,
    tmp_path: Path,
    make_two_stage: Callable[..., TwoStage],
    ask_alone: Callable[..., list[dict[str, Any]]],
) -> None:
    names = ("gru", "lstm", "attention", "fashion_dna", "next_category", "two_stage")
    config = load_config(root / "pipelines" / "tiny.toml", [f"recommender.{name}.epochs=1" for name in names[:-1]])
    expected = []
    customers = [*view.timelines.customer_id[:5].tolist(), "nobody"]
    for name in names:
        if name == "two_stage":
            recommender = make_two_stage(view, config, "network", "lightgbm")
        else:
            recommender = fit_by_name(name, view, config.recommender)
        export_artifact(recommender, no_recommendations(), tmp_path / name, view=view, k=5, metadata={})
        expected.append(rank_customers(recommender, view, np.arange(2, 7, dtype=np.int32), k=5))
    answers = ask_alone(customers, [tmp_path / name for name in names])
    assert [answer["foreign"] for answer in answers] == [[]] * len(names)
    for answer, lists in zip(answers, expected, strict=True):
        ids = view.articles.article_id[lists["article_index"].to_numpy() - FIRST_INDEX].tolist()
        assert [article for row in answer["ids"][:5] for article in row if article] == ids
        assert np.isfinite(answer["scores"]).all()


@pytest.mark.parametrize("by", ["age_band", "sales_channel_id"])
def test_a_fallback_by_group_reads_what_the_recommender_does_not(
    view: View, root: Path, by: str, tmp_path: Path
) -> None:
    config = load_config(root / "pipelines" / "tiny.toml", [f"recommender.grouped={{kind='popularity', by='{by}'}}"])
    fallback = fit_by_name("grouped", view, config.recommender)
    # Who recommends nothing needs no history, and `by_customer` must have stored it all the same.
    export_artifact(no_recommendations(), fallback, tmp_path, view=view, k=5, metadata={})
    customer_id = view.timelines.customer_id
    batches = recommend_batches(load_artifact(tmp_path), customer_id.tolist(), k=K)
    found = to_candidates(batches, customer_id=customer_id, article_id=view.articles.article_id)
    customers = np.arange(FIRST_INDEX, FIRST_INDEX + len(customer_id), dtype=np.int32)
    expected = rank_customers(fallback, view, customers, k=K)
    keys = ["customer_index", "article_index", "rank"]
    np.testing.assert_array_equal(found[keys].to_numpy(), expected[keys].to_numpy())
    assert (found["source"] == "grouped").all()
    assert found.groupby("customer_index")["article_index"].agg(tuple).nunique() > 1
