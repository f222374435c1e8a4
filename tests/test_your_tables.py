"""The example of docs/your_tables.md runs as it is written there."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tfrs_fashion.config import load_config
from tfrs_fashion.data_sections import ArticlesConfig, CustomersConfig, DataConfig, TransactionsConfig
from tfrs_fashion.run import Run

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "your_tables.md").read_text(encoding="utf-8")


def test_the_example_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = re.findall(r"`(data/my_shop/\w+\.csv)`:\n\n```csv\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(files) == 3
    Path("data/my_shop").mkdir(parents=True)
    for name, text in files:
        Path(name).write_text(text, encoding="utf-8")
    (mapping,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
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
        ("transactions", "of anonymous customers: they count for articles and belong to no history"): 1,
        ("customers", "added: bought, but without a row; empty profile"): 1,
    }


def test_every_key_of_a_mapping_that_has_a_rule_is_explained() -> None:
    table = PAGE[PAGE.index("## Every rule") :]
    ruled = {"t_dat", "price", "quantity", "discount", "basket_id", "anonymous_ids", "not_merchandise", "returns"}
    ruled |= {"identical_lines", "article_id_digits", "date_format", "ordinal"}
    assert ruled <= set(TransactionsConfig.model_fields)
    ruled |= {"features", "numbers", "derived", "bands", "fill", "known_from"} & set(ArticlesConfig.model_fields)
    ruled |= {"age"} & set(CustomersConfig.model_fields)
    assert {key for key in ruled if f"`{key}" not in table} == set()
    assert "missing_values" in DataConfig.model_fields
    assert "data.missing_values" in table


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([\w./-]+)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (DOCS / link).exists()
