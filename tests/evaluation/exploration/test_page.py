"""The exploration page: its figures and their sentences, the figures left out and why, and arbitrary text in labels."""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ibis
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.evaluation.exploration.test_aggregates import ARTICLES, LINES, at, make_tables
from tfrs_fashion.cli import app
from tfrs_fashion.evaluation.drawing import Labels, format_amount, format_share
from tfrs_fashion.evaluation.exploration import article_figures, distributions, purchase_figures
from tfrs_fashion.evaluation.exploration.aggregates import Basis, count_basis
from tfrs_fashion.evaluation.exploration.page import write_exploration
from tfrs_fashion.evaluation.figure import Drawing, clip_limit, group_other
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, InputError, RowCount, Tables

ROLES = {"section_group": "group", "section": "section", "category": "category", "garment_group": "section"}


class Page(HTMLParser):
    """The tags, links, anchors, images and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [str(attributes["href"])] if "href" in attributes else []
        self.ids += [str(attributes["id"])] if "id" in attributes else []
        self.images += [attributes] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exploration")
    tables = make_tables()
    tables = Tables(
        tables.customers, tables.articles, tables.transactions, (RowCount("transactions", "dropped: <b>", 7),)
    )
    write_exploration(folder, tables=tables, title="ten <lines>", **ROLES)
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "figures.json").read_text(encoding="utf-8"))


@pytest.fixture
def basis_of() -> Iterator[Callable[..., Basis]]:
    """Counts the basis of other tables; its temporary tables are dropped at the end."""
    opened = []

    def count(*arguments: Any, roles: Mapping[str, str] | None = None, **changes: Any) -> Basis:
        opened.append(count_basis(make_tables(*arguments, **changes), roles))
        return opened[-1].__enter__()

    yield count
    for context in opened:
        context.__exit__(None, None, None)


def drawn(drawing: Drawing | str) -> Drawing:
    assert isinstance(drawing, Drawing), drawing
    return drawing


def test_every_figure_has_a_png_an_anchor_and_sentences(folder: Path, document: dict[str, Any]) -> None:
    page = Page(folder / "exploration.html")
    names = set(document["figures"])
    assert names == {
        "assortment", "categories_top", "garment_group_shares", "long_tail", "new_articles", "purchases", "channels",
        "channels_over_time", "basket_sizes", "quantities", "prices", "ages", "activity", "gaps", "repeats",
        "new_customers",
    }  # fmt: skip
    assert {path.stem for path in (folder / "figures").iterdir()} == names
    assert names <= set(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(page.images) == len(names)
    for image in page.images:
        assert str(image["src"]).startswith("data:image/png;base64,")
        assert len(str(image["alt"])) > 40
    for figure in document["figures"].values():
        assert figure["sentences"]
        assert figure["title"]
        assert f"{figure['rows']:,}" in figure["caption"]
        assert all(sentence in page.words for sentence in figure["sentences"])


def test_no_png_is_blank(folder: Path) -> None:
    for path in (folder / "figures").iterdir():
        grey = matplotlib.image.imread(path)[..., :3].mean(axis=2)
        assert grey.std() > 0.05, path
        # Something dark and something light: it can be read without colours.
        assert grey.min() < 0.35, path
        assert grey.max() == 1.0, path


def test_page_is_one_file_without_script_and_escapes_text(folder: Path) -> None:
    text = (folder / "exploration.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    page = Page(folder / "exploration.html")
    assert not {"script", "link", "iframe", "b", "lines"} & set(page.tags)
    assert "Exploring ten <lines>" in page.words
    assert "dropped: <b>" in page.words
    assert (text.startswith("<!doctype html>"), "viewport" in text, "@media print" in text) == (True, True, True)


def test_figures_json_holds_hand_counted_numbers(document: dict[str, Any]) -> None:
    data = {name: figure["data"] for name, figure in document["figures"].items()}
    assert data["purchases"]["lines"] == [3, 1, 3, 0, 0, 2, 0, 1]
    assert data["assortment"]["groups"] == {"Women": 3, "Kids": 1, "Men": 1}
    assert data["basket_sizes"]["rows"] == [6, 2]
    assert data["gaps"]["rows"] == [2, 0, 0, 1]
    assert data["repeats"]["lines_again"] == [0, 0, 2, 0, 0, 0, 0, 1]
    assert data["repeats"]["buyers_seen_before"] == [0, 0, 1, 0, 0, 1, 0, 1]
    assert (data["repeats"]["customers"], data["repeats"]["customers_repeating"]) == (3, 2)
    assert data["channels_over_time"]["lines"]["channel 1"] == [2, 1, 0, 0, 0, 1, 0, 1]
    assert data["long_tail"]["points"] == {"articles": [0, 1, 2, 3], "lines": [0, 6, 9, 10]}
    # Half of three articles lies between the first (6 lines) and the second (9).
    assert data["long_tail"]["marked"] == {"0.5": pytest.approx(0.75)}
    women = data["categories_top"]["groups"][0]
    assert (women["group"], women["lines"]) == ("Women", 7)
    assert [row["share"] for row in women["categories"]] == [pytest.approx(6 / 7), pytest.approx(1 / 7)]
    ages = {group["group"]: group for group in data["ages"]["groups"]}
    assert list(ages) == ["Women"]  # of few lines only the largest group is drawn
    assert (ages["Women"]["lines"], ages["Women"]["median"]) == (5, 30)
    assert document["overview"]["baskets"] == "8"
    assert document["counts"] == [
        {"table": "transactions", "rule": "dropped: <b>", "rows": 7},
    ]
    assert document["left_out"]["colour_shares"].startswith("no column of articles plays the role `colour`")


def test_sentences_state_hand_counted_numbers(document: dict[str, Any]) -> None:
    def words(name: str) -> str:
        return " ".join(document["figures"][name]["sentences"])

    assert words("assortment").startswith("Women is the largest group with 60% of 5 articles.")
    assert words("channels") == "Channel 1 takes 50% of the lines and 82% of the value."
    assert words("quantities") == "80% of the lines have the quantity 1; the mean is 1.3."
    assert words("gaps") == "Half of the time a customer who comes back does so within 2 days; the mean is 3.0 days."
    assert words("repeats").startswith("33% of the lines are of an article that the customer had bought in an earlier")
    assert "67% of customers bought some article again." in words("repeats")
    assert words("prices") == "Half of the lines cost 10.00 per unit or less, 99% at most 20.00."


def test_source_with_one_line_leaves_every_figure_out_with_a_reason(tmp_path: Path) -> None:
    lines = [(ANONYMOUS_CUSTOMER, "b1", at(1), "A", 1, None, None)]
    tables = make_tables(lines, articles=[("A", None, None, None)], customers=[("c9", None)])
    write_exploration(tmp_path, tables=tables, title="one line")
    document = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert document["figures"] == {}
    page = Page(tmp_path / "exploration.html")
    assert page.images == []
    for name, why in {
        "channels": "the source has no sales channel.",
        "prices": "the source has no prices.",
        "purchases": "all purchases are on one day.",
        "ages": "no line is of a customer whose age is known.",
        "activity": "there are no customers.",
        "gaps": "there are no intervals.",
        "repeats": "all customers are anonymous.",
        "quantities": "every line has the same quantity, 1, or the source has none.",
        "basket_sizes": "every basket has the same number of lines: 1.",
        "long_tail": "only one article is sold.",
    }.items():
        assert document["left_out"][name] == why
        assert why in page.words


def test_single_channel_leaves_its_figures_out(basis_of: Callable[..., Basis]) -> None:
    basis = basis_of([(*line[:6], 2) for line in LINES])
    for draw in (purchase_figures.draw_channels, purchase_figures.draw_channels_over_time):
        assert draw(basis) == "all lines have one channel: channel 2."


def test_unknown_channel_is_counted_beside_known_ones(basis_of: Callable[..., Basis]) -> None:
    basis = basis_of([*LINES[:9], (*LINES[9][:6], None)])
    shares = drawn(purchase_figures.draw_channels(basis)).data["channels"]
    assert {row["channel"]: row["lines"] for row in shares} == {"channel 2": 5, "channel 1": 4, "unknown": 1}


def test_prices_are_left_out_if_all_lines_are_free(basis_of: Callable[..., Basis]) -> None:
    basis = basis_of([(*line[:5], 0.0, 1) for line in LINES])
    assert distributions.draw_prices(basis) == "all 10 prices are 0."


def test_ages_are_left_out_without_an_age_column(basis_of: Callable[..., Basis]) -> None:
    basis = basis_of()
    bare = replace(basis, customers=basis.customers.drop("age"))
    assert distributions.draw_ages(bare) == "the source has no age of customers."


def test_impossible_ages_are_left_out_and_counted(basis_of: Callable[..., Basis]) -> None:
    # 200 lines of somebody aged 40, one each of 116 and -1.
    lines = [("c1", "b1", at(1), "A", 1, 1.0, 1)] * 200
    lines += [("c2", "b2", at(1), "A", 1, 1.0, 1), ("c3", "b3", at(1), "A", 1, 1.0, 1)]
    ages = drawn(distributions.draw_ages(basis_of(lines, customers=[("c1", 40), ("c2", 116), ("c3", -1)])))
    assert (ages.data["left_out"], ages.data["upper"]) == (2, 40)
    assert "2 lines are left out: ages below 0 or above 40." in ages.caption


def test_extreme_quantity_is_clipped_and_counted(basis_of: Callable[..., Basis]) -> None:
    lines = [("c1", f"b{number}", at(1), "A", 1 + number % 3, 1.0, 1) for number in range(300)]
    basis = basis_of([*lines, ("c1", "b0", at(1), "A", 89_638, 1.0, 1)])
    quantities = drawn(distributions.draw_distribution(basis, "quantities"))
    assert quantities.data["rows"] == [100, 100, 100]
    assert quantities.data["left_out"] == 1
    assert "1 line is left out: above 3, the 99th percentile; the highest is 89,638." in quantities.caption


def test_first_period_is_cut_off_if_it_exceeds_later_ones(basis_of: Callable[..., Basis]) -> None:
    lines = [("c1", "b1", at(1), f"a{number:03d}", 1, 1.0, 1) for number in range(200)]
    lines += [("c1", f"b{day}", at(day), f"late{day}", 1, 1.0, 1) for day in range(2, 30)]
    new = drawn(purchase_figures.draw_first_seen(basis_of(lines), "new_articles"))
    assert new.data["new_articles"] == [200, *[1] * 28]
    assert new.data["cut"] == 1
    assert "Above the figure (arrows): 1 of 29 days, the highest with 200." in new.caption
    # 10% of 29 days are 3: 202 of 228.
    assert new.sentences[0].startswith("89% of the 228 articles sold appear within the first 3 days; after that")


def test_repeats_and_gaps_are_left_out_if_nobody_returns(basis_of: Callable[..., Basis]) -> None:
    basis = basis_of([("c1", "b1", at(1), "A", 1, 1.0, 1), ("c2", "b2", at(2), "A", 1, 1.0, 1)])
    assert purchase_figures.draw_repeats(basis) == "no customer buys in more than one day, nor an article twice."
    assert distributions.draw_distribution(basis, "gaps") == "there are no intervals."


def test_repeats_are_left_out_if_every_purchase_is_in_a_partial_week(basis_of: Callable[..., Basis]) -> None:
    # Wednesday 3 January and Monday 12 February 2024.
    basis = basis_of([("c1", "b1", at(3), "A", 1, 1.0, 1), ("c1", "b2", at(43), "A", 1, 1.0, 1)])
    assert str(purchase_figures.draw_repeats(basis)).startswith("no week that the data cover in full has")
    assert drawn(purchase_figures.draw_purchases(basis)).data["lines"] == [1, 0, 0, 0, 0, 0, 1]
    new = drawn(purchase_figures.draw_first_seen(basis, "new_articles"))
    assert new.data["new_articles"] == [1, 0, 0, 0, 0, 0, 0]


def test_categories_are_left_out_if_grouped_by_themselves(basis_of: Callable[..., Basis]) -> None:
    basis = basis_of(roles={"section": "group", "category": "group"})
    for draw in (article_figures.draw_top_categories, article_figures.draw_bottom_categories):
        assert draw(basis) == "categories and their groups are the same column, `group`."


def test_top_and_bottom_categories_of_many(basis_of: Callable[..., Basis]) -> None:
    articles = [(f"a{number:02d}", "g", "s", f"category {number:02d}") for number in range(40)]
    lines = [("c1", "b1", at(1), f"a{number:02d}", 1, 1.0, 1) for number in range(39) for _time in range(40 - number)]
    basis = basis_of(lines, articles=articles, roles={"category": "category"})
    top = drawn(article_figures.draw_top_categories(basis))
    bottom = drawn(article_figures.draw_bottom_categories(basis))
    # 40 + 39 + … + 2 = 819 lines of 39 categories; the fortieth is not sold.
    assert top.data["groups"][0]["lines"] == 819
    kept = top.data["groups"][0]["categories"]
    assert [row["lines"] for row in kept[:2]] == [40, 39]
    assert kept[-1]["category"] == "other (27)"
    assert sum(row["lines"] for row in kept) == 819
    assert [row["lines"] for row in bottom.data["groups"][0]["categories"]] == list(range(13, 1, -1))
    assert bottom.sentences == ("Of 39 categories, 9 sold at most ten times.",)


def test_labels_of_any_script_and_length_are_drawn_without_warnings(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "ベージュ", "x" * 5_000, "$a_b^{c$ {", "שלום", "tab\tand\nline", "🙂", " "]
    articles = [(f"a{number}", name, name, name) for number, name in enumerate(names)]
    lines = [("c1", "b1", at(1), f"a{number}", 1, 1.0, 1) for number in range(8)] + LINES
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a glyph that no font has, a layout that does not fit
        write_exploration(tmp_path, tables=make_tables(lines, articles=[*articles, *ARTICLES]), title="§", **ROLES)
    page = Page(tmp_path / "exploration.html")
    assert "script" not in page.tags
    assert "is ベージュ" in page.words
    assert "x" * 300 not in page.words
    assert (tmp_path / "exploration.html").stat().st_size < 4e6


@pytest.mark.parametrize(
    ("setting", "arguments"),
    [("features.roles.category", {"category": "categry"}), ("features.sets", {"sets": ("categry",)})],
)
def test_unknown_column_is_refused_with_the_nearest_name(
    tmp_path: Path, setting: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as raised:
        write_exploration(tmp_path, tables=make_tables(), title="", **arguments)
    assert str(raised.value).startswith(
        f"{setting}: the articles table has no column(s) `categry` (did you mean `category`?); found `article_id`, "
    )
    assert list(tmp_path.iterdir()) == []


def test_labels_are_kept_shortened_or_numbered() -> None:
    labels = Labels(length=8)
    assert labels.draw("Grön") == "Grön"
    assert labels.draw("a long label") == "a long…"
    assert labels.sentence == ""
    assert [labels.draw(value) for value in ("日本", "שלום", "日本")] == ["[1]", "[2]", "[1]"]
    assert labels.sentence == "In the figure, [1] is 日本; [2] is שלום."


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (7.123, "7.12"),
        (950, "950"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (999_999, "1,000k"),
        (2.5e6, "2.5M"),
    ],
)
def test_format_amount(value: float, words: str) -> None:
    assert format_amount(value) == words


@pytest.mark.parametrize(
    ("share", "words"), [(0, "0%"), (0.314, "31%"), (0.0994, "9.9%"), (0.0005, "0.05%"), (1, "100%")]
)
def test_format_share(share: float, words: str) -> None:
    assert format_share(share) == words


@pytest.mark.parametrize(
    ("values", "rows", "limit"),
    [
        ([1, 2, 3], [1, 1, 1], 3),
        ([1, 2, 1000], [99, 900, 1], 2),  # the 990th of 1000 is a 2
        ([0, 5], [999, 1], 0),
        ([0, 1], [999, 1], 1),
        ([0.5], [3], 0.5),
    ],
)
def test_clip_limit(values: list[float], rows: list[int], limit: float) -> None:
    assert clip_limit(np.array(values), np.array(rows)) == limit


def test_group_other_keeps_a_single_remaining_row() -> None:
    counted = pd.DataFrame({"label": list("abcd"), "rows": [4, 3, 2, 1]})
    assert group_other(counted, "label", keep=3)[1] == 0
    kept, others = group_other(counted, "label", keep=2)
    assert (kept["label"].tolist(), kept["rows"].tolist(), others) == (["a", "b", "other (2)"], [4, 3, 3], 2)


def test_explore_command_writes_its_stage_and_skips_an_up_to_date_one(root: Path, tmp_path: Path) -> None:
    # No split fits 9,999 days; a look at the tables needs none.
    arguments = [
        "explore",
        str(root / "pipelines" / "tiny.toml"),
        "--run-dir",
        str(tmp_path),
        "--set",
        "split.test_days=9999",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "exploration"
    assert result.stdout.splitlines()[-1] == f"exploration: {folder / 'exploration.html'}"
    assert sorted(path.name for path in folder.iterdir()) == [
        "exploration.html",
        "figures",
        "figures.json",
        "stage.json",
    ]
    assert not (tmp_path / "timelines").exists()
    document = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert set(document["left_out"]) == {"categories_bottom"}
    lines = ibis.duckdb.connect().read_parquet(tmp_path / "tables" / "transactions.parquet").count().execute()
    assert document["figures"]["prices"]["rows"] == lines
    again = CliRunner().invoke(app, arguments)
    assert f"up to date: {folder}" in again.stdout


@pytest.mark.usefixtures("data_path")
@pytest.mark.parametrize(
    ("pipeline", "customers", "left_out"),
    [
        ("hm_week", 68_984, set()),  # lines of one article in one basket become a quantity
        (
            "rent_the_runway",
            105_571,
            {
                "assortment",
                "garment_group_shares",
                "colour_shares",
                "channels",
                "channels_over_time",
                "quantities",
                "prices",
            },
        ),
    ],
)
def test_explore_command_on_real_tables(
    pipeline: str, customers: int, left_out: set[str], root: Path, data_path: Path, tmp_path: Path
) -> None:
    arguments = ["--run-dir", str(tmp_path), "--set", f"data.path={data_path / pipeline}"]
    result = CliRunner().invoke(app, ["explore", str(root / "pipelines" / f"{pipeline}.toml"), *arguments])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "exploration" / "figures.json").read_text(encoding="utf-8"))
    assert set(document["left_out"]) == left_out
    assert document["figures"]["repeats"]["data"]["customers"] == customers
