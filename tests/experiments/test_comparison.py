"""Comparison of two experiments: changes, differences per customer, and runs that are not comparable."""

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tfrs_fashion.experiments.comparison import find_obstacles, flatten, list_changes, make_comparison, write_comparison
from tfrs_fashion.experiments.record import Experiment, list_figures
from tfrs_fashion.schema import InputError

FIGURE = {"value": 0.25, "low": 0.125, "high": 0.5}


def make(letter: str, **changes: Any) -> Experiment:
    """An experiment of two recommenders."""
    recommenders = {
        "<gru>": {"map@2": FIGURE, "recall@2": {**FIGURE, "value": 0.75 if letter == "b" else 0.25}},
        f"only_{letter}": {"map@2": FIGURE},
    }
    experiment = Experiment(
        id=f"20240101-00000{ord(letter)}-{letter * 6}",
        time=datetime.datetime(2024, 1, 1, 12, 30, tzinfo=datetime.UTC),
        pipeline="shop",
        run_folder=f"shop_{letter}",
        version="0.1.0",
        git_commit=letter * 40,
        has_uncommitted_changes=letter == "b",
        code_fingerprint=letter * 64,
        data_fingerprint=letter * 64,
        purchases_fingerprint="p" * 64,
        targets_fingerprint="t" * 64,
        split={"pipeline": letter, "kind": "window", "as_of": "2024-03-01T00:00:00", "validation_as_of": letter},
        seed=1,
        config={"evaluation": {"k": 2, "bootstrap_samples": 200}, "gru": {"epochs": 3, "dims": [1, 2]}},
        libraries={"numpy": "2.1"},
        durations={"tables": 1.5, "models/<gru>": 100.0},
        figures=list_figures(recommenders),
    )
    return replace(experiment, **changes)


def by_customer(**columns: list[float]) -> pd.DataFrame:
    renamed = {name.replace("gru", "<gru>"): values for name, values in columns.items()}
    index = pd.Index([f"Größe {number}" for number in range(len(columns["gru"]))], name="customer_id")
    return pd.DataFrame(renamed, index=index)


BEFORE = by_customer(gru=[0.0, 0.5, 0.25, 0.0], only_a=[1.0] * 4)
AFTER = by_customer(gru=[0.5, 1.0, 0.75, 0.5], only_b=[1.0] * 4)


def compare(a: Experiment | None = None, b: Experiment | None = None, after: pd.DataFrame = AFTER) -> dict[str, Any]:
    return make_comparison(a or make("a"), b or make("b"), BEFORE, after, num_samples=200)


def test_list_changes_names_settings_by_dotted_key() -> None:
    a = {"seed": 1, "gru": {"epochs": 3, "gone": True}, "same": {"x": [1]}, "empty": {}}
    b = {"seed": 2, "gru": {"epochs": 3, "new": None}, "same": {"x": [1]}, "empty": {}}
    changes = [(change["name"], change["a"], change["b"]) for change in list_changes(a, b)]
    # Null and absent differ.
    assert changes == [("seed", "1", "2"), ("gru.new", "-", "null"), ("gru.gone", "true", "-")]
    assert flatten({"a": {"b": {"c": 1}}}) == {"a.b.c": 1}


def test_difference_is_paired_by_customer_in_any_order() -> None:
    # Each customer gains a half: no sample of customers shows another difference.
    (row,) = compare(after=AFTER[::-1])["differences"]
    assert (row["recommender"], row["customers"]) == ("<gru>", 4)
    assert {edge: row["difference"][edge] for edge in ("difference", "low", "high")} == {
        "difference": 0.5,
        "low": 0.5,
        "high": 0.5,
    }
    # From a mean of 3/16 to one of 11/16.
    assert row["difference"]["relative"] == pytest.approx(8 / 3)
    assert row["sentence"].startswith("<gru> of B vs <gru> of A on map@2: +266.7% (95% CI +")
    assert row["sentence"].endswith(", significant")


def test_customers_in_only_one_run_are_left_out() -> None:
    (row,) = compare(after=AFTER.iloc[:3])["differences"]
    assert row["customers"] == 3
    # From 1/4 to 3/4.
    assert row["difference"]["difference"] == pytest.approx(0.5)


def test_equal_runs_are_reported_as_the_same() -> None:
    document = compare(after=BEFORE)
    assert document["differences"][0]["sentence"] == "<gru> has the same map@2 for every customer in A and in B"
    assert document["verdict"]["headline"] == "B against A on map@2: 0 better, 0 worse, 2 not significant"


def test_lower_metric_is_reported_as_worse() -> None:
    document = make_comparison(make("a"), make("b"), AFTER, BEFORE, num_samples=200)
    assert document["verdict"]["headline"] == "B against A on map@2: 0 better, 1 worse, 0 not significant"
    assert document["differences"][0]["difference"]["difference"] == -0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"purchases_fingerprint": "q" * 64}, "The data differ: other customers, articles or times of purchases"),
        ({"targets_fingerprint": "q" * 64}, "the purchases are the same, but B has other targets than A"),
        (
            {"split": {"kind": "window", "as_of": "2024-02-01T00:00:00"}},
            "as_of is 2024-03-01T00:00:00 in A and 2024-02-01T00:00:00 in B",
        ),
        (
            {"split": {"kind": "last_basket", "as_of": "2024-03-01T00:00:00"}},
            "kind is window in A and last_basket in B",
        ),
        ({"config": {"evaluation": {"k": 3}}}, "`evaluation.k` is 2 in A and 3 in B"),
    ],
)
def test_other_data_splits_or_lengths_are_not_comparable(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    document = compare(b=make("b", **changes))
    assert not document["is_comparable"]
    assert document["differences"] == []
    (obstacle,) = document["obstacles"]
    assert words in obstacle
    page = write_comparison(tmp_path, document)[1].read_text(encoding="utf-8")
    assert "These runs are not comparable" in page
    assert "(B - A) / A" not in page
    assert "not comparable, their differences are not measured" in page


def test_runs_of_other_code_libraries_and_seeds_are_comparable() -> None:
    b = make("b", libraries={"numpy": "2.2"}, seed=2, data_fingerprint="x" * 64)
    assert find_obstacles(make("a"), b) == []
    changes = compare(b=b)["changes"]
    assert changes["libraries"] == [{"name": "numpy", "a": "2.1", "b": "2.2"}]
    assert changes["code"][:2] == [
        {"name": "commit", "a": "a" * 40, "b": "b" * 40},
        {"name": "uncommitted changes", "a": "no", "b": "yes"},
    ]
    assert changes["data"] == [{"name": "tables and how they were prepared", "a": "a" * 12, "b": "x" * 12}]
    assert changes["settings"] == []


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="1 of 4 customers"):
        compare(after=AFTER.replace(0.5, float("nan")).fillna({"<gru>": 0.5}, limit=1))


def test_write_comparison_shows_changes_and_metrics(tmp_path: Path) -> None:
    b = make("b", config={"evaluation": {"k": 2, "bootstrap_samples": 200}, "gru": {"epochs": 4, "dims": [1, 2]}})
    json_path, html_path = write_comparison(tmp_path, compare(b=b))
    document = json.loads(json_path.read_text(encoding="utf-8"))
    assert document["changes"]["settings"] == [{"name": "gru.epochs", "a": "3", "b": "4"}]
    assert document["only"] == {"a": ["only_a"], "b": ["only_b"]}
    assert document["recommenders"]["<gru>"]["recall@2"]["b"]["value"] == 0.75
    assert document["durations"]["tables"] == {"a": 1.5, "b": 1.5}
    page = html_path.read_text(encoding="utf-8")
    # Escaped: in the verdict, in two tables, and as a stage.
    assert "<gru>" not in page
    assert page.count("&lt;gru&gt;") >= 4
    for words in ("<strong>+0.5000</strong>", "0.7500", "gru.epochs", "Only in A: only_a.", "Only in B: only_b."):
        assert words in page


def test_runs_without_a_common_recommender_say_so(tmp_path: Path) -> None:
    b = make("b", figures=list_figures({"only_b": {"map@2": FIGURE}}))
    document = make_comparison(make("a"), b, BEFORE[["only_a"]], AFTER[["only_b"]])
    assert document["verdict"]["headline"] == "No recommender is in both runs"
    assert "No recommender is in both runs" in write_comparison(tmp_path, document)[1].read_text(encoding="utf-8")
