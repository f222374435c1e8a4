"""The rolling back-test: which windows, what may be seen before each, and what is kept."""

import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.data.split import Split
from tfrs_fashion.evaluation.report.page import load_metrics
from tfrs_fashion.run.backtest import Backtest, rolling_windows
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.pipeline import load_config

SETTINGS = (
    'recommenders=["popularity_7d", "repurchase", "als", "basket_mlp", "blend"]',
    'blend.generators=["repurchase", "popularity_7d"]',
    "recommend.recommender=repurchase",
    "generators.basket_mlp.epochs=2",
    "blend.weeks=1",
    "blend.num_candidates=30",
    "blend.budget=20",
)


def make_backtest(root: Path, folder: Path, *settings: str) -> Backtest:
    released = f"export.folder={folder / 'released'}"
    config = load_config(root / "pipelines" / "tiny.toml", [released, *SETTINGS, *settings])
    return Backtest(config=config, folder=folder / "run")


@pytest.fixture(scope="module")
def tested(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    run = make_backtest(root, tmp_path_factory.mktemp("backtest"))
    run.backtest(num_windows=2)
    return run


def document(run: Backtest) -> dict[str, object]:
    found: dict[str, object] = json.loads((run.folder / "backtest" / "report" / "metrics.json").read_text())
    return found


def test_windows_roll_back_from_the_test_window_and_settings_are_chosen_before_them_all() -> None:
    test = Split(name="test", kind="window", as_of=datetime.datetime(2024, 3, 24))
    windows = rolling_windows(test, num_windows=3, test_days=7, validation_days=5)
    assert [f"{window.as_of:%m-%d}" for window in windows] == ["03-05", "03-10", "03-17", "03-24"]
    assert [window.end and f"{window.end:%m-%d}" for window in windows] == ["03-10", "03-17", "03-24", None]


def test_a_split_by_customer_has_one_test_and_no_windows(root: Path, tmp_path: Path) -> None:
    run = make_backtest(
        root,
        tmp_path,
        "split.kind=leave_one_out",
        "split.in_store_days=400",
        'recommenders=["popularity_7d", "repurchase"]',
    )
    with pytest.raises(InputError, match=r'`split\.kind` is "leave_one_out", .*ask for 1 window'):
        run.backtest(num_windows=2)
    run.backtest(num_windows=1)
    run.evaluate()
    reported = load_metrics(run.folder / "report")["recommenders"]
    (judged,) = (run.folder / "backtest").glob("*/repurchase/customers.parquet")
    found = pd.read_parquet(judged)
    assert found["recall@12"].sum() == (found["hit_rate@12"] > 0).sum() > 0  # one article of each
    for metric in ("ndcg@12", "recall@50"):
        assert found[metric].mean() == pytest.approx(reported["repurchase"][metric]["value"], abs=1e-9)


def test_a_window_that_nothing_lies_before_is_refused(root: Path, tmp_path: Path) -> None:
    run = make_backtest(root, tmp_path)
    with pytest.raises(InputError, match=r"nothing was bought in the week from .*Ask for fewer than 500 windows"):
        run.backtest(num_windows=500)


def test_the_test_window_is_judged_as_the_report_judges_it(tested: Backtest) -> None:
    """The report's figures come from the artifacts; these come from recommenders fitted again."""
    tested.evaluate()
    reported = load_metrics(tested.folder / "report")["recommenders"]
    last = sorted(path for path in (tested.folder / "backtest").iterdir() if path.name.startswith("20"))[-1]
    for name in ("popularity_7d", "repurchase", "als"):
        found = pd.read_parquet(last / name / "customers.parquet")
        for metric in ("map@12", "recall@12", "mrr@12", "recall@50", "map@12_new"):
            assert found[metric].mean() == pytest.approx(reported[name][metric]["value"], abs=1e-9), (name, metric)


def test_a_window_is_judged_by_what_came_before_it_alone(tested: Backtest) -> None:
    """Popularity of the first window, counted with pandas."""
    first = sorted(path for path in (tested.folder / "backtest").iterdir() if path.name.startswith("20"))[0]
    start = pd.Timestamp(first.name)
    rows = tested.tables.transactions.execute()
    named = rows[rows["customer_index"] >= 2]
    week = rows[(rows["t_dat"] < start) & (rows["t_dat"] >= start - pd.Timedelta(days=7))]
    counts = pd.DataFrame(
        {
            "baskets": week.drop_duplicates(["basket_id", "article_index"]).groupby("article_index").size(),
            "last_sold": week.groupby("article_index")["t_dat"].max(),
        }
    )
    best = counts.sort_index().sort_values(["baskets", "last_sold"], ascending=False, kind="stable").index[:12]
    bought = named[(named["t_dat"] >= start) & (named["t_dat"] < start + pd.Timedelta(days=7))]
    wanted = bought.drop_duplicates(["customer_index", "article_index"]).groupby("customer_index")["article_index"]
    recall = wanted.apply(lambda articles: np.isin(articles, best).mean())
    found = pd.read_parquet(first / "popularity_7d" / "customers.parquet").set_index("customer_index")["recall@12"]
    pd.testing.assert_series_equal(found, recall, check_names=False, check_dtype=False, check_index_type=False)


def test_the_page_names_what_was_chosen_and_on_which_days(tested: Backtest) -> None:
    found = document(tested)
    windows = [window["start"] for window in found["windows"]]  # type: ignore[attr-defined]
    assert len(windows) == 2
    assert str(found["chosen_on"]) < windows[0]
    assert set(found["chosen"]) == {"basket_mlp", "blend"}  # type: ignore[call-overload]
    assert 1 <= found["chosen"]["basket_mlp"]["epochs"] <= 2  # type: ignore[index]
    page = (tested.folder / "backtest" / "report" / "backtest.html").read_text(encoding="utf-8")
    assert f"Settings were chosen on the window from {found['chosen_on']}, before the first test window" in page


def test_what_is_judged_is_not_judged_again(root: Path, tested: Backtest) -> None:
    places = list((tested.folder / "backtest").rglob("stage.json"))
    before = {path: path.stat().st_mtime_ns for path in places}
    make_backtest(root, tested.folder.parent).backtest(num_windows=2)
    assert {path: path.stat().st_mtime_ns for path in places} == before


def test_more_windows_keep_those_that_nothing_was_chosen_for(root: Path, tested: Backtest) -> None:
    last = sorted(path for path in (tested.folder / "backtest").iterdir() if path.name.startswith("20"))[-1]
    before = (last / "als" / "stage.json").stat().st_mtime_ns
    settings = ('recommenders=["popularity_7d", "als"]', "recommend.recommender=als")
    run = make_backtest(root, tested.folder.parent, *settings)
    run.backtest(num_windows=3)
    assert (last / "als" / "stage.json").stat().st_mtime_ns == before
    assert list(document(run)["recommenders"]) == ["popularity_7d", "als"]  # type: ignore[call-overload]
