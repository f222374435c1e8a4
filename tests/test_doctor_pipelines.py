"""The doctor on whole pipelines: each broken pipeline is caught by the check for it, and healthy ones have no finding."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from ibis import _

from tfrs_fashion.data.split import Split, make_splits, target_rows, targets
from tfrs_fashion.evaluation.checks.doctor import Answers, Examination, Purchases, RankerTraining, examine
from tfrs_fashion.evaluation.report.page import load_metrics
from tfrs_fashion.evaluation.report.scorecard import evaluate_recommender
from tfrs_fashion.features import view as view_module
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.view import View, make_view
from tfrs_fashion.recommenders.kinds import fit_by_name
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.evidence import gather_purchases, make_answers
from tfrs_fashion.run.run import Run
from tfrs_fashion.run.scoring import article_statistics, bought_pairs
from tfrs_fashion.schema import CANDIDATE_COLUMNS, FIRST_INDEX, Tables
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.pipeline import PipelineConfig

K = 12
NUM_CANDIDATES = 50
NAMES = ("popularity_7d", "repurchase", "als")
Break = Callable[[pd.DataFrame], pd.DataFrame]


def ask(recommender: Recommender, view: View, customers: np.ndarray, *, exclude: np.ndarray) -> pd.DataFrame:
    """Makes Candidates without an artifact, each list without the articles in its row of `exclude`."""
    table, index = HistoryTable(view.timelines, view.profiles), tf.constant(customers.astype(np.int32))
    found = recommender(
        table(index), now=tf.gather(tf.constant(view.now), index), k=tf.constant(NUM_CANDIDATES), exclude=exclude
    )
    width = found.article_index.shape[1]
    columns = (
        np.repeat(customers, width),
        *(np.ravel(found.article_index), np.tile(np.arange(1, width + 1), len(customers))),
        *(np.ravel(found.score), np.ravel(found.source).astype(str)),
    )
    rows = pd.DataFrame(dict(zip(CANDIDATE_COLUMNS, columns, strict=True))).astype(CANDIDATE_COLUMNS)
    return rows[rows["article_index"] >= FIRST_INDEX]


def filled(rows: pd.DataFrame, popular: pd.DataFrame) -> pd.DataFrame:
    """Fills lists with popularity, below their lowest score, as artifacts do."""
    lowest = rows.groupby("customer_index")["score"].min()
    below = popular["customer_index"].map(lowest).fillna(0) - popular["rank"]
    joined = pd.concat([rows, popular.assign(score=below, rank=popular["rank"] + NUM_CANDIDATES)])
    joined = joined.drop_duplicates(["customer_index", "article_index"]).sort_values(["customer_index", "rank"])
    joined["rank"] = joined.groupby("customer_index").cumcount() + 1
    return joined[joined["rank"] <= NUM_CANDIDATES].astype(CANDIDATE_COLUMNS).reset_index(drop=True)


@dataclass(frozen=True)
class Case:
    """A pipeline in memory, up to its candidates."""

    config: PipelineConfig
    tables: Tables
    view: View
    target_pairs: pd.DataFrame
    lists: dict[str, tuple[pd.DataFrame, pd.DataFrame]]

    def purchases(self) -> Purchases:
        return gather_purchases(self.view, self.tables.transactions, self.target_pairs)

    def answers(self, name: str, rows: pd.DataFrame, rows_new: pd.DataFrame, **changes: Any) -> Answers:
        articles = article_statistics(self.view, self.tables.articles, categorical=())
        bought = bought_pairs(self.view)
        figures = evaluate_recommender(
            rows, rows_new, self.target_pairs, bought, articles, ks=(K,), num_samples=50
        ).metrics
        return replace(
            make_answers(
                name,
                rows,
                rows_new,
                view=self.view,
                figures=figures,
                k=K,
                fallback="popularity_7d",
                is_arrivals=name.endswith(("siblings", "new_arrivals")),
                is_constant=name.startswith("popularity"),
            ),
            **changes,
        )

    def examine(self, *extra: Answers, purchases: Purchases | None = None, **options: Any) -> Examination:
        """Examines the healthy recommenders, and extra ones beside them."""
        return examine(
            [*(self.answers(name, *rows) for name, rows in self.lists.items()), *extra],
            purchases or self.purchases(),
            num_customers=int(self.tables.customers.count().execute()),
            num_articles=int(self.tables.articles.count().execute()),
            k=K,
            **options,
        )

    def broken(self, change: Break, *, name: str = "als", **changes: Any) -> Examination:
        """Examines a recommender `broken`, whose candidates in both tables are changed from those of a healthy one."""
        rows, rows_new = (change(found.copy()) for found in self.lists[name])
        return self.examine(self.answers("broken", rows, rows_new, **changes))


def make_case(config: PipelineConfig, tables: Tables, timelines: Timelines, split: Split) -> Case:
    view = make_view(
        tables,
        timelines,
        split,
        **config.features.model_dump(include={"categorical", "numbers", "min_articles", "min_customers"}),
        roles=config.features.roles,
        **config.split.store,
    )
    target_pairs = targets(split, tables.transactions).execute()
    customers = np.unique(target_pairs["customer_index"])
    # Customers who were not known before the cutoff have no history.
    assert customers.max() < len(view.now)
    history = bought_pairs(view).groupby("customer_index")["article_index"].agg(list)
    listed = history.reindex(customers).map(lambda found: found if isinstance(found, list) else [])
    seen = tf.ragged.constant(listed.tolist(), dtype=tf.int32).to_tensor()
    lists = {}
    for name in NAMES:
        recommender = fit_by_name(name, view, config.recommender)  # type: ignore[arg-type]
        kinds = [np.zeros([len(customers), 0], np.int32), seen.numpy()]
        lists[name] = [ask(recommender, view, customers, exclude=exclude) for exclude in kinds]
    complete = {
        name: tuple(filled(rows, popular) for rows, popular in zip(found, lists["popularity_7d"], strict=True))
        for name, found in lists.items()
    }
    return Case(config, tables, view, target_pairs, complete)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def case(config: PipelineConfig, tables: Tables, timelines: Timelines, splits: dict[str, Split]) -> Case:
    return make_case(config, tables, timelines, splits["test"])


def caught(examination: Examination, recommender: str | None) -> set[str]:
    """Returns the checks with findings; all findings must concern this recommender, or the run if None."""
    assert {finding.recommender for finding in examination.findings} == {recommender}
    return {finding.check for finding in examination.findings}


# Healthy


@pytest.mark.parametrize("kind", ["window", "last_basket", "share", "leave_one_out"])
def test_healthy_pipeline_has_no_finding(
    kind: Any, config: PipelineConfig, tables: Tables, timelines: Timelines, case: Case
) -> None:
    if kind != "window":
        case = make_case(config, tables, timelines, make_splits(tables.transactions, kind=kind)["test"])
    found = case.examine()
    assert found.findings == ()
    # All checks except those of rankers and of embeddings.
    assert len(found.checks) == 18


def test_tiny_run_has_no_finding(tiny_run: Run) -> None:
    report = tiny_run.folder / "report"
    metrics = load_metrics(report)
    assert metrics["findings"] == []
    assert len(metrics["checks"]) == 19
    assert not [line for line in tiny_run.messages if line.startswith("doctor")]
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "No leakage, collapse or mistake was found." in page


# Rows


def test_future_rows_in_the_view_are_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "visible", lambda split, transactions: transactions)
    leaky = make_view(
        case.tables, case.view.timelines, case.view.split, categorical=[], history=False, article_weeks=False,
        in_store_days=28,
    )  # fmt: skip
    purchases = gather_purchases(leaky, case.tables.transactions, case.target_pairs)
    found = case.examine(purchases=purchases)
    assert {"future_rows", "test_purchases_in_train", "random_split"} <= caught(
        replace(found, findings=tuple(one for one in found.findings if one.recommender is None)), None
    )


def test_uncut_histories_are_found(case: Case, timelines: Timelines) -> None:
    leaky = replace(case.view, timelines=timelines, now=np.full(timelines.num_customers + 2, case.view.now[-1]))
    purchases = gather_purchases(leaky, case.tables.transactions, case.target_pairs)
    found = case.examine(purchases=purchases)
    assert caught(found, None) == {"future_rows"}
    assert "visible timelines" in found.findings[0].seen


def test_window_copied_into_train_is_found(case: Case) -> None:
    shown = case.view.tables.transactions
    copied = target_rows(case.view.split, case.tables.transactions).mutate(t_dat=_.t_dat - ibis.interval(days=14))
    leaky = replace(case.view, tables=replace(case.view.tables, transactions=shown.union(copied)))
    purchases = gather_purchases(leaky, case.tables.transactions, case.target_pairs)
    found = case.examine(purchases=purchases)
    checks = {finding.check for finding in found.findings if finding.recommender is None}
    assert checks == {"test_purchases_in_train"}


def test_random_split_is_found(case: Case) -> None:
    rows = case.tables.transactions.select("customer_index", "article_index", time=_.t_dat, basket=_.basket_id)
    frame = rows.order_by(["customer_index", "time", "article_index"]).execute()
    is_target = np.random.default_rng(1).random(len(frame)) < 0.2
    end = frame["time"].max() + datetime.timedelta(seconds=1)
    latest = frame[~is_target].groupby("customer_index", as_index=False)["time"].max()
    purchases = Purchases(
        visible=frame[~is_target],
        targets=frame[is_target],
        latest={"transactions": latest.rename(columns={"time": "latest"}).assign(cutoff=end)},
    )
    found = examine([], purchases, num_customers=200, num_articles=150, k=K)
    # Lines of one basket fall on both sides as well.
    assert "random_split" in caught(found, None)
    assert "future_rows" not in caught(found, None)


# Answers


def reads(case: Case, kept: Callable[[pd.DataFrame], pd.Series]) -> Break:
    """Returns a change that puts some of the targets at the head of each list."""
    shown = (
        case.target_pairs[kept(case.target_pairs)].assign(rank=0, source="als").astype(case.lists["als"][0].dtypes[:2])
    )

    def change(rows: pd.DataFrame) -> pd.DataFrame:
        highest = rows.groupby("customer_index")["score"].max()
        head = shown.assign(score=shown["customer_index"].map(highest) + 1)
        joined = pd.concat([head, rows]).drop_duplicates(["customer_index", "article_index"])
        joined = joined.sort_values(["customer_index", "rank"], kind="stable")
        joined["rank"] = joined.groupby("customer_index").cumcount() + 1
        return joined[joined["rank"] <= NUM_CANDIDATES].astype(CANDIDATE_COLUMNS).reset_index(drop=True)

    return change


def is_repeat(case: Case, pairs: pd.DataFrame) -> pd.Series:
    bought = pd.MultiIndex.from_frame(bought_pairs(case.view))
    return pd.Series(pd.MultiIndex.from_frame(pairs).isin(bought), index=pairs.index)


def test_recommender_that_reads_the_window_is_found(case: Case) -> None:
    rows = reads(case, lambda pairs: pairs["rank"] if "rank" in pairs else pairs["article_index"] > 0)
    new = reads(case, lambda pairs: ~is_repeat(case, pairs))
    answers = case.answers("broken", rows(case.lists["als"][0]), new(case.lists["als"][1]))
    assert caught(case.examine(answers), "broken") == {"beats_repeat_oracle", "foresees_new_purchases"}


def test_recommender_that_knows_repeat_purchases_is_found(case: Case) -> None:
    rows = reads(case, lambda pairs: is_repeat(case, pairs))(case.lists["als"][0])
    answers = case.answers("broken", rows, case.lists["als"][1])
    assert caught(case.examine(answers), "broken") == {"beats_repeat_oracle"}


def test_recommender_that_knows_new_purchases_is_found(case: Case) -> None:
    change = reads(case, lambda pairs: ~is_repeat(case, pairs))
    assert caught(case.broken(change), "broken") == {"foresees_new_purchases"}


def test_index_with_repeated_articles_is_found(case: Case) -> None:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        first = rows.groupby("customer_index")["article_index"].transform("first")
        return rows.assign(article_index=rows["article_index"].where(rows["rank"] != 2, first))

    assert caught(case.broken(change), "broken") == {"repeated_articles"}


def test_one_list_for_everyone_is_found(case: Case) -> None:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        customers = rows["customer_index"].unique()
        (one,) = [rows[rows["customer_index"] == customers[3]]]
        return pd.concat([one.assign(customer_index=customer) for customer in customers], ignore_index=True)

    rows = change(case.lists["als"][0]).astype(CANDIDATE_COLUMNS)
    answers = case.answers("broken", rows, case.lists["als"][1])
    assert "same_list_for_everyone" in caught(case.examine(answers), "broken")


def test_popularity_under_another_name_is_found(case: Case) -> None:
    found = case.broken(lambda rows: rows.assign(source="broken"), name="popularity_7d")
    assert caught(found, "broken") == {"equals_popularity"}


def test_missing_histories_are_found(case: Case) -> None:
    # The recommender serves nobody, so popularity serves everyone.
    found = case.broken(lambda rows: rows, name="popularity_7d")
    assert caught(found, "broken") == {"answered_by_fallback", "equals_popularity"}


def test_lists_that_differ_in_one_article_are_found(case: Case) -> None:
    popular, rows = (case.lists[name][0] for name in ("popularity_7d", "als"))
    shown = popular[popular["rank"] <= K]
    other = rows[~rows["article_index"].isin(shown["article_index"])]
    own = other.groupby("customer_index")["article_index"].first()
    article_index = shown["article_index"].where(shown["rank"] < K, shown["customer_index"].map(own))
    lists = shown.assign(article_index=article_index, source="broken").astype(CANDIDATE_COLUMNS)
    answers = case.answers("broken", lists, case.lists["als"][1])
    assert caught(case.examine(answers), "broken") == {"concentrated_exposure"}


def test_exclusion_after_the_top_k_is_found(case: Case) -> None:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        kept = rows[(rows["rank"] <= K) & ~is_repeat(case, rows[["customer_index", "article_index"]])]
        return kept.assign(rank=kept.groupby("customer_index").cumcount() + 1)

    # The rest has few hits, which may be reported too.
    assert "short_lists" in caught(case.broken(change), "broken")


def test_articles_out_of_store_are_found(case: Case) -> None:
    gone = np.setdiff1d(bought_pairs(case.view)["article_index"], case.view.articles.in_store)
    assert len(gone) >= 4

    def change(rows: pd.DataFrame) -> pd.DataFrame:
        place = rows["rank"].to_numpy() - 1
        old = gone[np.minimum(place, len(gone) - 1)]
        return rows[~rows["article_index"].isin(gone)].assign(
            article_index=lambda kept: np.where(kept["rank"] <= 4, old[kept.index], kept["article_index"])
        )

    rows = change(case.lists["als"][0])
    answers = case.answers("broken", rows, case.lists["als"][1])
    assert caught(case.examine(answers), "broken") == {"out_of_store"}


def test_customer_indices_of_other_tables_are_found(case: Case) -> None:
    found = case.broken(lambda rows: rows.assign(customer_index=rows["customer_index"] + 200))
    assert caught(found, "broken") == {"unknown_indices", "zero_metrics", "short_lists"}


def test_permuted_article_indices_are_found(case: Case) -> None:
    # As if candidates and targets numbered the articles in different orders.
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        order = np.random.default_rng(1).permutation(case.view.articles.in_store)
        other = dict(zip(case.view.articles.in_store, order, strict=True))
        return rows.assign(article_index=rows["article_index"].map(other).fillna(rows["article_index"]))

    rows = change(case.lists["als"][0]).astype(CANDIDATE_COLUMNS)
    answers = case.answers("broken", rows, case.lists["als"][1])
    assert caught(case.examine(answers), "broken") == {"chance_level"}


@pytest.mark.parametrize(
    ("score", "checks"),
    [
        (lambda rows: rows["score"].where(rows["rank"] != 3), {"scores_not_finite"}),
        (lambda rows: -rows["score"], {"scores_out_of_order"}),
        (lambda rows: 0.0, {"constant_scores"}),
    ],
    ids=["diverged", "a distance", "weights never loaded"],
)
def test_meaningless_scores_are_found(case: Case, score: Callable[[pd.DataFrame], Any], checks: set[str]) -> None:
    assert caught(case.broken(lambda rows: rows.assign(score=score(rows))), "broken") == checks


def test_collapsed_embeddings_are_found(case: Case) -> None:
    spread = np.random.default_rng(1).normal(size=(114, 16))
    assert case.broken(lambda rows: rows, embedding=spread).findings == ()
    found = case.broken(lambda rows: rows, embedding=1 + 0.001 * spread)
    assert caught(found, "broken") == {"embedding_rank"}


# Rankers


def training(case: Case, seen: ibis.Table, **fitted_as_of: datetime.datetime) -> RankerTraining:
    """Makes the window a ranker's week: pairs of its customers and articles in store, and when each pair was last bought."""
    labels = pd.MultiIndex.from_frame(case.target_pairs)
    pairs = pd.MultiIndex.from_product([case.target_pairs["customer_index"].unique(), case.view.articles.in_store])
    last = seen.group_by(["customer_index", "article_index"]).agg(last=_.t_dat.max(), times=_.count()).execute()
    found = last.set_index(["customer_index", "article_index"]).reindex(pairs)
    days = (pd.Timestamp(case.view.split.as_of) - found["last"]).dt.total_seconds() / 86_400
    features = pd.DataFrame({"days_since_bought": days.to_numpy(), "times_bought": found["times"].to_numpy()})
    return RankerTraining("two_stage", fitted_as_of, case.view.split.as_of, features, pairs.isin(labels))


def test_ranker_trained_on_earlier_data_has_no_finding(case: Case) -> None:
    ranker = training(case, case.view.transactions, als=case.view.split.as_of)
    found = case.examine(rankers=[ranker])
    assert found.findings == ()
    assert {"telling_feature", "generators_saw_ranker_weeks"} <= set(found.checks)


def test_feature_that_contains_the_label_is_found(case: Case) -> None:
    ranker = training(case, case.tables.transactions, als=case.view.split.as_of)
    found = case.examine(rankers=[ranker])
    assert caught(found, "two_stage") == {"telling_feature"}
    assert "`days_since_bought`" in found.findings[0].seen


def test_generators_fitted_after_the_ranker_week_are_found(case: Case) -> None:
    as_of = case.view.split.as_of
    ranker = training(case, case.view.transactions, als=as_of + datetime.timedelta(days=7), item_knn=as_of)
    found = case.examine(rankers=[ranker])
    assert caught(found, "two_stage") == {"generators_saw_ranker_weeks"}
    assert len(found.findings) == 1


# The command


def test_leaky_run_reports_errors_in_its_messages_and_its_report(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "visible", lambda split, transactions: transactions)
    settings = [f"export.folder={tmp_path}", 'recommenders=["popularity_7d"]', "recommend.recommender=popularity_7d"]
    run = Run(config=load_config(root / "pipelines" / "tiny.toml", settings), folder=tmp_path / "run")
    run.evaluate()
    errors = [line for line in run.messages if line.startswith("doctor: error: ")]
    assert any("customers have visible transactions at or after their cutoff" in line for line in errors)
    metrics = load_metrics(run.folder / "report")
    assert "future_rows" in [finding["check"] for finding in metrics["findings"]]
    assert "future_rows" in (run.folder / "report" / "report.html").read_text(encoding="utf-8")
