import datetime
import hashlib
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tfrs_fashion.data.generated import hm_scale
from tfrs_fashion.data.generated.hm_catalogue import ARTICLE_COLUMNS
from tfrs_fashion.data.generated.hm_scale import MAX_ARTICLES, MAX_CUSTOMERS, MAX_TRANSACTIONS, write_hm_scale
from tfrs_fashion.schema import InputError

CUSTOMERS, ARTICLES, TRANSACTIONS = 3_000, 2_000, 90_000
WINTER = {10, 11, 12, 1, 2, 3}
INDEX_GROUPS = {
    "Ladieswear": {"Ladieswear", "Lingeries/Tights", "Ladies Accessories"},
    "Divided": {"Divided"},
    "Menswear": {"Menswear"},
    "Baby/Children": {
        "Baby Sizes 50-98",
        "Children Sizes 92-140",
        "Children Sizes 134-170",
        "Children Accessories, Swimwear",
    },
    "Sport": {"Sport"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "hm"
    write_hm_scale(
        folder, num_customers=CUSTOMERS, num_articles=ARTICLES, num_transactions=TRANSACTIONS, seed=1, format="csv"
    )
    return folder


@pytest.fixture(scope="module")
def articles(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "articles.csv", dtype={"article_id": str})


@pytest.fixture(scope="module")
def customers(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "customers.csv", keep_default_na=False, na_values={"FN": "", "Active": "", "age": ""})


@pytest.fixture(scope="module")
def lines(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "transactions_train.csv", dtype={"article_id": str}, parse_dates=["t_dat"])


@pytest.fixture(scope="module")
def sales(lines: pd.DataFrame, articles: pd.DataFrame) -> pd.DataFrame:
    return lines.merge(articles, on="article_id", validate="many_to_one")


def write_small(folder: Path, **changes: object) -> None:
    settings: dict = {"num_customers": 40, "num_articles": 30, "num_transactions": 500, "seed": 1, **changes}
    write_hm_scale(folder, **settings)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_written_files_have_the_requested_rows_and_columns(
    articles: pd.DataFrame, customers: pd.DataFrame, lines: pd.DataFrame
) -> None:
    assert len(articles) == ARTICLES
    assert len(customers) == CUSTOMERS
    assert len(lines) == TRANSACTIONS
    assert tuple(articles.columns) == ARTICLE_COLUMNS
    assert customers.columns.tolist() == [
        "customer_id",
        "FN",
        "Active",
        "club_member_status",
        "fashion_news_frequency",
        "age",
        "postal_code",
    ]
    assert lines.columns.tolist() == ["t_dat", "customer_id", "article_id", "price", "sales_channel_id"]
    assert set(lines["customer_id"]) <= set(customers["customer_id"])
    assert set(lines["article_id"]) <= set(articles["article_id"])


def test_columns_and_types_are_those_of_the_real_files(tmp_path: Path, data_path: Path) -> None:
    write_small(tmp_path / "hm", format="parquet")
    for name in ("articles", "customers", "transactions_train"):
        described = [
            {column: kind for column, kind, *_rest in duckdb.sql(f"describe select * from '{path}'").fetchall()}
            for path in (tmp_path / "hm" / f"{name}.parquet", data_path / "hm_week" / f"{name}.parquet")
        ]
        # The real week keeps prices in half the bytes.
        real = {column: "DOUBLE" if kind == "FLOAT" else kind for column, kind in described[1].items()}
        assert described[0] == real


def test_csv_text_has_the_format_of_kaggle(folder: Path) -> None:
    head, first = (folder / "transactions_train.csv").read_text().splitlines()[:2]
    assert head == "t_dat,customer_id,article_id,price,sales_channel_id"
    date, customer, article, price, channel = first.split(",")
    assert date == "2018-09-20"
    assert len(customer) == 64
    assert int(customer, 16) >= 0
    assert len(article) == 10
    assert article.startswith("0")
    assert 0 < float(price) < 1
    assert channel in {"1", "2"}
    customers = (folder / "customers.csv").read_text().splitlines()
    flags = {tuple(line.split(",")[1:3]) for line in customers[1:]}
    assert flags == {("", ""), ("1.0", ""), ("1.0", "1.0")}
    assert (folder / "articles.csv").read_text().startswith("article_id,product_code,")


def test_lines_are_ordered_by_date_over_two_years(lines: pd.DataFrame) -> None:
    assert lines["t_dat"].is_monotonic_increasing
    assert lines["t_dat"].min() == pd.Timestamp("2018-09-20")
    assert lines["t_dat"].max() == pd.Timestamp("2020-09-22")
    assert lines["t_dat"].nunique() == (datetime.date(2020, 9, 22) - datetime.date(2018, 9, 20)).days + 1
    assert all(day["customer_id"].is_monotonic_increasing for _date, day in lines.groupby("t_dat"))


def test_ids_are_unique_and_an_article_is_a_colour_of_its_product(
    articles: pd.DataFrame, customers: pd.DataFrame
) -> None:
    assert customers["customer_id"].is_unique
    assert customers["customer_id"].str.fullmatch("[0-9a-f]{64}").all()
    assert customers["postal_code"].str.fullmatch("[0-9a-f]{64}").all()
    assert articles["article_id"].is_unique
    assert articles["article_id"].is_monotonic_increasing
    assert articles["article_id"].str.fullmatch("0[0-9]{9}").all()
    code = articles["article_id"].str[:7].astype(int)
    assert code.tolist() == articles["product_code"].tolist()
    number = articles["article_id"].str[7:].astype(int)
    assert (number == articles.groupby("product_code").cumcount() + 1).all()
    assert 1.5 < len(articles) / articles["product_code"].nunique() < 4


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("product_code", "product_type_no"),
        ("product_code", "department_no"),
        ("product_type_no", "product_group_name"),
        ("department_no", "section_no"),
        ("department_no", "garment_group_no"),
        ("section_no", "index_code"),
        ("index_code", "index_group_no"),
        ("colour_group_code", "perceived_colour_master_id"),
        ("colour_group_code", "perceived_colour_value_id"),
    ],
)
def test_categories_nest(articles: pd.DataFrame, inner: str, outer: str) -> None:
    assert (articles.groupby(inner)[outer].nunique() == 1).all()


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("product_type_no", "product_type_name"),
        ("graphical_appearance_no", "graphical_appearance_name"),
        ("colour_group_code", "colour_group_name"),
        ("perceived_colour_value_id", "perceived_colour_value_name"),
        ("perceived_colour_master_id", "perceived_colour_master_name"),
        ("department_no", "department_name"),
        ("index_code", "index_name"),
        ("index_group_no", "index_group_name"),
        ("section_no", "section_name"),
        ("garment_group_no", "garment_group_name"),
    ],
)
def test_numbers_and_names_of_a_category_correspond(articles: pd.DataFrame, number: str, name: str) -> None:
    pairs = articles[[number, name]].drop_duplicates()
    assert pairs[number].is_unique
    assert pairs[name].is_unique


def test_index_groups_have_the_names_that_pipelines_use(articles: pd.DataFrame) -> None:
    found = articles.groupby("index_group_name")["index_name"].agg(set).to_dict()
    assert found == INDEX_GROUPS


def test_descriptions_are_sometimes_missing(articles: pd.DataFrame) -> None:
    # One in a hundred of 2,000: 20, and 4.5 is a standard deviation.
    assert 2 <= articles["detail_desc"].isna().sum() <= 38


def test_profiles_have_kaggles_values_and_gaps(customers: pd.DataFrame) -> None:
    assert set(customers["club_member_status"]) <= {"", "ACTIVE", "PRE-CREATE", "LEFT CLUB"}
    assert set(customers["fashion_news_frequency"]) <= {"", "NONE", "Regularly", "Monthly"}
    assert set(customers["FN"].dropna()) == set(customers["Active"].dropna()) == {1.0}
    assert 0.5 < customers["FN"].isna().mean() < 0.8
    assert customers["age"].dropna().between(16, 99).all()
    assert 0 < customers["age"].isna().mean() < 0.03


def test_few_articles_sell_most(lines: pd.DataFrame) -> None:
    counts = lines["article_id"].value_counts()
    # If all sold alike, the first hundredth would have a hundredth.
    assert 0.1 < counts.head(ARTICLES // 100).sum() / TRANSACTIONS < 0.5


def test_customers_come_back_for_what_they_bought(lines: pd.DataFrame) -> None:
    days = lines.drop_duplicates(["customer_id", "article_id", "t_dat"])
    again = days.duplicated(["customer_id", "article_id"]).mean()
    shuffled = days.assign(article_id=np.random.default_rng(1).permutation(days["article_id"]))
    by_chance = shuffled.duplicated(["customer_id", "article_id"]).mean()
    assert 0.1 < again < 0.5
    assert again > 2 * by_chance


def test_baskets_hold_several_lines_and_equal_rows_for_two_of_the_same(lines: pd.DataFrame) -> None:
    sizes = lines.groupby(["customer_id", "t_dat"]).size()
    assert 2.5 < sizes.mean() < 4.5
    assert sizes.median() >= 2
    # One line in fourteen is bought twice on purpose, and some happen to be, of a catalogue as small as this.
    assert 1 / 14 * 0.5 < lines.duplicated().mean() < 0.25


@pytest.mark.parametrize(
    ("product_type", "low", "high"), [("Padded jacket", 0.8, 1.0), ("Swimsuit", 0.0, 0.2), ("Socks", 0.3, 0.7)]
)
def test_seasonal_articles_sell_in_their_season(
    sales: pd.DataFrame, product_type: str, low: float, high: float
) -> None:
    months = sales.loc[sales["product_type_name"] == product_type, "t_dat"].dt.month
    assert len(months) > 50
    assert low <= months.isin(WINTER).mean() <= high


def test_late_november_and_the_summer_sale_are_peaks(lines: pd.DataFrame) -> None:
    weeks = lines.set_index("t_dat").resample("W").size()
    # Weeks are named by their Sunday.
    assert weeks["2018-12-02"] > 1.3 * weeks.median()
    assert weeks["2019-06-30"] > 1.2 * weeks.median()


def test_articles_appear_rise_and_decay(sales: pd.DataFrame) -> None:
    sold = sales.groupby("article_id")["t_dat"].agg(["min", "size"])
    new = sold[sold["min"].between("2018-12-01", "2019-09-01") & (sold["size"] >= 20)]
    assert len(new) > 100
    days = sales[sales["article_id"].isin(new.index)]
    age = days["t_dat"] - days.groupby("article_id")["t_dat"].transform("min")
    # At least 387 days remain for each, of which 90 would have 23% of the sales, if they were even.
    assert (age < pd.Timedelta(days=90)).mean() > 0.4
    # Codes rise with time: of the articles sold first in the last quarter, most have codes of the upper half.
    late = sold.index[sold["min"] > "2020-06-22"].str[:7].astype(int)
    assert (late > np.median(sales["product_code"].unique())).mean() > 0.8


def test_old_articles_end_on_sale(sales: pd.DataFrame) -> None:
    highest = sales.groupby("article_id")["price"].transform("max")
    age = sales["t_dat"] - sales.groupby("article_id")["t_dat"].transform("min")
    reduced = sales["price"] < 0.75 * highest
    assert 0.03 < reduced.mean() < 0.4
    assert age[reduced].median() > age[~reduced].median()


def test_taste_drifts(sales: pd.DataFrame) -> None:
    """Two purchases of one customer agree on the section the less, the longer they lie apart, seasons aside."""
    own = sales[["customer_id", "t_dat", "section_name"]].drop_duplicates(["customer_id", "t_dat"])
    pairs = own.merge(own, on="customer_id")
    gap = (pairs["t_dat_y"] - pairs["t_dat_x"]).dt.days
    agree = pairs["section_name_x"] == pairs["section_name_y"]
    soon, year, late = agree[gap.between(1, 30)], agree[gap.between(335, 395)], agree[gap >= 600]
    assert min(len(soon), len(year), len(late)) > 1_000
    assert soon.mean() > year.mean() + 0.05 > late.mean() + 0.05
    # And yet it is a taste: two purchases of different customers agree less.
    shares = own["section_name"].value_counts(normalize=True)
    assert late.mean() > 1.5 * (shares**2).sum()


def test_customers_of_parents_age_buy_most_childrens_articles(sales: pd.DataFrame, customers: pd.DataFrame) -> None:
    bought = sales.merge(customers[["customer_id", "age"]], on="customer_id")
    is_children = bought["index_group_name"] == "Baby/Children"
    of_parents_age = bought["age"].between(25, 45)
    # Others buy for children as well, when they take what is popular.
    assert of_parents_age[is_children].mean() > 0.7 > of_parents_age[~is_children].mean() + 0.1
    young = bought["age"] < 25
    divided = bought["index_group_name"] == "Divided"
    assert divided[young].mean() > 1.5 * divided[bought["age"] > 30].mean()


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_equal_seeds_give_equal_bytes(tmp_path: Path, file_format: str) -> None:
    for name, seed in (("first", 1), ("second", 1), ("third", 2)):
        write_small(tmp_path / name, format=file_format, seed=seed)
    first, second, third = (digests(tmp_path / name) for name in ("first", "second", "third"))
    assert list(first) == [f"{name}.{file_format}" for name in ("articles", "customers", "transactions_train")]
    assert first == second
    assert all(first[name] != third[name] for name in first)


def test_both_formats_hold_the_same(tmp_path: Path) -> None:
    write_small(tmp_path / "text", format="csv")
    write_small(tmp_path / "binary", format="parquet")
    for name in ("articles", "customers", "transactions_train"):
        binary = pd.read_parquet(tmp_path / "binary" / f"{name}.parquet")
        text = pd.read_csv(tmp_path / "text" / f"{name}.csv", dtype={"article_id": str}, float_precision="round_trip")
        if name == "transactions_train":
            binary["t_dat"] = binary["t_dat"].astype(str)
        pd.testing.assert_frame_equal(text, binary, check_dtype=False, check_exact=True)


def test_size_of_written_chunks_does_not_change_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path / "once")
    monkeypatch.setattr(hm_scale, "_ROWS_PER_WRITE", 7)
    write_small(tmp_path / "often")
    assert digests(tmp_path / "once") == digests(tmp_path / "often")


@pytest.mark.parametrize(
    ("customers", "articles", "transactions"), [(1, 1, 1), (1, 1, 2_000), (5, 400, 3), (900, 1, 900), (1, 700, 50)]
)
def test_any_size_gives_the_requested_number_of_rows(
    tmp_path: Path, customers: int, articles: int, transactions: int
) -> None:
    write_hm_scale(
        tmp_path / "hm",
        num_customers=customers,
        num_articles=articles,
        num_transactions=transactions,
        seed=3,
        format="parquet",
    )
    found = {path.stem: pd.read_parquet(path) for path in (tmp_path / "hm").iterdir()}
    assert {name: len(frame) for name, frame in found.items()} == {
        "articles": articles,
        "customers": customers,
        "transactions_train": transactions,
    }
    assert found["transactions_train"].notna().all(axis=None)
    assert (found["transactions_train"]["price"] > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_customers": 0}, "num_customers is 0; expected 1 to 1,371,980"),
        ({"num_customers": MAX_CUSTOMERS + 1}, "num_customers is 1,371,981; expected 1 to 1,371,980"),
        ({"num_articles": -5}, "num_articles is -5; expected 1 to 105,542"),
        ({"num_articles": MAX_ARTICLES + 1}, "num_articles is 105,543; expected 1 to 105,542"),
        ({"num_transactions": 0}, "num_transactions is 0; expected 1 to 31,788,324"),
        ({"num_transactions": MAX_TRANSACTIONS + 1}, "num_transactions is 31,788,325; expected 1 to 31,788,324"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"format": "xlsx"}, "format is 'xlsx'; expected 'csv' or 'parquet'"),
    ],
)
def test_invalid_arguments_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        write_small(tmp_path / "hm", **changes)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "hm").mkdir()
    write_small(tmp_path / "hm")
    before = digests(tmp_path / "hm")
    with pytest.raises(InputError, match="hm: exists and is not an empty folder"):
        write_small(tmp_path / "hm", seed=2)
    assert digests(tmp_path / "hm") == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: exists and is not an empty folder"):
        write_small(tmp_path / "file")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="hm: cannot write here"):
        write_small(tmp_path / "file" / "hm")


def test_an_interrupted_write_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hm_scale.Shop, "sell", fail)
        with pytest.raises(KeyboardInterrupt):
            write_small(tmp_path / "hm")
    assert list(tmp_path.iterdir()) == []
    # What a killed run left is no obstacle.
    (tmp_path / ".hm.partial").mkdir()
    (tmp_path / ".hm.partial" / "articles.csv").write_text("half a line")
    write_small(tmp_path / "hm")
    assert [path.name for path in tmp_path.iterdir()] == ["hm"]


def test_progress_is_shown(tmp_path: Path) -> None:
    console = Console(force_terminal=True, record=True, width=80)
    write_small(tmp_path / "hm", console=console)
    assert "writing days of sales" in console.export_text()
