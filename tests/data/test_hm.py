from pathlib import Path

import ibis
import pandas as pd
import pytest

from tfrs_fashion.data.hm import AGE_EDGES, ARTICLES, complete_mapping
from tfrs_fashion.data.retail import load_tables
from tfrs_fashion.data.sources import load_source, source_files
from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.schema import InputError, Tables, check_tables
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig, DataConfig, TransactionsConfig
from tfrs_fashion.settings.file import load_config

LINES = """\
t_dat,customer_id,article_id,price,sales_channel_id
2020-09-16,c1,0108775015,0.05083050847457627,2
2020-09-16,c1,0108775015,0.05083050847457627,2
2020-09-16,c1,0108775015,0.04,2
2020-09-16,c2,108775044,0.02,1
2020-09-17,c1,0108775015,0.05083050847457627,2
"""
ARTICLE = (
    "{article},108775,Strap top,253,Vest top,1010016,Solid,9,Black,1676,Jersey Basic,A,Ladieswear,1,Ladieswear,16,"
    "Womens Everyday Basics,1002,Jersey Basic,{text}"
)
CATALOGUE = "\n".join(
    [
        "article_id,product_code,prod_name,product_type_no,product_type_name,graphical_appearance_no,"
        "graphical_appearance_name,colour_group_code,colour_group_name,department_no,department_name,index_code,"
        "index_name,index_group_no,index_group_name,section_no,section_name,garment_group_no,garment_group_name,"
        "detail_desc",
        ARTICLE.format(article="0108775015", text='"Jersey top, with straps."'),
        ARTICLE.format(article="0108775044", text=""),
    ]
)
PEOPLE = """\
customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code
c1,1.0,,ACTIVE,Regularly,24.0,p1
c3,,1.0,,NONE,,p2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("transactions_train", LINES), ("articles", CATALOGUE), ("customers", PEOPLE)):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    return tmp_path


def load(folder: Path) -> Tables:
    return load_source(ibis.duckdb.connect(), DataConfig(source="hm", path=str(folder)), seed=1)


def test_lines_of_a_day_are_a_basket_and_equal_ones_are_units(folder: Path) -> None:
    tables = load(folder)
    check_tables(tables)
    lines = tables.transactions.order_by(["t_dat", "customer_id", "price"]).to_pyarrow().to_pylist()
    found = [tuple(line[name] for name in ("customer_id", "article_id", "price", "quantity")) for line in lines]
    assert found == [
        ("c1", "0108775015", 0.04, 1),
        ("c1", "0108775015", 0.05083050847457627, 2),
        ("c2", "0108775044", 0.02, 1),
        ("c1", "0108775015", 0.05083050847457627, 1),
    ]
    assert [line["basket_id"] for line in lines] == ["2020-09-16"] * 3 + ["2020-09-17"]
    assert {(count.table, count.rule): count.rows for count in tables.counts if count.table == "transactions"} == {
        ("transactions", "`article_id`: leading zeros restored, to 10 digits"): 1,
        ("transactions", "merged into another line that differs at most in quantity"): 1,
    }


def test_articles_keep_what_the_study_kept(folder: Path) -> None:
    rows = load(folder).articles.order_by("article_id").to_pyarrow().to_pylist()
    assert rows[0] == {
        "article_id": "0108775015",
        "product_code": "108775",
        "product_type_name": "Vest top",
        "graphical_appearance_name": "Solid",
        "colour_group_name": "Black",
        "department_name": "Jersey Basic",
        "index_name": "Ladieswear",
        "index_group_name": "Ladieswear",
        "section_name": "Womens Everyday Basics",
        "garment_group_name": "Jersey Basic",
        "design_number": 108775.0,
        "description": "Strap top Jersey top, with straps.",
        "known_from": None,
    }
    assert rows[1]["description"] == "Strap top"


def test_missing_flags_are_minus_one_and_a_missing_age_stays_missing(folder: Path) -> None:
    tables = load(folder)
    rows = tables.customers.order_by("customer_id").to_pyarrow().to_pylist()
    names = ("FN", "Active", "status", "fashion_news_frequency", "age", "age_band", "postal_code")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("1", "-1", "ACTIVE", "Regularly", 24.0, "20-24", "p1"),
        ("-1", "1", None, "NONE", None, None, "p2"),
    ]
    counts = {count.rule: count.rows for count in tables.counts if count.table == "customers"}
    assert counts["`FN` missing: '-1' instead"] == 1
    assert counts["`Active` missing: '-1' instead"] == 1
    # c2 bought and has no row: it gets an empty one.
    assert int(index_tables(tables).customers.count().execute()) == 3


def test_parquet_gives_the_same_tables(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    # As who reads ids as whole numbers would write it.
    other = tmp_path_factory.mktemp("parquet")
    for name in ("transactions_train", "articles", "customers"):
        pd.read_csv(folder / f"{name}.csv", float_precision="round_trip").to_parquet(other / f"{name}.parquet")
    for name in ("customers", "articles", "transactions"):
        tables = [getattr(load(place), name) for place in (folder, other)]
        first, second = (table.order_by(table.columns).to_pyarrow().to_pylist() for table in tables)
        assert first == second
    assert [path.suffix for path in source_files(DataConfig(source="hm", path=str(other)))] == [".parquet"] * 3


def test_a_pipeline_file_may_replace_a_key(folder: Path) -> None:
    (folder / "transactions_train.csv").rename(folder / "t.csv")
    config = DataConfig(
        source="hm",
        path=str(folder),
        transactions=TransactionsConfig(file="t.csv", identical_lines="keep"),
        articles=ArticlesConfig(features={"colour": "colour_group_name"}),
    )
    completed = complete_mapping(config)
    assert completed.articles.description == ARTICLES.description
    tables = load_tables(ibis.duckdb.connect(), completed)
    assert int(tables.transactions.count().execute()) == 5
    assert "colour" in tables.articles.columns
    assert "index_name" not in tables.articles.columns
    with pytest.raises(InputError, match=r"^data\.customers: `fill` names `FN`, which is no feature here\.$"):
        complete_mapping(config.model_copy(update={"customers": CustomersConfig(features={"x": "x"})}))


def test_missing_files_are_named(folder: Path) -> None:
    nowhere = folder / "nowhere"
    config = DataConfig(source="hm", path=str(folder))
    with pytest.raises(InputError) as caught:
        complete_mapping(config.model_copy(update={"path": str(nowhere)}))
    assert str(caught.value) == f"{nowhere}: no such folder. Set `data.path`, e.g. --set data.path=FOLDER."
    (folder / "articles.parquet").touch()
    with pytest.raises(InputError, match=r"holds articles\.parquet and articles\.csv\. Keep one of them\.$"):
        complete_mapping(config)
    (folder / "transactions_train.csv").unlink()
    with pytest.raises(InputError, match=r"transactions_train: no such file as \.parquet, \.csv, \.csv\.gz\. Expected"):
        complete_mapping(config)


def test_age_bands_are_those_of_the_study() -> None:
    assert AGE_EDGES == (16, 20, 25, 30, 35, 40, 50, 60)


def test_the_columns_that_its_pipelines_declare_exist(folder: Path, root: Path) -> None:
    tables = load(folder)
    for name in ("hm", "hm_week"):
        features = load_config(root / "pipelines" / f"{name}.toml").features
        assert {*features.categorical, *filter(None, (features.roles.section_group,))} <= set(tables.articles.columns)
        assert {*features.profile, *features.profile_numbers} <= set(tables.customers.columns)
