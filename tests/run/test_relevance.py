"""The relevance classifier over the tiny pipeline, in both settings."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tfrs_fashion.features.hashed_words import hash_texts
from tfrs_fashion.features.relevance import PAIR
from tfrs_fashion.recommenders.fit_relevance import MODELS
from tfrs_fashion.run.relevance import Relevance, _customer_folds
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.pipeline import load_config


@pytest.fixture(scope="module")
def told(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Relevance:
    settings = ["relevance.epochs=1", "relevance.num_folds=2", "evaluation.bootstrap_samples=50"]
    folder = tmp_path_factory.mktemp("relevance")
    config = load_config(root / "pipelines" / "tiny.toml", settings)
    run = Relevance(config=config, folder=folder, console=Console(width=120, quiet=True))
    run.relevance()
    return run


def test_both_settings_are_told_of_every_model(told: Relevance) -> None:
    document = json.loads((told.folder / "relevance" / "relevance.json").read_text(encoding="utf-8"))
    honest, study = document["honest"], document["study"]
    assert list(honest["models"]) == ["the class of the past count", *(kind.name for kind in MODELS)]
    assert list(study["models"]) == [kind.name for kind in MODELS if kind.columns is not None]
    for found in (*honest["models"].values(), *study["models"].values()):
        confusion = np.array(found["confusion"])
        assert [one["support"] for one in found["classes"]] == confusion.sum(axis=1).tolist()
        assert found["macro_f1"]["value"] == pytest.approx(np.mean([one["f1"] for one in found["classes"]]))
    assert honest["num_pairs"] == np.sum(honest["models"]["with description"]["confusion"])
    for name in ("study", "honest"):
        assert (told.folder / "relevance" / "figures" / f"{name}_precision_recall.png").stat().st_size > 10_000


def test_the_doctor_tells_which_setting_leaks_and_a_page_shows_both(told: Relevance) -> None:
    folder = told.folder / "relevance"
    document = json.loads((folder / "relevance.json").read_text(encoding="utf-8"))
    (finding,) = document["study"]["findings"]
    assert (finding["check"], finding["severity"]) == ("labels_in_features", "error")
    assert document["honest"]["findings"] == []
    (message,) = [message for message in told.messages if message.startswith("doctor: ")]
    assert "relevance, as the study: Features count purchases until" in message
    page = (folder / "relevance.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert page.index(finding["seen"]) < page.index("Honest")
    for name, found in document["honest"]["models"].items():
        assert f'<th scope="col">{name}</th>' in page
        assert f"{found['macro_f1']['value']:.4f}" in page


def test_honest_pairs_see_what_was_before_and_are_told_what_comes_after(told: Relevance) -> None:
    cutoff = told._relevance_cutoff()
    pairs = told._honest_pairs(cutoff)
    rows = told.tables.transactions.execute()
    rows = rows[rows["customer_index"] >= 2]
    before, after = rows[rows["t_dat"] < cutoff], rows[rows["t_dat"] >= cutoff]
    orders = [part.groupby(PAIR)["basket_id"].nunique() for part in (before, after)]
    for place in (0, len(pairs.label) // 2, len(pairs.label) - 1):
        key = (int(pairs.customer_index[place]), int(pairs.article_index[place]))
        assert pairs.features["num_orders"].iloc[place] == orders[0][key]
        assert pairs.label[place] == (orders[1][key] >= 3) + (orders[1][key] >= 5)
        assert pairs.past[place] == (orders[0][key] >= 3) + (orders[0][key] >= 5)
    fold = _customer_folds(pairs, 3, np.random.default_rng(1))
    assert np.ptp([len(np.unique(pairs.customer_index[fold == number])) for number in range(3)]) <= 1
    assert all(
        len(np.unique(fold[pairs.customer_index == customer])) == 1 for customer in np.unique(pairs.customer_index)
    )


def test_a_fourth_class_holds_what_is_not_bought_again(root: Path, told: Relevance) -> None:
    config = load_config(root / "pipelines" / "tiny.toml", ["relevance.has_none=true"])
    pairs = Relevance(config=config, folder=told.folder)._honest_pairs(told._relevance_cutoff())
    known = told._honest_pairs(told._relevance_cutoff())
    assert pairs.names == ("none", "low", "medium", "high")
    assert (pairs.label > 0).sum() == len(known.label)
    assert (pairs.label[pairs.label > 0] - 1).tolist() == known.label.tolist()


def test_a_cutoff_that_nothing_lies_behind_is_refused(root: Path, told: Relevance) -> None:
    config = load_config(root / "pipelines" / "tiny.toml", ["relevance.cutoff=2031-01-01"])
    later = Relevance(config=config, folder=told.folder)
    with pytest.raises(
        InputError, match=r"bought before 2031-01-01 and 0 from then on, none is in both.*relevance.cutoff"
    ):
        later._honest_pairs(later._relevance_cutoff())


def test_too_few_customers_are_refused(root: Path, told: Relevance) -> None:
    config = load_config(root / "pipelines" / "tiny.toml", ["relevance.num_folds=1000"])
    few = Relevance(config=config, folder=told.folder)
    pairs = few._honest_pairs(few._relevance_cutoff())
    words = hash_texts([], num_buckets=1)
    with pytest.raises(InputError, match=r"relevance, honest: [\d,]+ pairs of \d+ customers; expected at least 5000"):
        few._judge(pairs, words, folds=_customer_folds, num_judged=1, title="honest")
