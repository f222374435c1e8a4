"""The stages of a run: what is skipped, what is repeated, what is written."""

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from ibis import _

from tfrs_fashion.data.sources import load_source
from tfrs_fashion.evaluation.report.page import load_metrics
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.run import workspace as preparation
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import FIRST_INDEX, InputError, Tables
from tfrs_fashion.serving.export import artifact_hash
from tfrs_fashion.settings.pipeline import load_config

PIPELINE = Path(__file__).parent.parent.parent / "pipelines" / "tiny.toml"


def again(run: Run, *overrides: str) -> Run:
    """A new process's view of the same run folder."""
    config = load_config(PIPELINE, [f"export.folder={run.config.export.folder}", *overrides])
    return Run(config=config, folder=run.folder)


def times(run: Run) -> dict[str, int]:
    """When each stage was written."""
    places = [*run.folder.rglob("stage.json"), *Path(run.config.export.folder).rglob("stage.json")]
    return {str(path.parent): path.stat().st_mtime_ns for path in places}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of this module's own, without towers, that its tests may repeat."""
    folder = tmp_path_factory.mktemp("small")
    config = load_config(PIPELINE, [f"export.folder={folder / 'released'}", *SMALL])
    run = Run(config=config, folder=folder / "run")
    run.everything()
    return run


SMALL = ('recommenders=["popularity_7d", "repurchase", "als"]', "recommend.recommender=repurchase")


def cold_targets(run: Run) -> pd.DataFrame:
    """What was bought in the window of articles never sold before it."""
    bought = run._targets("test")
    return bought[~bought["article_index"].isin(run.view("test").timelines.article_index)]


def test_metrics_are_in_the_agreed_layout(tiny_run: Run) -> None:
    metrics = load_metrics(tiny_run.folder / "report")
    assert list(metrics["recommenders"]) == list(tiny_run.config.servable)
    assert metrics["customers"] > 50
    cold = cold_targets(tiny_run)
    for name, figures in metrics["recommenders"].items():
        # The list of new arrivals is no longer than that of candidates, of which tiny has 50.
        assert figures["customers@50_cold_start_articles"]["value"] == cold["customer_index"].nunique()
        for metric in ("map@12", "recall@12", "ndcg@12", "map@12_new", "recall@50", "coverage@12", "diversity@12"):
            assert figures[metric]["low"] <= figures[metric]["value"] <= figures[metric]["high"]
        assert metrics["artifact"][name] == artifact_hash(tiny_run.folder / "saved_models" / name / "1")
    assert (
        metrics["recommenders"]["repurchase"]["map@12"]["value"]
        > metrics["recommenders"]["popularity_7d"]["map@12"]["value"]
    )
    assert (tiny_run.folder / "report" / "report.html").read_text().startswith("<!doctype html>")


def test_the_report_tells_groups_near_misses_sources_and_a_verdict(tiny_run: Run) -> None:
    metrics = load_metrics(tiny_run.folder / "report")
    judged = tiny_run._targets("test")
    for name, figures in metrics["recommenders"].items():
        for dimension in ("activity", "age", "status"):
            sizes = [found["value"] for key, found in figures.items() if key.startswith(f"customers@12_{dimension}=")]
            assert len(sizes) > 1
            assert sum(sizes) == metrics["customers"]
        # A hit is also one of the same product and of the same category.
        for group in ("product", "category"):
            assert figures["hit_rate@12"]["value"] <= figures[f"hit_rate@12_{group}"]["value"]
        if name not in tiny_run.config.new_arrivals:
            assert sum(source["share"] for source in metrics["sources"][name]) == pytest.approx(1)
        assert metrics["curves"][name]["recall"][-1] == pytest.approx(figures["recall@50"]["value"])
    assert metrics["verdict"]["recommender"] in {*tiny_run.config.servable} - {*tiny_run.config.new_arrivals}
    in_store = tiny_run.view("test").articles.in_store
    bought = np.intersect1d(judged["article_index"], in_store)
    assert metrics["bought"]["coverage@12"]["value"] == pytest.approx(len(bought) / len(in_store))


def test_the_report_describes_clusters_of_what_the_towers_knew(tiny_run: Run) -> None:
    folder, view = tiny_run.folder / "report", tiny_run.view("test")
    told = load_metrics(folder)["clusters"]
    assert {path.stem for path in (folder / "figures").iterdir()} == {*told, "accuracy_curves", "roc_of_rank"}
    articles = pd.read_csv(folder / "article_clusters.csv", dtype={"article_id": str})
    in_store = view.articles.article_id[view.articles.in_store - FIRST_INDEX]
    assert set(articles["article_id"]) == set(in_store)
    customers = pd.read_csv(folder / "customer_clusters.csv", dtype={"customer_id": str})
    judged = set(tiny_run._targets("test")["customer_index"]) & set(view.transactions.customer_index.execute())
    ids = tiny_run.tables.customers.order_by("customer_index").customer_id.execute()
    assert set(customers["customer_id"]) == set(ids[np.array(sorted(judged)) - FIRST_INDEX])
    for name, assigned in (("article_clusters", articles), ("customer_clusters", customers)):
        sizes = assigned["cluster"].value_counts().sort_index()
        assert [cluster["size"] for cluster in told[name]] == sizes.tolist() == sorted(sizes, reverse=True)
    # In-store articles were all sold since.
    assert sum(cluster["figures"]["share_of_sales"] for cluster in told["article_clusters"]) == pytest.approx(1)
    assert "Clusters of customers" in (folder / "report.html").read_text()


def test_without_towers_or_wish_there_are_no_clusters(
    small_run: Run, tiny_run: Run, tiny_settings: tuple[str, ...]
) -> None:
    assert "clusters" not in load_metrics(small_run.folder / "report")
    figures = small_run.folder / "report" / "figures"
    assert {path.name for path in figures.iterdir()} == {"accuracy_curves.png", "roc_of_rank.png"}
    assert "Clusters" not in (small_run.folder / "report" / "report.html").read_text()
    assert tiny_run._has_clusters
    assert not again(tiny_run, *tiny_settings, "evaluation.num_clusters=0")._has_clusters


def test_new_arrivals_are_judged_and_not_compared_with_what_is_sold(tiny_run: Run) -> None:
    metrics = load_metrics(tiny_run.folder / "report")
    compared = {name for found in metrics["differences"] for name in (found["recommender"], found["baseline"])}
    assert compared == {*tiny_run.config.servable} - {*tiny_run.config.new_arrivals}
    never_sold = set(tiny_run.view("test").articles.never_sold.tolist())
    assert never_sold
    cold = cold_targets(tiny_run)
    for name in tiny_run.config.new_arrivals:
        candidates = pd.read_parquet(tiny_run.folder / "candidates" / name / "candidates.parquet")
        assert set(candidates["article_index"]) <= never_sold
        figures = metrics["recommenders"][name]
        assert figures["customers@50_cold_start_articles"]["value"] == cold["customer_index"].nunique()
        pairs = set(candidates[["customer_index", "article_index"]].itertuples(index=False, name=None))
        found = cold.assign(
            hit=[pair in pairs for pair in cold[["customer_index", "article_index"]].itertuples(index=False, name=None)]
        )
        expected = found.groupby("customer_index")["hit"].mean().mean()
        if len(cold):
            assert figures["recall@50_cold_start_articles"]["value"] == pytest.approx(expected)


def read_ranks(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.folder / "target_ranks" / name / "target_ranks.parquet")


def test_every_article_in_store_is_ranked_for_some_customers(tiny_run: Run) -> None:
    view, judged = tiny_run.view("test"), tiny_run._targets("test")
    names = ["popularity_7d", "repurchase", "als", "two_tower"]
    assert sorted(path.name for path in (tiny_run.folder / "target_ranks").iterdir()) == sorted(names)
    first = read_ranks(tiny_run, names[0])
    asked = first["customer_index"].unique()
    # All that the customers drawn bought of what was in store; tiny asks for 60 of them.
    in_store = judged[judged["article_index"].isin(view.articles.in_store)]
    expected = in_store[in_store["customer_index"].isin(asked)].reset_index(drop=True)
    assert len(asked) == 60 < in_store["customer_index"].nunique()
    figures = load_metrics(tiny_run.folder / "report")["recommenders"]
    for name in names:
        ranks = read_ranks(tiny_run, name)
        pair = ["customer_index", "article_index"]
        np.testing.assert_array_equal(ranks[pair], expected[pair])
        assert set(ranks["num_ranked"]) == {len(view.articles.in_store)}
        # One customer after another, by counting the pairs of what was bought and what was not.
        areas = []
        for _customer, rows in ranks.groupby("customer_index"):
            others = set(range(1, len(view.articles.in_store) + 1)) - set(rows["rank"])
            areas.append(np.mean([rank < other for rank in rows["rank"] for other in others]))
        assert figures[name]["auc"]["value"] == pytest.approx(np.mean(areas))
        assert figures[name]["auc"]["value"] > 0.6
    # What is not judged so has no such figure.
    assert [name for name, found in figures.items() if "auc" in found] == names
    assert figures["popularity_7d"]["named"]["value"] == figures["two_tower"]["named"]["value"] == 1
    assert 0 < figures["repurchase"]["named"]["value"] < 1
    assert "Every article in store ranked" in (tiny_run.folder / "report" / "report.html").read_text()


def test_ranks_are_those_of_what_the_artifact_serves(tiny_run: Run) -> None:
    in_store = tiny_run.view("test").articles.in_store
    # Asked for 50 candidates, popularity is never filled up, and neither are the towers where there is a history.
    has_history = tiny_run.view("test").transactions.customer_index.execute().unique()
    for name in ("popularity_7d", "two_tower"):
        served = pd.read_parquet(tiny_run.folder / "candidates" / name / "candidates.parquet")
        served = served[served["article_index"].isin(in_store) & served["customer_index"].isin(has_history)]
        served["place"] = served.sort_values("rank").groupby("customer_index").cumcount() + 1
        both = read_ranks(tiny_run, name).merge(
            served, on=["customer_index", "article_index"], suffixes=("", "_served")
        )
        assert len(both) > 50
        assert both["rank"].tolist() == both["place"].tolist()


def test_full_rankings_are_made_for_others_if_their_number_changes_and_not_unless_wanted(
    small_run: Run, tmp_path: Path
) -> None:
    before = times(small_run)
    again(small_run, *SMALL, "evaluation.full_ranking_customers=7").evaluate()
    changed = {
        str(Path(name).relative_to(small_run.folder)) for name, when in times(small_run).items() if before[name] != when
    }
    assert changed == {"target_ranks/popularity_7d", "target_ranks/repurchase", "target_ranks/als", "report"}
    assert {read_ranks(small_run, name)["customer_index"].nunique() for name in ("als", "repurchase")} == {7}
    # At the first purchase of each, days later, what was bought lately weighs less.
    asked = read_ranks(small_run, "als")
    later = again(small_run, *SMALL, "evaluation.full_ranking_customers=7", "evaluation.full_ranking_at=first_purchase")
    later.evaluate()
    pair = ["customer_index", "article_index"]
    assert read_ranks(small_run, "als")[pair].equals(asked[pair])
    page = html.unescape((small_run.folder / "report" / "report.html").read_text())
    assert "at the time of each customer's first purchase" in page
    again(small_run, *SMALL, "evaluation.full_ranking_customers=0").evaluate()
    told = load_metrics(small_run.folder / "report")
    assert "roc" not in told
    assert not any("auc" in figures for figures in told["recommenders"].values())
    assert "Every article in store ranked" not in (small_run.folder / "report" / "report.html").read_text()
    again(small_run, *SMALL).evaluate()  # as the next test expects it


def test_every_customer_is_answered_in_both_files(tiny_run: Run) -> None:
    folder = tiny_run.folder / "recommendations"
    parquet = pd.read_parquet(folder / "recommendations.parquet")
    csv = pd.read_csv(folder / "recommendations.csv", dtype={"customer_id": str, "article_id": str})
    assert csv["article_id"].str.startswith("0").all()
    pd.testing.assert_frame_equal(parquet.drop(columns="score"), csv.drop(columns="score"), check_dtype=False)
    customers = set(tiny_run.tables.customers.customer_id.execute())
    assert set(parquet["customer_id"]) == customers
    assert len(parquet) == 12 * len(customers)
    assert not parquet.duplicated(["customer_id", "article_id"]).any()


def test_released_artifacts_have_seen_all_data(tiny_run: Run) -> None:
    released = Path(tiny_run.config.export.folder)
    assert {path.name for path in released.iterdir()} == {*tiny_run.config.servable, "models.config", ".lock"}
    metadata = json.loads((released / "two_tower" / "1" / "metadata.json").read_text())
    last = tiny_run.tables.transactions.t_dat.max().execute()
    assert pd.Timestamp(metadata["split"]["as_of"]) > last
    config = (released / "models.config").read_text()
    assert config.count("base_path") == len(tiny_run.config.servable)


def test_a_finished_run_is_not_repeated(tiny_run: Run, tiny_settings: tuple[str, ...]) -> None:
    before = times(tiny_run)
    again(tiny_run, *tiny_settings).everything()
    assert times(tiny_run) == before


def test_one_seed_gives_one_result(tiny_run: Run, tiny_settings: tuple[str, ...], tmp_path: Path) -> None:
    # ScaNN trains its partitions with threads, so that it is left out.
    without_scann = 'index.kinds=["exact", "new_arrivals"]'
    settings = [f"export.folder={tmp_path / 'released'}", *tiny_settings, without_scann]
    other = Run(config=load_config(PIPELINE, settings), folder=tmp_path / "run")
    other.everything()
    left, right = (
        pd.read_parquet(run.folder / "recommendations" / "recommendations.parquet") for run in (tiny_run, other)
    )
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    figures = [load_metrics(run.folder / "report")["recommenders"] for run in (tiny_run, other)]
    exact = [{name: found for name, found in each.items() if name != "two_tower_scann"} for each in figures]
    assert {*exact[1]} == {*tiny_run.config.servable} - {"two_tower_scann"}
    assert exact[0] == exact[1]
    for name in other.config.servable:
        one, two = (run.folder / "saved_models" / name / "1" for run in (tiny_run, other))
        check_equal_artifacts(one, two)


def check_equal_artifacts(one: Path, two: Path) -> None:
    """Compares two artifacts bit by bit: weights, tables, vocabularies, and the metadata but for where and from which commit."""
    readers = [tf.train.load_checkpoint(str(folder / "variables" / "variables")) for folder in (one, two)]
    names = [sorted(reader.get_variable_to_shape_map()) for reader in readers]
    assert names[0] == names[1]
    for name in names[0]:
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH":  # how its nodes are numbered
            left, right = (np.asarray(reader.get_tensor(name)) for reader in readers)
            assert left.tobytes() == right.tobytes() if left.dtype != object else left.tolist() == right.tolist(), name
    assets = [sorted(path.name for path in (folder / "assets").iterdir()) for folder in (one, two)]
    assert assets[0] == assets[1]
    for asset in assets[0]:
        assert (one / "assets" / asset).read_bytes() == (two / "assets" / asset).read_bytes()
    told = [json.loads((folder / "metadata.json").read_text()) for folder in (one, two)]
    for found in told:
        found["config"].pop("export")
        found["config"].pop("index")
        found.pop("git_commit")
    assert told[0] == told[1]


def test_a_changed_setting_repeats_only_what_depends_on_it(small_run: Run) -> None:
    before = times(small_run)
    again(small_run, *SMALL, "generators.als.alpha=2.0").evaluate()
    changed = {
        str(Path(name).relative_to(small_run.folder)) for name, when in times(small_run).items() if before[name] != when
    }
    assert changed == {"models/als", "saved_models/als/1", "candidates/als", "target_ranks/als", "report"}


def test_a_release_gets_the_next_version_and_keeps_the_former(small_run: Run) -> None:
    folder = Path(small_run.config.export.folder) / "repurchase"
    before = artifact_hash(folder / "1")
    again(small_run, *SMALL).release(force=True)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    assert artifact_hash(folder / "1") == before


def test_another_pipelines_artifacts_are_not_succeeded(small_run: Run) -> None:
    with pytest.raises(InputError, match=r"released by pipeline `tiny`.*Set `export.folder`"):
        again(small_run, *SMALL, "name=other").release(force=True)


def test_another_pipelines_artifacts_are_seen_before_anything_is_done(small_run: Run, tmp_path: Path) -> None:
    config = load_config(PIPELINE, [f"export.folder={small_run.config.export.folder}", *SMALL, "name=other"])
    verbs = (Run.everything, Run.release, Run.recommend)
    for verb in verbs:
        run = Run(config=config, folder=tmp_path / "run")
        with pytest.raises(InputError, match=r"released by pipeline `tiny`"):
            verb(run)
        assert not run.folder.exists()


def test_too_few_articles_for_scann_are_told_before_anything_is_fitted(tmp_path: Path) -> None:
    settings = [
        f"export.folder={tmp_path / 'released'}",
        "data.num_articles=15",
        'index.kinds=["exact", "scann"]',
        'recommenders=["popularity_7d", "two_tower"]',
    ]
    run = Run(config=load_config(PIPELINE, settings), folder=tmp_path / "run")
    with pytest.raises(InputError, match=r"`scann` needs at least 16 articles in store, found 1\d\."):
        run.train()
    assert (run.folder / "timelines").exists()
    assert not (run.folder / "models").exists()


def test_recommend_for_some_customers_without_what_they_bought(small_run: Run, tmp_path: Path) -> None:
    run = again(small_run, *SMALL, "recommend.exclude_bought=true", "recommend.k=5")
    customer = str(run.tables.customers.order_by("customer_index").customer_id.execute()[0])
    (tmp_path / "customers.txt").write_text(f"{customer}\nstränger\n")
    again(small_run, *SMALL).everything()
    before = times(run)
    run.recommend(customers=tmp_path / "customers.txt")
    # What is asked of a released artifact changes no artifact.
    assert times(run) | {str(run.folder / "recommendations"): 0} == before | {str(run.folder / "recommendations"): 0}
    found = pd.read_parquet(run.folder / "recommendations" / "recommendations.parquet")
    assert found["customer_id"].tolist() == [customer] * 5 + ["stränger"] * 5
    transactions = run.tables.transactions
    bought = set(transactions.filter(transactions.customer_id == customer).article_id.execute())
    assert not set(found["article_id"][:5]) & bought
    assert any("1 of 2 customers are unknown" in line for line in run.messages)


def test_a_submission_for_kaggle_fills_every_customer(small_run: Run) -> None:
    # Recommendations of another length do not matter, and stay.
    run = again(small_run, *SMALL, "recommend.k=5")
    run.submit()
    found = pd.read_csv(run.folder / "submission" / "submission.csv", dtype=str)
    assert list(found) == ["customer_id", "prediction"]
    customers = run.tables.customers.customer_id.execute()
    assert found["customer_id"].is_unique
    assert set(found["customer_id"]) == set(customers)
    # Some have no history, and few repurchase twelve articles: the fallback fills the rest.
    lists = found["prediction"].str.split(" ")
    assert (lists.map(len) == 12).all()
    assert (lists.map(set).map(len) == 12).all()
    assert set(lists.explode()) <= set(run.tables.articles.article_id.execute())
    assert any(line.startswith(f"{len(customers):,} customers, 0 with fewer than 12") for line in run.messages)
    again(small_run, *SMALL).recommend()
    rows = pd.read_parquet(run.folder / "recommendations" / "recommendations.parquet")
    best = rows.groupby("customer_id")["article_id"].agg(" ".join)
    assert best.to_dict() == found.set_index("customer_id")["prediction"].to_dict()


def test_a_fallback_by_age_fills_every_artifact(tmp_path: Path) -> None:
    settings = [
        f"export.folder={tmp_path / 'released'}",
        'recommenders=["popularity_age_band", "repurchase"]',
        "recommend.recommender=repurchase",
        "generators.popularity_age_band={kind='popularity', by='age_band'}",
        "export.fallback=popularity_age_band",
    ]
    run = Run(config=load_config(PIPELINE, settings), folder=tmp_path / "run")
    run.evaluate()
    judged = pd.read_parquet(run.folder / "candidates" / "repurchase" / "candidates.parquet")
    assert set(judged["source"]) == {"repurchase", "popularity_age_band"}
    # Who had bought nothing before the window is answered by the fallback alone.
    before = run.view("test").transactions.customer_index.execute()
    cold = judged[~judged["customer_index"].isin(before)]
    assert len(cold)
    assert set(cold["source"]) == {"popularity_age_band"}
    run.submit()
    found = pd.read_csv(run.folder / "submission" / "submission.csv", dtype=str).set_index("customer_id")["prediction"]
    customers = run.tables.customers.select("customer_id", "age_band").execute().set_index("customer_id")["age_band"]
    assert set(found.index) == set(customers.index)
    lines = run.tables.transactions.select("customer_id", "article_id", "article_index", "t_dat", "basket_id").execute()
    as_of = run.splits["release"].as_of
    in_store = set(run.view("release").articles.in_store)
    recent = lines[lines["t_dat"] >= pd.Timestamp(as_of) - pd.Timedelta(days=7)]
    sold = recent[recent["article_index"].isin(in_store)].drop_duplicates(["customer_id", "basket_id", "article_id"])
    everyone = sold.groupby("article_id").size().sort_index()
    bought = lines[lines["article_index"].isin(in_store)].groupby("customer_id")["article_id"].agg(set)
    number = lines.drop_duplicates("article_id").set_index("article_id")["article_index"]
    # A band that hardly anyone is of is none.
    bands = customers.where(customers.isin(run.view("release").profile_vocabulary["age_band"]))
    assert bands.isna().sum() > customers.isna().sum()
    num_filled = 0
    for customer, band in bands.items():
        own = sold[sold["customer_id"].map(bands) == band].groupby("article_id").size()
        order = sorted(everyone.index, key=lambda article: (-own.get(article, 0), -everyone[article], number[article]))
        mine = bought.get(customer, set())
        filled = [article for article in order if article not in mine][: max(12 - len(mine), 0)]
        given = found[customer].split(" ")
        assert len(set(given)) == 12
        assert given[min(len(mine), 12) :] == filled, customer
        assert set(given[: min(len(mine), 12)]) <= mine
        num_filled += bool(filled)
    assert num_filled > 0


def test_what_the_fallback_is_outdates_what_holds_it(small_run: Run) -> None:
    recommenders = 'recommenders=["popularity_7d", "popularity_30d", "repurchase", "two_tower"]'
    one, other = (again(small_run, recommenders, f"export.fallback=popularity_{days}d") for days in (7, 30))
    assert one._exported("repurchase") != other._exported("repurchase")
    assert one._trained("repurchase") == other._trained("repurchase")
    # Whether towers answer strangers is chosen against the fallback.
    assert one._trained("two_tower") != other._trained("two_tower")


def test_rendered_images_become_vectors_that_the_towers_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Squares in the colour of each article; every fifth article has no image, and one file is none.
    colours = {"Black": (0, 0, 0), "White": (255, 255, 255), "Blue": (0, 0, 255), "Red": (255, 0, 0)}
    images = tmp_path / "images"
    images.mkdir()
    for colour in (*colours, "Grön", "ベージュ"):
        pixels = np.full((40, 40, 3), 200, np.uint8)
        pixels[8:32, 8:32] = colours.get(colour, (0, 128, 64))
        (images / f"{colour}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (images / "Red.png").write_bytes(b"no image")

    def load(*arguments: Any, **settings: Any) -> Tables:
        made = load_source(*arguments, **settings)
        path = ibis.ifelse(_.article_id.right(1).isin(["0", "5"]), None, _.colour + ".png")
        return replace(made, articles=made.articles.mutate(image_path=path))

    monkeypatch.setattr(preparation, "load_source", load)
    settings = [
        f"export.folder={tmp_path / 'released'}",
        'recommenders=["popularity_7d", "two_tower"]',
        'index.kinds=["exact", "new_arrivals"]',
        "data.num_customers=60",
        "data.num_articles=40",
        "two_tower.epochs=1",
        "two_tower.steps_per_epoch=2",
        f"features.images.folder={images}",
        "features.images.image_size=32",
        "features.images.alpha=0.35",
        "features.images.epochs=1",
    ]
    run = Run(config=load_config(PIPELINE, settings), folder=tmp_path / "run")
    run.prepare()
    fitted = fit_recommender("two_tower", run.view("test"), run.config, choice={})
    assert np.isfinite(fitted.curves["loss"]).all()  # type: ignore[attr-defined]
    vectors = np.load(run.folder / "vectors" / "vectors.npy")
    articles = run.tables.articles.order_by("article_index").execute()
    has_image = articles["image_path"].notna() & (articles["colour"] != "Red")
    assert 5 < has_image.sum() < len(articles) - 5
    expected = [0, 0, *has_image.astype(float)]
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx(expected, abs=1e-5)
    np.testing.assert_array_equal(
        run.view("test").articles.vectors, vectors[: run.view("test").articles.num_articles + 2]
    )
    # What had no vector is in the counts of the run, and none of it is lost.
    before = run.tables.counts
    assert run.counts[: len(before)] == before
    added = run.counts[len(before) :]
    taught, embedded = (
        [count.rows for count in added if count.rule.startswith("training the network: ") is told]
        for told in (True, False)
    )
    assert sum(embedded) == (~has_image).sum()
    assert sum(taught) > 0
    # An image that changes makes vectors and towers anew, and no tables.
    (images / "Blue.png").write_bytes((images / "White.png").read_bytes())
    other = Run(config=run.config, folder=run.folder)
    assert other._prepared == run._prepared
    assert other._embedded != run._embedded
    assert other._trained("two_tower") != run._trained("two_tower")


def test_what_restricts_a_model_is_fitted_anew_with_it(tmp_path: Path) -> None:
    def trained(*settings: str) -> str:
        return Run(config=load_config(PIPELINE, settings), folder=tmp_path)._trained("two_tower_7d")

    assert trained() == trained("generators.als.factors=3")
    assert trained() != trained("two_tower.epochs=1")
    assert trained() != trained("generators.two_tower_7d.days=6")


def test_what_reads_features_is_fitted_anew_with_them(tmp_path: Path) -> None:
    grouped = "generators.by_age={kind='popularity', by='age_band'}"

    def trained(name: str, *settings: str) -> str:
        return Run(config=load_config(PIPELINE, [grouped, *settings]), folder=tmp_path)._trained(name)

    for name in ("blend", "by_age", "base_two_tower", "two_tower_7d"):
        assert trained(name) != trained(name, "features.min_customers=3"), name
    for name in ("als", "popularity_7d"):
        assert trained(name) == trained(name, "features.min_customers=3"), name


def test_a_generator_that_lacks_its_column_is_refused_before_any_fit(tmp_path: Path) -> None:
    transactions = "customer_id,article_id,t_dat\n" + "".join(
        f"{customer},{article},2024-0{1 + article % 3}-{10 + customer}\n"
        for customer in range(9)
        for article in range(9)
    )
    (tmp_path / "rows.csv").write_text(transactions, encoding="utf-8")
    pipeline = tmp_path / "shop.toml"
    pipeline.write_text(
        'recommenders = ["popularity_7d", "same_product"]\n[recommend]\nrecommender = "same_product"\n'
        f'[data]\nsource = "retail"\npath = "{tmp_path}"\n[data.transactions]\nfile = "rows.csv"\n'
        'customer_id = "customer_id"\narticle_id = "article_id"\nt_dat = "t_dat"\n'
        "[features]\nprofile = []\ncategorical = []\n",
        encoding="utf-8",
    )
    run = Run(config=load_config(pipeline), folder=tmp_path / "run")
    with pytest.raises(InputError, match="same_product: the articles have no `product_code`"):
        run.train()
    assert not (run.folder / "models").exists()
