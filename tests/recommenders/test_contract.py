"""One contract for every recommender that a pipeline can name."""

import datetime
import gc
import importlib.util
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.every_recommender import GROUPED, SETTINGS, SINGLE
from tfrs_fashion.features.article_weeks import ArticleWeeks
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.view import View, make_view
from tfrs_fashion.models.encoders import CategoryEncoding
from tfrs_fashion.models.selector import Selector
from tfrs_fashion.recommenders.blend.blend import Blend
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.kinds import KINDS, fit_by_name, fit_recommender, load_recommender
from tfrs_fashion.recommenders.popularity import fit_popularity
from tfrs_fashion.recommenders.recommender import FitContext, Recommendations, Recommender, load_kind, load_state
from tfrs_fashion.recommenders.repurchase import Repurchase
from tfrs_fashion.recommenders.siblings import fit_siblings
from tfrs_fashion.recommenders.two_stage.two_stage import TwoStage
from tfrs_fashion.schema import (
    FIRST_INDEX,
    OUT_OF_VOCABULARY_INDEX,
    PADDING_INDEX,
    InputError,
    RunError,
    Tables,
)
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.pipeline import PipelineConfig
from tfrs_fashion.settings.recommenders import CONFIGS, AlsConfig
from tfrs_fashion.settings.sequences import TwoTowerConfig

ROOT = Path(__file__).parent.parent.parent
NEEDS_IMPLICIT = ("als", "bpr")
BLENDS = ("blend_by_quotas", "blend_by_selector")
BLENDED = ("popularity_7d", "repurchase", "co_visitation")
# Rankers over these, by name.
TWO_STAGES = {"two_stage": ("network",), "two_stage_lightgbm": ("lightgbm",), "two_stage_both": ("network", "lightgbm")}
NAMES = (*SINGLE, *GROUPED, *BLENDS, *TWO_STAGES)


@pytest.fixture(scope="module")
def pipeline() -> PipelineConfig:
    """The tiny pipeline with every recommender."""
    return load_config(ROOT / "pipelines" / "tiny.toml", SETTINGS)


def test_every_kind_is_fitted_and_loaded_by_the_table(pipeline: PipelineConfig) -> None:
    assert set(KINDS) == set(CONFIGS)
    # The contract below holds for a recommender of every kind.
    assert {pipeline.recommender[name].kind for name in SINGLE} == set(KINDS) - {"blend", "two_stage"}


@pytest.fixture(scope="module", params=NAMES)
def recommender(
    request: pytest.FixtureRequest,
    view: View,
    pipeline: PipelineConfig,
    make_two_stage: Callable[..., TwoStage],
    skip_or_fail: Callable[[str], NoReturn],
) -> Recommender:
    if request.param in NEEDS_IMPLICIT and importlib.util.find_spec("implicit") is None:
        skip_or_fail("the package implicit is not installed")
    if request.param in BLENDS:
        return make_blend(view, pipeline, by_selector=request.param == "blend_by_selector")
    if request.param in TWO_STAGES:
        combination = "reciprocal_rank" if request.param == "two_stage_both" else "score"
        return make_two_stage(view, pipeline, *TWO_STAGES[request.param], combination=combination)
    return fit_by_name(request.param, view, pipeline.recommender, choice={"epochs": 1})


def make_blend(view: View, pipeline: PipelineConfig, *, by_selector: bool) -> Blend:
    """A blend of three generators, whose selector has not learned anything yet."""
    selector = Selector(
        num_generators=len(BLENDED), num_candidates=40, num_article_features=3, hidden_dims=(4,), seed=1
    )
    return Blend(
        {name: fit_by_name(name, view, pipeline.recommender) for name in BLENDED},
        num_candidates=40,
        quotas=np.array([1.0, 3.0, 2.0], np.float32),
        article_features=np.random.default_rng(1).normal(size=(view.articles.num_articles + 2, 3)),
        selector=selector if by_selector else None,
        hidden_dims=(4,),
    )


def answers_everyone(recommender: Recommender) -> bool:
    """Whether whoever has a history is answered: neighbours, recent baskets or enough purchases may be wanting."""
    return recommender.name not in {
        "fashion_dna",
        *("repurchase_30d", "two_tower_7d"),
        *("item_knn", "item_knn_bm25", "co_visitation", "basket_pairs", "same_product", "customer_knn"),
    }


@pytest.fixture(scope="module")
def customers(view: View) -> np.ndarray:
    """Known customers between two unknown ones, who have no history."""
    last = view.timelines.num_customers + FIRST_INDEX - 1
    known = np.linspace(FIRST_INDEX, last, 30).astype(np.int32)
    unknown = [OUT_OF_VOCABULARY_INDEX]
    return np.concatenate([unknown, known, unknown]).astype(np.int32)


def ask(
    recommender: Recommender, view: View, customers: np.ndarray, *, k: int, exclude: np.ndarray | None = None
) -> Recommendations:
    table = HistoryTable(view.timelines, view.profiles)
    left_out = np.zeros((len(customers), 0), np.int32) if exclude is None else exclude
    found = recommender(
        table(tf.constant(customers, tf.int32)),
        now=tf.constant(view.now[customers], tf.int64),
        k=tf.constant(k),
        exclude=tf.constant(left_out, tf.int32),
    )
    return Recommendations(*(values.numpy() for values in found))


def same(found: Recommendations, expected: Recommendations) -> None:
    assert found.article_index.tolist() == expected.article_index.tolist()
    assert found.score == pytest.approx(expected.score, rel=1e-5, abs=1e-5)
    assert found.source.tolist() == expected.source.tolist()


@pytest.mark.parametrize("k", [1, 12, 1000])
def test_lists_have_the_length_asked_for_and_end_in_padding(
    recommender: Recommender, view: View, customers: np.ndarray, k: int
) -> None:
    found = ask(recommender, view, customers, k=k)
    for values, dtype in zip(found, (np.int32, np.float32, object), strict=True):
        assert values.shape == (len(customers), k)
        assert values.dtype == dtype
    given = found.article_index != PADDING_INDEX
    # Once padding begins it goes on to the end.
    assert (np.diff(given.astype(int), axis=1) <= 0).all()
    assert (found.score[~given] == 0).all()
    assert np.isfinite(found.score).all()
    sources = BLENDED if isinstance(recommender, Blend | TwoStage) else (recommender.name,)
    assert set(found.source[given].tolist()) <= {name.encode() for name in sources}
    assert (found.source[~given] == b"").all()
    assert given[1:-1, 0].all() if answers_everyone(recommender) else given[1:-1, 0].any()
    assert found.article_index.max() < view.articles.num_articles + FIRST_INDEX
    if k > view.articles.num_articles:
        assert not given[:, view.articles.num_articles :].any()


@pytest.mark.parametrize("k", [12, 1000])
def test_lists_hold_each_article_once_best_first(
    recommender: Recommender, view: View, customers: np.ndarray, k: int
) -> None:
    found = ask(recommender, view, customers, k=k)
    for articles, scores in zip(found.article_index, found.score, strict=True):
        given = articles != PADDING_INDEX
        assert len(set(articles[given])) == given.sum()
        assert (articles[given] >= FIRST_INDEX).all()
        assert (np.diff(scores[given]) <= 0).all()


def test_excluded_articles_are_left_out_and_the_rest_moves_up(
    recommender: Recommender, view: View, customers: np.ndarray
) -> None:
    everything = ask(recommender, view, customers, k=1000)
    # Every other one of the best, an unknown article, one that exists nowhere, and padding in any place.
    odd = np.tile(np.array([PADDING_INDEX, OUT_OF_VOCABULARY_INDEX, 10**6], np.int32), (len(customers), 1))
    exclude = np.concatenate([odd, everything.article_index[:, :10:2]], axis=1)
    found = ask(recommender, view, customers, k=5, exclude=exclude)
    for row, out in enumerate(exclude):
        if isinstance(recommender, Blend | TwoStage):
            # Its generators move up, each at its own pace, so that the order of what is left may be another.
            assert not set(found.article_index[row].tolist()) & set(out.tolist()) - {PADDING_INDEX}
            continue
        left = [article for article in everything.article_index[row] if article not in {*out, PADDING_INDEX}][:5]
        assert found.article_index[row].tolist() == left + [PADDING_INDEX] * (5 - len(left))


def test_all_articles_excluded(recommender: Recommender, view: View, customers: np.ndarray) -> None:
    exclude = np.tile(np.arange(view.articles.num_articles + FIRST_INDEX, dtype=np.int32), (len(customers), 1))
    assert (ask(recommender, view, customers, k=3, exclude=exclude).article_index == PADDING_INDEX).all()


def test_a_shorter_list_is_the_beginning_of_a_longer_one(
    recommender: Recommender, view: View, customers: np.ndarray
) -> None:
    longer = ask(recommender, view, customers, k=20)
    same(ask(recommender, view, customers, k=1), Recommendations(*(values[:, :1] for values in longer)))
    same(ask(recommender, view, customers, k=7), Recommendations(*(values[:, :7] for values in longer)))


def test_an_answer_does_not_depend_on_the_batch(recommender: Recommender, view: View, customers: np.ndarray) -> None:
    together = ask(recommender, view, customers, k=6)
    for row in (0, 1, 15):
        alone = ask(recommender, view, customers[row : row + 1], k=6)
        same(alone, Recommendations(*(values[row : row + 1] for values in together)))
    reverse = ask(recommender, view, customers[::-1], k=6)
    same(reverse, Recommendations(*(values[::-1] for values in together)))


@pytest.mark.parametrize("num_customers", [0, 1, 3])
def test_batches_without_any_history(recommender: Recommender, view: View, num_customers: int) -> None:
    nobody = np.full(num_customers, OUT_OF_VOCABULARY_INDEX, np.int32)
    found = ask(recommender, view, nobody, k=4, exclude=np.full((num_customers, 2), FIRST_INDEX, np.int32))
    assert found.article_index.shape == (num_customers, 4)
    assert FIRST_INDEX not in found.article_index


def test_no_more_of_a_history_is_read_than_history_length(
    recommender: Recommender, view: View, customers: np.ndarray
) -> None:
    expected = ask(recommender, view, customers, k=12)
    cut = replace(view, timelines=view.timelines.last(recommender.history_length))
    same(ask(recommender, cut, customers, k=12), expected)


def test_a_saved_recommender_answers_the_same_once_loaded(
    recommender: Recommender, view: View, pipeline: PipelineConfig, customers: np.ndarray, tmp_path: Path
) -> None:
    recommender.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert (loaded.name, loaded.kind) == (recommender.name, recommender.kind)
    assert recommender.kind == load_kind(tmp_path)
    if recommender.name in pipeline.recommender:
        assert recommender.kind == pipeline.recommender[recommender.name].kind
    assert loaded.history_length == recommender.history_length
    same(ask(loaded, view, customers, k=20), ask(recommender, view, customers, k=20))


def test_a_damaged_state_is_reported(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    (tmp_path / "state.npz").write_bytes(b"PK no more")
    with pytest.raises(RunError, match=r"the fitted recommender cannot be read .* Run `train --force`"):
        load_state(tmp_path)


def test_a_graph_answers_the_same(recommender: Recommender, view: View, customers: np.ndarray) -> None:
    table = HistoryTable(view.timelines, view.profiles)

    @tf.function(
        input_signature=(
            table.spec(),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        )
    )
    def answer(histories: object, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        return recommender(histories, now=now, k=k, exclude=exclude)  # type: ignore[arg-type]

    exclude = np.tile(np.array([[FIRST_INDEX, PADDING_INDEX]], np.int32), (len(customers), 1))
    for k, batch in ((9, customers), (3, customers[:4])):
        found = answer(
            table(tf.constant(batch)),
            tf.constant(view.now[batch]),
            tf.constant(k),
            tf.constant(exclude[: len(batch)]),
        )
        expected = ask(recommender, view, batch, k=k, exclude=exclude[: len(batch)])
        same(Recommendations(*(values.numpy() for values in found)), expected)


def test_repurchase_is_what_was_in_most_baskets_ties_by_recency(view: View, customers: np.ndarray) -> None:
    lines = view.transactions.execute()
    baskets = lines.drop_duplicates(["customer_index", "article_index", "basket_id"])
    counts = baskets.groupby(["customer_index", "article_index"])["t_dat"].agg(["size", "max"]).reset_index()
    counts = counts.sort_values(
        ["customer_index", "size", "max", "article_index"], ascending=[True, False, False, True], kind="stable"
    )
    found = ask(Repurchase(), view, customers, k=5)
    for row, customer in enumerate(customers):
        expected = counts[counts["customer_index"] == customer].head(5)
        num = len(expected)
        assert found.article_index[row, :num].tolist() == expected["article_index"].tolist()
        assert found.score[row, :num].tolist() == expected["size"].tolist()
        assert (found.article_index[row, num:] == PADDING_INDEX).all()


def test_popularity_counts_the_baskets_of_the_last_days(view: View, customers: np.ndarray) -> None:
    as_of, days = view.split.as_of, 7
    lines = view.transactions.execute()
    recent = lines[lines["t_dat"] >= as_of - pd.Timedelta(days=days)]
    baskets = recent.drop_duplicates(["customer_index", "basket_id", "article_index"]).groupby("article_index").size()
    table = lines.groupby("article_index")["t_dat"].max().to_frame("last").reset_index()
    table["count"] = table["article_index"].map(baskets).fillna(0)
    table = table.sort_values(["count", "last", "article_index"], ascending=[False, False, True], kind="stable")
    popularity = fit_popularity(view.transactions, as_of=as_of, days=days, name="popularity_7d")
    found = ask(popularity, view, customers, k=len(table))
    for row in range(len(customers)):
        assert found.article_index[row].tolist() == table["article_index"].tolist()
        assert found.score[row].tolist() == table["count"].tolist()


def test_cold_start_customers_are_answered_unless_a_history_is_needed(recommender: Recommender, view: View) -> None:
    found = ask(recommender, view, np.array([OUT_OF_VOCABULARY_INDEX], np.int32), k=5)
    if recommender.needs_history:
        assert (found.article_index == PADDING_INDEX).all()
    else:
        assert (found.article_index != PADDING_INDEX).all()


def test_als_has_no_factors_for_an_unknown_customer_with_a_history(
    view: View, skip_or_fail: Callable[[str], NoReturn]
) -> None:
    if importlib.util.find_spec("implicit") is None:
        skip_or_fail("the package implicit is not installed")
    fitted = fit_recommender(view, AlsConfig(factors=4, iterations=3), FitContext("als"))
    known = np.arange(FIRST_INDEX, 20, dtype=np.int32)
    # A stranger with a history is none of those who were not told apart.
    histories = HistoryTable(view.timelines, view.profiles)(tf.constant(known[:1]))
    stranger = histories._replace(customer_index=tf.constant([OUT_OF_VOCABULARY_INDEX]))
    answer = fitted(
        stranger, now=tf.constant(view.now[known[:1]]), k=tf.constant(5), exclude=tf.zeros([1, 0], tf.int32)
    )
    assert answer.article_index.numpy().tolist() == [[PADDING_INDEX] * 5]


def test_popularity_counts_the_baskets_of_anonymous_customers() -> None:
    rows = [(1, 2, "a", 19), (1, 2, "b", 19), (2, 3, "a", 19), (1, 4, "a", 19), (2, 4, "c", 19), (3, 4, "a", 19)]
    found = fit_popularity(make_transactions(rows), as_of=datetime.datetime(2024, 1, 20), days=7, name="popularity_7d")
    assert found.article_index.numpy().tolist() == [4, 2, 3]
    assert found.score.numpy().tolist() == [3, 2, 1]


# Articles 2 to 4 are one design, 5 and 6 another; 7 has none, and 8 shares its design with nobody.
DESIGNS = ["p", "p", "p", "q", "q", None, "r"]


def make_designs(designs: list[str | None] = DESIGNS) -> ibis.Table:
    index = np.arange(FIRST_INDEX, FIRST_INDEX + len(designs), dtype=np.int32)
    frame = pd.DataFrame({"article_index": index, "product_code": pd.Series(designs, dtype="string")})
    return ibis.memtable(frame)


def test_siblings_are_counted_by_the_baskets_of_their_design() -> None:
    # In the last seven days 2 was in two baskets, 3 in one, of which one held both; 5 in three lines of one basket and
    # an anonymous one; 6 earlier.
    rows = [
        (2, 2, "a", 14),
        (3, 2, "b", 14),
        (2, 3, "a", 15),
        (2, 5, "c", 19),
        (2, 5, "c", 19),
        (2, 5, "c", 19),
        (1, 5, "d", 19),
        (2, 6, "e", 2),
    ]
    found = fit_siblings(
        make_designs(),
        make_transactions(rows),
        as_of=datetime.datetime(2024, 1, 20),
        days=7,
        candidate_articles=np.array([4, 6, 7, 8], np.int32),
        name="popularity_siblings",
    )
    # 4: 2 + 1 baskets of its siblings; 6: two of 5's; 7 and 8 have no sibling.
    assert found.name == "popularity_siblings"
    assert found.article_index.numpy().tolist() == [4, 6, 7, 8]
    assert found.score.numpy().tolist() == [3, 2, 0, 0]
    # What an article sold itself does not count: 2 has one basket of a sibling, 3 two.
    sold = fit_siblings(
        make_designs(),
        make_transactions(rows),
        as_of=datetime.datetime(2024, 1, 20),
        days=7,
        candidate_articles=np.array([2, 3], np.int32),
        name="popularity_siblings",
    )
    assert sold.article_index.numpy().tolist() == [3, 2]
    assert sold.score.numpy().tolist() == [2, 1]


@pytest.mark.parametrize("articles", [make_designs([None] * 3), make_designs().drop("product_code")])
def test_siblings_without_designs_are_refused(articles: ibis.Table) -> None:
    with pytest.raises(InputError, match=r"popularity_siblings: the articles have no `product_code`"):
        fit_siblings(
            articles,
            make_transactions([(2, 2, "a", 14)]),
            as_of=datetime.datetime(2024, 1, 20),
            days=7,
            candidate_articles=np.array([3], np.int32),
            name="popularity_siblings",
        )


def test_where_every_article_was_sold_there_is_no_new_arrival(view: View) -> None:
    nothing = np.zeros(0, np.int32)
    siblings = fit_siblings(
        view.tables.articles,
        view.transactions,
        as_of=view.split.as_of,
        days=7,
        candidate_articles=nothing,
        name="popularity_siblings",
    )
    found = ask(siblings, view, np.array([1, 2, 3], np.int32), k=4, exclude=np.array([[2, 0]] * 3, np.int32))
    assert found.article_index.tolist() == [[PADDING_INDEX] * 4] * 3
    assert found.source.tolist() == [[b""] * 4] * 3


def make_transactions(rows: list[tuple[int, int, str, int]]) -> ibis.Table:
    frame = pd.DataFrame(rows, columns=["customer_index", "article_index", "basket_id", "day"])
    moments = [datetime.datetime(2024, 1, day) for day in frame.pop("day")]
    return ibis.memtable(frame.assign(t_dat=pd.Series(moments).astype("datetime64[us]")))


def test_popularity_by_hand() -> None:
    # Seven days before January 20 begin on the 13th, which counts; article 5 was sold on the 12th, article 6 earlier.
    rows = [
        (2, 2, "a", 13),
        (2, 3, "b", 14),
        (2, 3, "b", 14),
        (3, 3, "c", 19),
        (2, 4, "d", 19),
        (2, 6, "e", 2),
        (2, 6, "f", 3),
        (3, 5, "g", 12),
    ]
    found = fit_popularity(make_transactions(rows), as_of=datetime.datetime(2024, 1, 20), days=7, name="popularity_7d")
    # 3 in two baskets; 4 and 2 in one, the later first; then those not sold in time, the last sold first.
    assert found.article_index.numpy().tolist() == [3, 4, 2, 5, 6]
    assert found.score.numpy().tolist() == [2, 1, 1, 0, 0]


def test_popularity_counts_baskets_of_two_customers_with_one_number_as_two() -> None:
    # As in `index_tables`, a basket belongs to a customer; sources may number each customer's own.
    rows = [(2, 2, "1", 19), (3, 2, "1", 19), (4, 2, "1", 19), (2, 3, "2", 19), (3, 3, "3", 19)]
    found = fit_popularity(make_transactions(rows), as_of=datetime.datetime(2024, 1, 20), days=7, name="popularity_7d")
    assert found.article_index.numpy().tolist() == [2, 3]
    assert found.score.numpy().tolist() == [3, 2]


# As small as towers come; one epoch of few steps.
FEW: dict[str, Any] = {
    "epochs": 1,
    "embedding_dim": 4,
    "batch_size": 64,
    "steps_per_epoch": 2,
    "num_sampled_negatives": 20,
    "history_length": 20,
    "num_bins": 3,
}


def fit_few(view: View, *, context: FitContext = FitContext("two_tower"), **changed: Any) -> IndexedTower:  # noqa: B008
    fitted = fit_recommender(view, TwoTowerConfig(**{**FEW, **changed}), context)
    assert isinstance(fitted, IndexedTower)
    return fitted


@pytest.mark.parametrize(
    "settings",
    [
        {"min_baskets": 10**6},
        {"min_customer_baskets": 10**6},
        {"num_sampled_negatives": 0},
        # Far more days than there are: as many weeks are made as there are baskets.
        {"target_days": 10**7},
        {"target_days": 1, "batch_size": 10**6},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_towers_are_fitted_at_the_extremes_of_their_settings(
    view: View, customers: np.ndarray, settings: dict[str, Any]
) -> None:
    view = replace(view, num_text_buckets=0 if "num_sampled_negatives" in settings else 16)
    found = ask(fit_few(view, **settings), view, customers, k=12)
    assert np.isfinite(found.score).all()
    assert (found.article_index >= FIRST_INDEX).all()


def test_towers_keep_one_copy_of_the_weeks_while_they_learn(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    read_weeks, arrays = View.read_weeks, []

    def read_and_watch(view: View, num_weeks: int) -> ArticleWeeks:
        weeks = read_weeks(view, num_weeks)
        arrays.append(weakref.ref(weeks.values))
        return weeks

    def check(_recommender: Recommender) -> dict[str, float]:
        gc.collect()
        assert [array() for array in arrays] == [None]
        return {"val_map@12": 0.0}

    monkeypatch.setattr(View, "read_weeks", read_and_watch)
    context = FitContext("two_tower", validate=check)
    fit_few(view, context=context)
    assert context.curves["val_map@12"] == [0.0]


def test_towers_that_leave_cold_start_customers_to_the_fallback_need_a_history(view: View, tmp_path: Path) -> None:
    towers = fit_few(view, context=FitContext("two_tower", choice={"serves_cold_start": False}))
    assert towers.needs_history
    assert not fit_few(view).needs_history
    towers.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, IndexedTower)
    assert loaded.needs_history
    assert loaded.with_index("exact", name="again").needs_history
    assert not loaded.with_index("new_arrivals", name="new").needs_history


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("encoding", ["one_hot", "embedding"])
def test_towers_of_every_kind_are_saved_and_loaded(
    view: View,
    tables: Tables,
    timelines: Timelines,
    config: PipelineConfig,
    customers: np.ndarray,
    history: bool,
    encoding: CategoryEncoding,
    tmp_path: Path,
) -> None:
    # With every kind of feature in deep towers; or without profile, history, weeks, numbers and words.
    some = {"categorical": config.features.categorical, "roles": config.features.roles, "numbers": ("list_price",)}
    if not history:
        timelines = replace(timelines, profile={}, profile_numbers={})
        some = {"categorical": (), "history": False, "article_weeks": False}
    words = {"num_text_buckets": 16 if history else 0}
    seen = make_view(tables, timelines, view.split, **some, **words, in_store_days=28)  # type: ignore[arg-type]
    fitted = fit_few(seen, hidden_dims=(6,) if history else (), categorical_encoding=encoding)
    expected = ask(fitted, seen, customers, k=20)
    assert np.isfinite(expected.score).all()
    fitted.save(tmp_path)
    loaded = load_recommender(tmp_path)
    same(ask(loaded, seen, customers, k=20), expected)
    assert isinstance(loaded, IndexedTower)
    new = [found.with_index("new_arrivals", name="new") for found in (fitted, loaded)]
    same(*(ask(found, seen, customers, k=20) for found in new))


def test_the_index_of_new_arrivals_holds_all_articles_never_sold_and_no_others(
    view: View, customers: np.ndarray
) -> None:
    fitted = fit_few(view)
    new = fitted.with_index("new_arrivals", name="two_tower_new_arrivals")
    never_sold = view.articles.never_sold
    assert len(never_sold) > 0
    found = ask(new, view, customers, k=len(never_sold) + 3)
    expected = [*never_sold.tolist(), 0, 0, 0]
    for row in found.article_index:
        assert sorted(row.tolist()) == sorted(expected)
    assert set(found.source.ravel().tolist()) == {b"two_tower_new_arrivals", b""}
    # The towers are the same, and so is the plain index.
    exact = fitted.with_index("exact", name="two_tower")
    same(ask(exact, view, customers, k=9), ask(fitted, view, customers, k=9))
    sold = ask(fitted, view, customers, k=1000).article_index
    assert set(sold.ravel().tolist()) == {0, *view.articles.in_store.tolist()}
