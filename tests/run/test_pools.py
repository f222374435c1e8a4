"""Pools of past weeks: which weeks, who made them, and what a run keeps of them."""

import datetime
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.data.split import Split, targets, visible
from tfrs_fashion.evaluation.report.page import load_metrics
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.blend import Blend
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.run.pools import label_pool, past_weeks, seen_until
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.pipeline import load_config

SETTINGS = (
    "recommenders=['popularity_7d', 'blend']",
    "recommend.recommender=blend",
    "blend.generators=['repurchase', 'repurchase_decayed', 'item_knn', 'popularity_7d']",
    "blend.weeks=2",
    "blend.validation_weeks=2",
    "blend.num_candidates=30",
    "blend.budget=20",
    "evaluation.num_clusters=0",
)


def make_run(root: Path, folder: Path, *settings: str) -> Run:
    released = f"export.folder={folder / 'released'}"
    return Run(
        config=load_config(root / "pipelines" / "tiny.toml", [released, *SETTINGS, *settings]), folder=folder / "run"
    )


@pytest.fixture(scope="module")
def blended(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(root, tmp_path_factory.mktemp("blended"))
    run.everything()
    return run


@pytest.mark.parametrize(
    ("as_of", "starts"),
    [
        (datetime.datetime(2024, 3, 15), ["2024-03-08", "2024-03-01"]),
        # What ends within a day counts that day whole, so that a release shares its weeks with the test.
        (datetime.datetime(2024, 3, 14, 20, 15, 1), ["2024-03-08", "2024-03-01"]),
    ],
)
def test_weeks_end_at_midnight_and_never_overlap(as_of: datetime.datetime, starts: list[str]) -> None:
    weeks = past_weeks(Split(name="test", kind="window", as_of=as_of), num_weeks=2, week_days=7)
    assert [f"{week.as_of:%Y-%m-%d}" for week in weeks] == starts
    assert [week.end for week in weeks] == [datetime.datetime(2024, 3, 15), datetime.datetime(2024, 3, 8)]


def test_a_week_hides_what_its_split_hides(blended: Run) -> None:
    """Where each customer has a cutoff of their own, a week lies behind all of them."""
    run = make_run(Path(__file__).parent.parent.parent, blended.folder.parent / "share", "split.kind=share")
    run.prepare()
    split = run.splits["test"]
    week, *_others = past_weeks(split, num_weeks=3, week_days=30)
    seen = visible(split, run.tables.transactions).execute()
    asked = targets(week, run.tables.transactions).execute()
    pairs = set(zip(seen["customer_index"], seen["article_index"], strict=True))
    assert len(asked) > 0
    assert set(zip(asked["customer_index"], asked["article_index"], strict=True)) <= pairs
    # The release sees what the test split hides, so it has weeks of its own, though their days are the same.
    released = past_weeks(run.splits["release"], num_weeks=3, week_days=30)[0]
    assert (released.as_of, released.end) == (week.as_of, week.end)
    assert run._pooled(released) != run._pooled(week)
    assert run._pool_folder(released) != run._pool_folder(week)


def test_a_pool_holds_what_generators_of_before_the_week_say(blended: Run) -> None:
    week = past_weeks(blended.splits["test"], num_weeks=1, week_days=7)[0]
    (pool,) = blended.pools(blended.splits["test"], num_weeks=1)
    lines = blended.tables.transactions.execute()
    before = lines[lines["t_dat"] < week.as_of]
    during = lines[(lines["t_dat"] >= week.as_of) & (lines["t_dat"] < week.end)]
    bought = during.groupby("customer_index")["article_index"].agg(set)
    customers = bought.index.to_numpy()
    assert pool.num_bought.tolist() == bought.map(len).tolist()
    baskets = before.drop_duplicates(["customer_index", "article_index", "t_dat"])
    counts = baskets.groupby(["customer_index", "article_index"]).size()
    again = pool.rank[:, 0] > 0
    assert again.sum() > 100
    for customer, article, rank, score, is_bought in zip(
        customers[pool.customer], pool.article_index, pool.rank, pool.score, pool.is_bought, strict=True
    ):
        assert is_bought == (article in bought[customer])
        # The first generator is repurchase: its score is the count of baskets before the week.
        assert score[0] == (counts[customer, article] if rank[0] else 0)


def test_a_week_of_newcomers_has_a_pool_of_nobody(blended: Run) -> None:
    week = past_weeks(blended.splits["test"], num_weeks=1, week_days=7)[0]
    view = blended._make_view(week)
    newcomers = pd.DataFrame({"customer_index": np.int32([len(view.now), len(view.now) + 1]), "article_index": 2})
    generators = [fit_recommender(name, view, blended.config, choice={}) for name in ("repurchase", "popularity_7d")]
    pool = label_pool(view, newcomers, generators, num_candidates=30, batch_size=64)
    assert pool.rank.shape == (0, 2)
    assert len(pool.num_bought) == len(pool.customer_index) == 0


def test_splits_share_their_weeks(blended: Run) -> None:
    # Two weeks before the test and two more to choose by, and the test week itself, for the release.
    assert len(list((blended.folder / "pools").iterdir())) == 5
    kept = {path: path.stat().st_mtime_ns for path in (blended.folder / "pools").rglob("pool.npz")}
    blended.pools(blended.splits["release"], num_weeks=2)
    assert {path: path.stat().st_mtime_ns for path in (blended.folder / "pools").rglob("pool.npz")} == kept


def test_validation_chooses_and_the_table_of_generators_is_kept(blended: Run) -> None:
    chosen = blended._chosen("blend")
    evidence = chosen["blend"]
    assert chosen["choice"] == {"method": max(evidence["recall"], key=evidence["recall"].get)}
    assert [row["name"] for row in evidence["contributions"]] == list(blended.config.blend.generators)
    assert all(0 <= row["marginal_recall"] <= row["recall"] <= evidence["pool"] for row in evidence["contributions"])
    assert max(evidence["recall"].values()) <= evidence["pool"] <= 1
    assert [week["start"] for week in evidence["weeks"]] == sorted(
        (path.name for path in list((blended.folder / "pools").iterdir())), reverse=True
    )[1:3]
    report = (blended.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "Where candidates come from" in report
    for row in evidence["contributions"]:
        assert f'<th scope="row">{row["name"]}</th>' in report
    assert json.loads((blended.folder / "report" / "metrics.json").read_text())["blend"] == evidence
    blend = blended._load("blend")
    assert isinstance(blend, Blend)
    assert (blend._selector is not None) == (evidence["method"] == "selector")


def test_the_doctor_is_shown_what_the_blend_learned_from(blended: Run) -> None:
    checks = load_metrics(blended.folder / "report")["checks"]
    assert {"generators_saw_ranker_weeks", "telling_feature"} <= set(checks)
    shown = blended.blend_training(blended.splits["test"])
    weeks = past_weeks(blended.splits["test"], num_weeks=4, week_days=7)
    assert [ranker.first_week for ranker in shown] == [week.as_of for week in weeks]
    pools = blended.pools(blended.splits["test"], num_weeks=4)
    for ranker, pool in zip(shown, pools, strict=True):
        assert ranker.fitted_as_of == dict.fromkeys(blended.config.blend.generators, ranker.first_week)
        assert len(ranker.labels) == len(ranker.features) == len(pool.customer)
        # In another order, the rows of a pair are still its own: what repurchase ranks first is bought as often.
        first = ranker.features["rank repurchase"].to_numpy() == 1
        assert ranker.labels[first].sum() == pool.is_bought[pool.rank[:, 0] == 1].sum() > 0


def test_rows_beyond_the_cutoff_are_seen_whatever_the_split_says(view: View) -> None:
    assert seen_until(view) == view.split.as_of
    late = view.timelines.time.copy()
    late[-1] = int(view.now[0]) + 3600
    beyond = replace(view, timelines=replace(view.timelines, time=late))
    assert seen_until(beyond) == datetime.datetime(1970, 1, 1) + datetime.timedelta(
        seconds=int(late[-1]), microseconds=1
    )


def test_generators_that_saw_the_week_are_found_by_what_was_stored(blended: Run, tmp_path: Path) -> None:
    shutil.copytree(blended.folder, tmp_path / "run")
    run = Run(config=blended.config, folder=tmp_path / "run")
    week = past_weeks(run.splits["test"], num_weeks=1, week_days=7)[0]
    path = run._pool_folder(week) / "week.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    # As if it had been fitted on the week itself.
    record["fitted_as_of"]["item_knn"] = str(week.end)
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")
    run.evaluate(force=True)
    told = [line for line in run.messages if "was fitted on rows until" in line]
    assert told == [
        f"doctor: error: blend: item_knn was fitted on rows until {week.end}, but the ranker's labels begin on {week.as_of}. "
        "Fit item_knn on the rows before each week that trains the ranker, or begin those weeks later."
    ]


def test_a_pool_that_is_gone_is_not_shown(blended: Run, tmp_path: Path) -> None:
    shutil.copytree(blended.folder, tmp_path / "run")
    run = Run(config=blended.config, folder=tmp_path / "run")
    shutil.rmtree(next(iter(sorted((run.folder / "pools").iterdir()))))
    assert run.blend_training(run.splits["test"]) == []


def test_only_what_is_judged_is_exported(blended: Run) -> None:
    assert sorted(path.name for path in (blended.folder / "saved_models").iterdir()) == ["blend", "popularity_7d"]
    assert {path.name for path in (blended.folder / "models").iterdir()} == {
        *("blend", "popularity_7d", "repurchase", "repurchase_decayed", "item_knn")
    }


def test_weeks_before_the_data_are_refused(root: Path, tmp_path: Path) -> None:
    run = make_run(root, tmp_path, "blend.weeks=30")
    with pytest.raises(InputError, match=r"^blend\.weeks: the week from .* 3\d weeks before .* lower `blend\.weeks`"):
        run.train()


@pytest.mark.parametrize("method", ["selector", "quotas"])
def test_a_method_may_be_set(root: Path, tmp_path: Path, method: str) -> None:
    run = make_run(root, tmp_path, f"blend.method={method}", "blend.generators=['repurchase', 'popularity_7d']")
    run.train()
    blend = run._load("blend")
    assert isinstance(blend, Blend)
    assert (blend._selector is not None) == (method == "selector")
    assert np.isfinite(blend._quotas.numpy()).all()
