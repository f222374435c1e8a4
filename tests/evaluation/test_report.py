import datetime
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tfrs_fashion.evaluation.compare import Comparison, Difference
from tfrs_fashion.evaluation.metrics import ArticleStatistics
from tfrs_fashion.evaluation.report import evaluate_recommender, load_metrics, metrics_table, write_report
from tfrs_fashion.schema import CANDIDATE_COLUMNS, InputError, RowCount

BELOW = Comparison("two_tower", "repurchase", "map@12", 9, Difference(-0.003, -0.005, -0.001, -0.031, -0.050, -0.012))


def make_candidates(lists: dict[int, list[int]]) -> pd.DataFrame:
    rows = [(c, article, rank, 0.0, "test") for c, shown in lists.items() for rank, article in enumerate(shown, 1)]
    return pd.DataFrame(rows, columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


def make_pairs(bought: dict[int, list[int]]) -> pd.DataFrame:
    rows = [(customer, article) for customer, articles in bought.items() for article in articles]
    return pd.DataFrame(rows, columns=["customer_index", "article_index"], dtype="int32")


def make_articles(**changes: object) -> ArticleStatistics:
    values: dict[str, object] = {
        "in_store": np.arange(2, 10),
        "num_buyers": np.array([0, 0, *[2] * 8]),
        "num_train_customers": 8,
        "price": np.array([np.nan, np.nan, 10.0, 30.0, *[np.nan] * 6]),
        "content_embedding": np.array([[0.0, 0.0], [0.0, 0.0], *[[1.0, 0.0]] * 8]),
    }
    return ArticleStatistics(**{**values, **changes})  # type: ignore[arg-type]


# Customer 1 bought 2 again and 3 for the first time; customer 2 bought only what was bought before.
CANDIDATES = make_candidates({1: [2, 4, 3], 2: [5, 6]})
CANDIDATES_NEW = make_candidates({1: [4, 3], 2: [6]})
TARGETS = make_pairs({1: [2, 3], 2: [5]})
HISTORY = make_pairs({1: [2], 2: [5, 5]})


def evaluate(**changes: object) -> dict[str, dict[str, float]]:
    values: dict[str, object] = {
        "candidates": CANDIDATES,
        "candidates_new": CANDIDATES_NEW,
        "targets": TARGETS,
        "history_pairs": HISTORY,
        "articles": make_articles(),
        "num_samples": 50,
    }
    return evaluate_recommender(**{**values, **changes})  # type: ignore[arg-type]


def test_figures_of_two_customers() -> None:
    found = evaluate()
    values = {name: figure["value"] for name, figure in found.items()}
    assert values["map@12"] == pytest.approx((1 / 2 * (1 / 1 + 2 / 3) + 1) / 2)
    assert values["recall@12"] == 1
    assert values["recall@200"] == 1
    assert values["precision@12"] == pytest.approx((2 / 12 + 1 / 12) / 2)
    assert values["hit_rate@12"] == values["mrr@12"] == 1
    assert values["ndcg@12"] == pytest.approx(((1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3)) + 1) / 2)
    assert values["coverage@12"] == pytest.approx(5 / 8)
    # Five of eight shown once: sorted 0, 0, 0, 1, 1, 1, 1, 1.
    assert values["popularity_gini@12"] == pytest.approx(2 * (4 + 5 + 6 + 7 + 8) / (8 * 5) - 9 / 8)
    assert values["novelty@12"] == pytest.approx(-math.log2(2 / 8))
    assert values["price_mean@12"] == pytest.approx((10 + 30) / 2)
    assert values["diversity@12"] == pytest.approx(0)
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in found.values())


def test_new_leaves_out_customers_who_bought_nothing_new() -> None:
    found = evaluate()
    assert found["customers@12_new"]["value"] == 1
    assert found["map@12_new"] == {"value": 1 / 2, "low": 1 / 2, "high": 1 / 2}
    assert found["recall@12_new"]["value"] == 1


def test_new_without_candidates_or_without_customers() -> None:
    assert not [name for name in evaluate(candidates_new=None) if name.endswith("_new")]
    found = evaluate(targets=make_pairs({2: [5]}))
    assert found["customers@12_new"]["value"] == 0
    assert "map@12_new" not in found


def test_an_article_out_of_vocabulary_is_new_whatever_was_bought_before() -> None:
    found = evaluate(targets=make_pairs({1: [1]}), history_pairs=make_pairs({1: [1, 2]}))
    assert found["customers@12_new"]["value"] == 1
    assert found["recall@12_new"]["value"] == 0


def test_candidates_that_were_bought_before_are_refused_as_new() -> None:
    with pytest.raises(InputError, match=r"candidates_new: 2 row\(s\) within rank 12 .* e\.g\. \(1, 2\), \(2, 5\)"):
        evaluate(candidates_new=CANDIDATES)


def test_short_lists_are_counted() -> None:
    found = evaluate(targets=make_pairs({1: [2], 2: [5], 3: [6]}), ks=(2, 3), recall_at=4)
    assert {name: figure["value"] for name, figure in found.items() if name.startswith("fewer")} == {
        "fewer_candidates@2": 1,
        "fewer_candidates@3": 2,
        "fewer_candidates@4": 3,
    }


def test_slices() -> None:
    found = evaluate(slices={"cold_start_customers": {2, 77}, "nobody": np.array([], dtype=int)})
    assert found["customers@12_cold_start_customers"]["value"] == 1
    assert found["map@12_cold_start_customers"]["value"] == 1
    assert found["customers@12_nobody"]["value"] == 0
    assert "map@12_nobody" not in found


def test_what_is_undefined_is_left_out() -> None:
    found = evaluate(articles=make_articles(price=np.full(10, np.nan), content_embedding=None))
    assert "price_mean@12" not in found
    assert "diversity@12" not in found
    assert evaluate(candidates=make_candidates({}))["coverage@12"]["value"] == 0


def test_an_empty_window_is_named() -> None:
    with pytest.raises(InputError, match="No customer bought anything in 16 to 22 September"):
        evaluate(targets=make_pairs({}), window="16 to 22 September")


def write(folder: Path, **changes: object) -> tuple[Path, Path]:
    figures = {"map@12": {"value": 0.0321, "low": 0.03, "high": 0.0345}}
    values: dict[str, object] = {
        "split": {"test_cutoff": datetime.date(2020, 9, 16), "window_days": np.int64(7)},
        "customers": 12_345,
        "artifact": {"two_tower": "abc123"},
        "recommenders": {"repurchase": figures, "two_tower": evaluate(slices={"cold_start_customers": [2]})},
        "comparisons": [BELOW],
        "counts": [RowCount("transactions", "quantity below 1", 1234), ("articles", "no sale", 5)],
        "notes": ["The universe is what was sold in the 28 days before."],
        "training_curves": {"two_tower": {"loss": [3.0, 2.0, 1.5]}},
    }
    return write_report(folder, **{**values, **changes})  # type: ignore[arg-type]


def test_metrics_json_has_the_documented_layout(tmp_path: Path) -> None:
    path, _html = write(tmp_path / "report")
    document = json.loads(path.read_text())
    assert document == load_metrics(path) == load_metrics(tmp_path / "report")
    assert list(document) == ["split", "customers", "artifact", "recommenders", "differences", "data"]
    assert document["split"] == {"test_cutoff": "2020-09-16", "window_days": 7}
    assert document["customers"] == 12_345
    assert document["artifact"] == {"two_tower": "abc123"}
    assert document["recommenders"]["repurchase"] == {"map@12": {"value": 0.0321, "low": 0.03, "high": 0.0345}}
    for figures in document["recommenders"].values():
        for name, figure in figures.items():
            assert "@" in name
            assert set(figure) == {"value", "low", "high"}
    assert document["differences"][0]["difference"]["relative"] == -0.031
    assert document["differences"][0]["sentence"] == BELOW.sentence
    assert document["data"]["counts"] == [
        {"table": "transactions", "rule": "quantity below 1", "rows": 1234},
        {"table": "articles", "rule": "no sale", "rows": 5},
    ]
    assert sorted(found.name for found in path.parent.iterdir()) == ["metrics.json", "report.html"]


def test_not_a_number_becomes_null(tmp_path: Path) -> None:
    undefined = Comparison("a", "b", "map@12", 1, Difference(1.0, 1.0, 1.0, math.nan, math.nan, math.nan))
    figures = {"a": {"map@12": {"value": math.nan, "low": math.nan, "high": math.nan}}}
    path, html = write(tmp_path, comparisons=[undefined], recommenders=figures)
    document = load_metrics(path)
    assert document["differences"][0]["difference"]["relative"] is None
    assert document["recommenders"]["a"]["map@12"]["value"] is None
    assert "a is 1.0000 (1.0000 to 1.0000) above b on map@12" in html.read_text()


class Page(HTMLParser):
    """Text of a page, its tags, and whatever it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [str(value) for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in {"meta", "link", "br", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_page_says_everything_and_fetches_nothing(tmp_path: Path) -> None:
    _metrics, path = write(tmp_path)
    page = read_page(path)
    for expected in (
        "12,345 customers",
        "2020-09-16",
        "0.0321 (0.0300 to 0.0345)",
        "two_tower is 3.1% (1.2 to 5.0) below repurchase on map@12",
        "Cold start customers",
        "Articles new to the customer",
        "quantity below 1",
        "1,234",
        "abc123",
        "The universe is what was sold",
        "two_tower: loss",
        "Mean average precision",
    ):
        assert expected in page.text
    assert page.fetched == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "url(" not in path.read_text()


def test_a_page_without_extras(tmp_path: Path) -> None:
    _metrics, path = write(
        tmp_path, recommenders={}, comparisons=[], counts=[], notes=[], training_curves=None, artifact={}, split={}
    )
    assert "None." in read_page(path).text


def test_names_are_escaped(tmp_path: Path) -> None:
    figures = {"map@12": {"value": 0.1, "low": 0.1, "high": 0.2}}
    hostile = Comparison("<b>", "<i>", "map@12", 1, BELOW.difference)
    _metrics, path = write(
        tmp_path,
        recommenders={"<b>": figures, '"><script>': figures},
        comparisons=[hostile],
        counts=[("<b>", "<i>", 1)],
        notes=["<b>"],
        artifact={"<b>": "<i>"},
        split={"<b>": "<i>"},
        training_curves={"<b>": {"<i>": [1.0]}},
    )
    page = read_page(path)
    assert not page.tags & {"b", "i", "script"}
    assert "<b> is 3.1%" in page.text


def test_load_metrics_refuses_what_is_not_a_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file. Run `tfrs-fashion evaluate` first"):
        load_metrics(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text('{"split": {}, "customers": 3}')
    with pytest.raises(InputError, match="lacks `artifact`, `recommenders`"):
        load_metrics(tmp_path)


def test_the_table_for_the_terminal(tmp_path: Path) -> None:
    path, _html = write(tmp_path)
    console = Console(file=io.StringIO(), width=140)
    console.print(metrics_table(load_metrics(path)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text.splitlines()
    assert "12,345 customers" in text
    row = next(line for line in lines if "repurchase" in line)
    assert "0.0321" in row
    assert "0.0300 to 0.0345" in row
    row = next(line for line in lines if "two_tower" in line)
    # map@12 of two customers, (1/2 * (1 + 2/3) + 1) / 2.
    assert "0.9167" in row


def test_articles_never_sold_are_a_slice_of_the_targets() -> None:
    # Of what was bought, 7, 8 and 9 had never been sold. Customer 1 is shown 7 second and 8 fourth, and bought both;
    # customer 2 bought 9 and is not shown it; customer 3 bought nothing new.
    candidates = make_candidates({1: [2, 7, 3, 8], 2: [5, 6], 3: [4]})
    found = evaluate(
        candidates=candidates,
        candidates_new=None,
        targets=make_pairs({1: [2, 7, 8], 2: [9], 3: [4]}),
        cold_start_articles=np.array([7, 8, 9, 77]),
        num_new_arrivals=4,
    )
    assert found["customers@4_cold_start_articles"]["value"] == 2
    assert found["recall@4_cold_start_articles"]["value"] == pytest.approx((2 / 2 + 0 / 1) / 2)
    # Hits in the second and the fourth place: precision 1/2 in both.
    assert found["map@4_cold_start_articles"]["value"] == pytest.approx((1 / 2 * (1 / 2 + 2 / 4) + 0) / 2)
    # The list is judged whole elsewhere: 2, 7 and 8 are hits of customer 1.
    assert found["recall@12"]["value"] == pytest.approx((1 + 0 + 1) / 3)


@pytest.mark.parametrize(("length", "recall"), [(1, 0.0), (2, (1 / 2 + 0) / 2), (3, (1 / 2 + 0) / 2), (9, (1 + 0) / 2)])
def test_new_articles_are_judged_on_a_list_of_their_own_length(length: int, recall: float) -> None:
    found = evaluate(
        candidates=make_candidates({1: [2, 7, 3, 8], 2: [5, 6]}),
        candidates_new=None,
        targets=make_pairs({1: [2, 7, 8], 2: [9]}),
        cold_start_articles=np.array([7, 8, 9]),
        num_new_arrivals=length,
    )
    assert found[f"recall@{length}_cold_start_articles"]["value"] == pytest.approx(recall)
    assert [name for name in found if name.endswith("cold_start_articles") and f"@{length}_" not in name] == []


def test_nobody_bought_an_article_never_sold() -> None:
    found = evaluate(cold_start_articles=np.array([], dtype=int))
    assert found["customers@100_cold_start_articles"]["value"] == 0
    assert "recall@100_cold_start_articles" not in found
    assert not [name for name in evaluate() if "cold_start" in name]


def test_a_page_with_new_articles_lays_them_out(tmp_path: Path) -> None:
    figures = evaluate(targets=make_pairs({1: [2, 3], 2: [5]}), cold_start_articles=np.array([3]))
    _metrics, path = write(tmp_path, recommenders={"two_tower_new_arrivals": figures})
    page = read_page(path)
    assert "Cold start articles" in page.text
    assert "recall@100" in page.text
