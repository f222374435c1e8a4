import datetime
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tfrs_fashion.evaluation.metrics.accuracy import AccuracyCurve
from tfrs_fashion.evaluation.metrics.bootstrap import Comparison, Difference
from tfrs_fashion.evaluation.report.full_rankings import describe_ranking
from tfrs_fashion.evaluation.report.page import load_metrics, metrics_table, write_report
from tfrs_fashion.evaluation.report.scorecard import MetricValue, Scorecard, SourceShare
from tfrs_fashion.evaluation.report.verdict import Verdict
from tfrs_fashion.schema import TARGET_RANK_COLUMNS, InputError, RowCount

BELOW = Comparison("two_tower", "repurchase", "map@12", 9, Difference(-0.003, -0.005, -0.001, -0.031, -0.050, -0.012))


def metric(value: float, width: float = 0.0) -> MetricValue:
    return {"value": value, "low": value - width, "high": value + width}


METRICS = {
    "map@12": metric(0.9167, 0.02),
    "map@12_new": metric(0.5),
    "recall@12_new": metric(1),
    "customers@12_new": metric(1),
    "map@12_cold_start_customers": metric(1),
    "customers@12_cold_start_customers": metric(1),
    "recall@200": metric(1),
    "coverage@12": metric(0.625),
    "price_mean@12": metric(20),
}


def write(folder: Path, **changes: object) -> tuple[Path, Path]:
    repurchase = Scorecard({"map@12": {"value": 0.0321, "low": 0.03, "high": 0.0345}})
    values: dict[str, object] = {
        "split": {"test_cutoff": datetime.date(2020, 9, 16), "window_days": np.int64(7)},
        "customers": 12_345,
        "artifact": {"two_tower": "abc123"},
        "recommenders": {"repurchase": repurchase, "two_tower": Scorecard(METRICS)},
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
    assert list(document) == ["split", "customers", "artifact", "recommenders", "sources", "differences", "data"]
    assert document["split"] == {"test_cutoff": "2020-09-16", "window_days": 7}
    assert document["customers"] == 12_345
    assert document["artifact"] == {"two_tower": "abc123"}
    assert document["recommenders"]["repurchase"] == {"map@12": {"value": 0.0321, "low": 0.03, "high": 0.0345}}
    for figures in document["recommenders"].values():
        for name, value in figures.items():
            assert "@" in name
            assert set(value) == {"value", "low", "high"}
    assert document["differences"][0]["difference"]["relative"] == -0.031
    assert document["differences"][0]["sentence"] == BELOW.sentence
    assert document["data"]["counts"] == [
        {"table": "transactions", "rule": "quantity below 1", "rows": 1234},
        {"table": "articles", "rule": "no sale", "rows": 5},
    ]
    assert sorted(found.name for found in path.parent.iterdir()) == ["metrics.json", "report.html"]


def test_descriptions_are_shown_if_given(tmp_path: Path) -> None:
    path, html = write(tmp_path / "with", descriptions={"repurchase": "What was bought before, <again>."})
    assert json.loads(path.read_text())["descriptions"] == {"repurchase": "What was bought before, <again>."}
    page = html.read_text(encoding="utf-8")
    assert "<dt>repurchase</dt><dd>What was bought before, &lt;again&gt;.</dd>" in page
    _path, without = write(tmp_path / "without")
    assert "What each recommends" not in without.read_text(encoding="utf-8")


def test_nan_becomes_null(tmp_path: Path) -> None:
    undefined = Comparison("a", "b", "map@12", 1, Difference(1.0, 1.0, 1.0, math.nan, math.nan, math.nan))
    figures = {"map@12": {"value": math.nan, "low": math.nan, "high": math.nan}}
    path, html = write(tmp_path, comparisons=[undefined], recommenders={"a": Scorecard(figures)})
    document = load_metrics(path)
    assert document["differences"][0]["difference"]["relative"] is None
    assert document["recommenders"]["a"]["map@12"]["value"] is None
    assert "a vs b on map@12: +1.0000 (95% CI +1.0000 to +1.0000), significant" in html.read_text()


class Page(HTMLParser):
    """Parses the text of a page, its tags, and every resource it would fetch."""

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


def test_page_shows_everything_and_fetches_nothing(tmp_path: Path) -> None:
    _metrics, path = write(tmp_path)
    page = read_page(path)
    for expected in (
        "12,345 customers",
        "2020-09-16",
        "0.0321 (0.0300 to 0.0345)",
        "two_tower vs repurchase on map@12: -3.1% (95% CI -5.0% to -1.2%), significant",
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


def test_page_without_optional_parts_is_rendered(tmp_path: Path) -> None:
    _metrics, path = write(
        tmp_path, recommenders={}, comparisons=[], counts=[], notes=[], training_curves=None, artifact={}, split={}
    )
    assert "None." in read_page(path).text


def test_names_are_escaped(tmp_path: Path) -> None:
    figures = Scorecard({"map@12": {"value": 0.1, "low": 0.1, "high": 0.2}})
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
    assert "<b> vs <i> on map@12: -3.1%" in page.text


def test_load_metrics_refuses_files_that_are_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file. Run `tfrs-fashion evaluate` first"):
        load_metrics(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text('{"split": {}, "customers": 3}')
    with pytest.raises(InputError, match="lacks `artifact`, `recommenders`"):
        load_metrics(tmp_path)


def test_terminal_table_shows_headline_metrics(tmp_path: Path) -> None:
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


def test_cold_start_articles_have_a_table(tmp_path: Path) -> None:
    figures = {"recall@100_cold_start_articles": metric(0.25), "customers@100_cold_start_articles": metric(3)}
    _metrics, path = write(tmp_path, recommenders={"two_tower_new_arrivals": Scorecard(figures)})
    page = read_page(path)
    assert "Cold start articles" in page.text
    assert "recall@100" in page.text


def rows_of(path: Path, label: str) -> list[str]:
    """Returns the rows of a table as text."""
    html = path.read_text(encoding="utf-8")
    table = html[html.index(f'aria-label="{label}"') :].split("</table>")[0]
    rows = [re.sub(r"<[^>]+>", " ", row) for row in table.split("<tr>")[1:]]
    return [" ".join(row.split()) for row in rows]


def test_near_misses_are_shown_beside_exact_hits(tmp_path: Path) -> None:
    figures = {
        "map@12": metric(0.1),
        "hit_rate@12": metric(0.2),
        "hit_rate@12_product": metric(0.3),
        "hit_rate@12_category": metric(0.4),
        "recall@12": metric(0.15),
        "recall@12_category": metric(0.25),
        "precision@12_category": metric(0.5),
    }
    _metrics, path = write(tmp_path, recommenders={"als": Scorecard(figures)})
    assert rows_of(path, "Near misses") == [
        "recommender hit_rate@12 same article hit_rate@12 same product hit_rate@12 same category "
        "recall@12 same article recall@12 same product recall@12 same category",
        "als 0.2000 0.3000 0.4000 0.1500 - 0.2500",
    ]
    # Near misses are not a slice of customers.
    assert "<h3>Category</h3>" not in path.read_text()


def test_groups_of_customers_are_columns_and_the_best_of_each_is_bold(tmp_path: Path) -> None:
    def card(young: float, old: float) -> Scorecard:
        return Scorecard(
            {
                "map@12": metric(0.1),
                "customers@12_usual_store=7": metric(1),
                "map@12_usual_store=7": metric(young),
                "customers@12_usual_store=other": metric(1234),
                "map@12_usual_store=other": metric(old, 0.01),
            }
        )

    _metrics, path = write(tmp_path, recommenders={"als": card(0.3, 0.1), "gru": card(0.2, 0.4)})
    assert "<h3>Usual store</h3>" in path.read_text()
    assert rows_of(path, "By usual store") == [
        "recommender 7 1 customer other 1,234 customers",
        "als 0.3000 0.1000 (0.0900 to 0.1100)",
        "gru 0.2000 0.4000 (0.3900 to 0.4100)",
    ]
    assert re.findall(r"<strong>([\d.]+)</strong>", path.read_text()) == ["0.3000", "0.4000"]


def test_purchases_are_the_last_row_of_the_lists(tmp_path: Path) -> None:
    bought = {"coverage@12": metric(0.5), "price_mean@12": metric(30, 1)}
    metrics, path = write(tmp_path, bought=bought)
    assert rows_of(path, "The lists")[-1] == "what is bought 0.5000 30.0000 (29.0000 to 31.0000)"
    assert load_metrics(metrics)["bought"] == bought


def test_sources_are_shown_for_recommenders_with_several(tmp_path: Path) -> None:
    # Rounded to whole percents, the shares would sum to more than 100%.
    mixed = (SourceShare("item_knn", 0.996, 0.02), SourceShare("popularity_7d", 0.004, 0.01))
    cards = {
        "blend": Scorecard({"map@12": metric(0.1)}, sources=mixed),
        "als": Scorecard({"map@12": metric(0.1)}, sources=(SourceShare("als", 1.0, 0.02),)),
    }
    metrics, path = write(tmp_path, recommenders=cards)
    assert rows_of(path, "Candidate sources") == [
        "recommender source share bought",
        "blend item_knn 99.6% 2.0%",
        "blend popularity_7d 0.4% 1.0%",
    ]
    assert "All places come from one source in als." in read_page(path).text
    assert load_metrics(metrics)["sources"]["blend"][1] == {
        "source": "popularity_7d",
        "share": 0.004,
        "precision": 0.01,
    }
    del cards["blend"]
    assert "Candidate sources" not in read_page(write(tmp_path, recommenders=cards)[1]).text


def test_interval_without_visible_width_is_left_out(tmp_path: Path) -> None:
    card = Scorecard({"map@12": metric(0.1), "novelty@12": metric(1.78412, 1e-9), "diversity@12": metric(0.5, 0.0002)})
    _metrics, path = write(tmp_path, recommenders={"als": card})
    assert rows_of(path, "The lists")[-1] == "als 1.7841 0.5000 (0.4998 to 0.5002)"


def test_verdict_comes_first(tmp_path: Path) -> None:
    verdict = Verdict("blend", ("<i>",), "Ship blend or <i>.", ("It is best.", "It may not last."))
    metrics, path = write(tmp_path, verdict=verdict)
    text = read_page(path).text
    assert text.index("12,345 customers") < text.index("Ship blend or <i>.") < text.index("It may not last.")
    assert text.index("It may not last.") < text.index("test_cutoff")
    assert load_metrics(metrics)["verdict"]["recommender"] == "blend"


def test_accuracy_curves_are_drawn_and_their_numbers_stored(tmp_path: Path) -> None:
    curve = AccuracyCurve(np.linspace(0.1, 0.4, 50), np.linspace(0.3, 0.1, 50))
    cards = {"als": Scorecard({"map@12": metric(0.1)}, curve=curve), "gru": Scorecard({"map@12": metric(0.1)})}
    metrics, path = write(tmp_path, recommenders=cards)
    curves = load_metrics(metrics)["curves"]
    assert list(curves) == ["als"]
    assert curves["als"]["k"][0] == 1
    assert curves["als"]["k"][-1] == 50
    assert curves["als"]["recall"][-1] == pytest.approx(0.4)
    assert curves["als"]["precision"][0] == pytest.approx(0.3)
    assert (tmp_path / "figures" / "accuracy_curves.png").stat().st_size > 10_000
    (source,) = read_page(path).fetched
    assert source.startswith("data:image/png;base64,")
    assert "include 40% of a customer" in path.read_text()


def test_full_rankings_have_a_section_and_join_the_other_metrics(tmp_path: Path) -> None:
    # One purchase each of two customers among 2,001 articles.
    ranks = pd.DataFrame(
        [(2, 2, 1, 2001, "two_tower"), (3, 2, 1201, 2001, "")], columns=list(TARGET_RANK_COLUMNS)
    ).astype(TARGET_RANK_COLUMNS)
    ranking = describe_ranking(
        {"two_tower": ranks},
        targets=ranks[["customer_index", "article_index"]],
        in_store=np.arange(2, 2003),
        num_samples=200,
        seed=1,
    )
    metrics, path = write(tmp_path, measured=[ranking])
    document = load_metrics(metrics)
    values = document["recommenders"]["two_tower"]
    assert values["auc"]["value"] == pytest.approx((1 + 1 - 1200 / 2000) / 2)
    assert values["map@12"] == METRICS["map@12"]
    assert "auc" not in document["recommenders"]["repurchase"]
    assert document["roc"]["two_tower"]["reached"][-1] == 1
    rows = rows_of(path, "Every article in store ranked")
    assert rows[0] == "recommender auc auc_pooled rank_q10 rank_q50 rank_q90 named"
    # A sample holds one customer twice, or both; in any case all targets rank 1,201 or better.
    assert rows[1] == (
        "two_tower 0.7000 (0.4000 to 1.0000) 0.7000 (0.4000 to 1.0000) 1 (1 to 1,201) 1 (1 to 1,201) "
        "1,201 0.5000 (0.0000 to 1.0000)"
    )
    assert len(rows) == 2
    # They are no metrics of lists, and the figure is embedded in the page.
    assert "auc" not in rows_of(path, "The lists")[0]
    assert (tmp_path / "figures" / "roc_of_rank.png").stat().st_size > 10_000
    (source,) = read_page(path).fetched
    assert source.startswith("data:image/png;base64,")
    assert "0 of the 2 (customer, article) pairs" in read_page(path).text


def test_page_without_full_rankings_does_not_mention_them(tmp_path: Path) -> None:
    metrics, path = write(tmp_path)
    assert "roc" not in load_metrics(metrics)
    assert "Every article in store ranked" not in path.read_text()
    assert "rank_q" not in path.read_text()
