"""The example of docs/your_tables.md runs as it is written there."""

import json
import re
from pathlib import Path

import ibis
import pandas as pd
import pytest

from tfrs_fashion.data.sources import load_source
from tfrs_fashion.features.view import check_features
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import check_tables
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig, DataConfig, TransactionsConfig
from tfrs_fashion.settings.pipeline import load_config

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "your_tables.md").read_text(encoding="utf-8")
MAPPINGS = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_example_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = re.findall(r"`(data/my_shop/\w+\.csv)`:\n\n```csv\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(files) == 3
    Path("data/my_shop").mkdir(parents=True)
    for name, text in files:
        Path(name).write_text(text, encoding="utf-8")
    mapping, _more, _sequences = MAPPINGS
    Path("my_shop.toml").write_text(mapping, encoding="utf-8")

    config = load_config("my_shop.toml")
    run = Run(config=config, folder=Path("runs") / config.name)
    run.prepare()

    tables = Path("runs/my_shop/tables")
    lines = pd.read_parquet(tables / "transactions.parquet")
    # Nine lines, less the return.
    assert len(lines) == 8
    assert lines["quantity"].sum() == 1 + 2 + 1 + 1 + 1 + 1 + 1 + 3
    articles = pd.read_parquet(tables / "articles.parquet").set_index("article_id")
    assert articles["family"].to_dict() == {
        "0071": "Radsport-Trikot",
        "0044": "Radsport-Socken",
        "0090": "Radsport-Helm",
    }
    assert articles["description"].to_dict() == {
        "0071": "Trikot leicht und atmend",
        "0044": "Socken",
        "0090": "Helm mit Licht",
    }
    customers = pd.read_parquet(tables / "customers.parquet").set_index("customer_id")
    # K3 bought and is not in the customers' file.
    assert customers["age_band"].to_dict() == {"K1": "25-34", "K2": None, "K3": None}
    counts = {(row["table"], row["rule"]): row["rows"] for row in json.loads((tables / "counts.json").read_text())}
    assert counts == {
        ("transactions", "dropped: a return (quantity below 0)"): 1,
        ("articles", "`group` has one value on every row: it says nothing"): 3,
        ("transactions", "of anonymous customers: count for articles, but belong to no history"): 1,
        ("customers", "added: bought, but without a row; empty profile"): 1,
    }


def test_sequences_of_ids_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/amazon").mkdir(parents=True)
    Path("data/amazon/beauty.txt").write_text("1 8230 5\n2 5 8230 7\n", encoding="utf-8")
    Path("data/amazon/beauty_item_attributes.json").write_text('{"8230": [1, 2, 3]}', encoding="utf-8")
    Path("amazon.toml").write_text(MAPPINGS[2], encoding="utf-8")
    tables = load_source(ibis.duckdb.connect(), load_config("amazon.toml").data, seed=1)
    check_tables(tables)
    assert int(tables.transactions.count().execute()) == 5
    assert "1|2|3" in tables.articles.attributes.execute().tolist()


def test_the_second_mapping_of_the_page_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "sales": "Kunde;Artikel;Datum;Preis;Rabatt\nJörg;1;05.03.2024;1.234,50;20 %\nJörg;2;06.03.2024;9,90;\n",
        "articles": "SKU;Listenpreis;Marge;Bild;Modell;ab;bis;Material\n"
        "1;1.543,13;0,4;1.jpg;M;01.03.2024;31.03.2024;Wolle|Seide\n2;9,90;;;M;;;Wolle\n",
        "customers": "Nummer;Status\nJörg;treu\n",
    }
    Path("data/my_shop").mkdir(parents=True)
    for name, text in files.items():
        Path(f"data/my_shop/{name}.csv").write_text(text, encoding="latin-1")
    Path("my_shop.toml").write_text(MAPPINGS[1], encoding="utf-8")
    config = load_config("my_shop.toml")
    tables = load_source(ibis.duckdb.connect(), config.data, seed=1)
    check_tables(tables)
    check_features(tables, config.features)
    lines = tables.transactions.order_by("article_id").execute()
    assert lines["customer_id"].tolist() == ["Jörg", "Jörg"]
    assert lines["price"].tolist() == [1234.5, 9.9]
    assert lines["discount"].tolist() == pytest.approx([0.2, float("nan")], nan_ok=True)
    first = tables.articles.order_by("article_id").execute().iloc[0].to_dict()
    assert {name: first[name] for name in ("list_price", "margin", "image_path", "product_code", "material")} == {
        "list_price": 1543.13,
        "margin": 0.4,
        "image_path": "1.jpg",
        "product_code": "M",
        "material": "Wolle|Seide",
    }
    assert (first["available_from"], first["available_to"]) == (pd.Timestamp("2024-03-01"), pd.Timestamp("2024-03-31"))
    assert tables.customers.execute()["status"].tolist() == ["treu"]


def test_every_key_of_a_mapping_that_has_a_rule_is_explained() -> None:
    table = PAGE[PAGE.index("## Every rule") :]
    ruled = {"t_dat", "price", "quantity", "discount", "basket_id", "anonymous_ids", "not_merchandise", "returns"}
    ruled |= {"identical_lines", "article_id_digits", "date_format", "ordinal", "discount_unit"}
    assert ruled <= set(TransactionsConfig.model_fields)
    ruled |= {"features", "numbers", "derived", "bands", "fill", "known_from"} & set(ArticlesConfig.model_fields)
    ruled |= {"list_price", "margin", "image_path", "product_code", "available_from", "available_to"}
    ruled |= {"age", "status"} & set(CustomersConfig.model_fields)
    assert {key for key in ruled if f"`{key}" not in table} == set()
    for name in ("missing_values", "encoding", "decimal", "thousands"):
        assert name in DataConfig.model_fields
        assert f"`data.{name}" in table


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([\w./-]+)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (DOCS / link).exists()
