from pathlib import Path

import pytest

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.data import ArticlesConfig, DataConfig
from tfrs_fashion.settings.file import load_config

RETAIL = """\
[data]
source = "retail"
path = "somewhere"
[data.transactions]
file = "sales.csv"
customer_id = "c"
article_id = "a"
t_dat = "t"
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(RETAIL, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_list_of_features_keeps_their_names(pipeline: Path) -> None:
    config = load_config(pipeline, ["data.articles.features=['x', 'y']", "data.articles.description='d'"])
    assert config.data.articles.features == {"x": "x", "y": "y"}
    assert config.data.articles.description == ("d",)
    config = load_config(pipeline, ["data.articles.features={colour='Colour name'}", "data.articles.description=''"])
    assert config.data.articles.features == {"colour": "Colour name"}
    assert config.data.articles.description == ()


def test_categorical_features_are_named_together() -> None:
    config = ArticlesConfig(features={"a": "A"}, derived={"b": ("A", "B")}, bands={"c": {"C": (1,)}})
    assert config.feature_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.path=''", "`data`: `data.path` is empty: the source `retail` needs a folder of raw files."),
        ("data.transactions.t_dat=''", "`data`: missing key(s) `data.transactions.t_dat`."),
        ("data.articles.features=['x', 'y', 'x']", "`data.articles.features`: names `x` twice (found ['x', 'y', 'x'])"),
        (
            "data.articles.features={Price='p', article_id='a'}",
            "`data.articles`: a feature is named `article_id`, which is a column of its own here; give it another name.",
        ),
        ("data.articles.features=['known_from']", "a feature is named `known_from`"),
        ("data.articles.numbers=['article_index']", "a feature is named `article_index`"),
        ("data.customers.features=['AGE']", "`data.customers`: a feature is named `AGE`"),
        ("data.customers={features=['x'], numbers=['X']}", "`data.customers`: two features are named `X`."),
        ("data.customers={features=['x'], derived={x=['a', 'b']}}", "two features are named `x`."),
        ("data.customers.fill={x='-1'}", "`fill` names `x`, which is no feature here."),
        ("data.articles.derived={x=[]}", "`derived.x` names no column."),
        ("data.customers.bands={x={age=[]}}", "`bands.x` needs one column with its edges, ascending."),
        ("data.customers.bands={x={}}", "`bands.x` needs one column with its edges, ascending."),
        ("data.customers.bands={x={age=[20, 10]}}", "`bands.x` needs one column with its edges, ascending."),
        ("data.customers.bands={x={age=[10, 10]}}", "`bands.x` needs one column with its edges, ascending."),
        ("data.customers.bands={x={age=[10], size=[20]}}", "`bands.x` needs one column with its edges, ascending."),
        ("data.transactions.returns=keep", "`data.transactions.returns`: "),
        ("data.transactions.ordinal=weeks", "`data.transactions.ordinal`: "),
        (
            "data.articles.article_id=sku",
            "`data.articles.article_id` is `sku`, but without a file articles are derived from the transactions, where it "
            "is `a`.",
        ),
        ("data.transactions.discount_unit=euro", "`data.transactions.discount_unit`: expected 'share' or 'percent'"),
        ("data.transactions.date_format=DD.MM.YYYY", 'date_format`: holds no %; did you mean "%d.%m.%Y"? (found'),
        ("data.articles.date_format='yyyy-MM-dd HH:mm:ss'", 'no %; did you mean "%Y-%m-%d %H:%M:%S"? (found'),
        ("data.customers.date_format=iso", 'holds no %; write e.g. "%d.%m.%Y %H:%M" for 31.12.2024 18:30 (found'),
        (
            "data={source='retail', path='p', decimal=',', thousands=','}",
            "`data.decimal` and `data.thousands` are both `,`.",
        ),
        ("data.decimal=';'", "`data.decimal`: expected '.' or ','"),
        (
            "data.encoding=cp1252",
            "`data.encoding`: expected utf-8, latin-1 or utf-16; convert other files, e.g. by iconv -f cp1252 -t UTF-8 "
            'sales.csv > sales_utf8.csv, or set "latin-1" if they hold no euro signs and no curly quotes (found',
        ),
        ("data.encoding=klingon", "iconv -f klingon -t UTF-8 sales.csv > sales_utf8.csv (found 'klingon')"),
        ("data.customers.known_from=k", "`data.customers.known_from` needs a file: derived customers are known from"),
    ],
)
def test_an_inconsistent_mapping_is_refused(pipeline: Path, override: str, message: str) -> None:
    found = refusal(pipeline, override)
    assert found.startswith(f"{pipeline}: ")
    assert message in found


def test_date_formats_in_other_notations_are_refused(pipeline: Path) -> None:
    message = refusal(pipeline, "data.transactions.ordinal=days", "data.transactions.date_format='%Y'")
    assert "`data.transactions` has both `ordinal` and `date_format`" in message


@pytest.mark.parametrize(
    ("name", "read"), [("UTF8", "utf-8"), ("ISO-8859-1", "latin-1"), ("latin1", "latin-1"), ("utf_16", "utf-16")]
)
def test_an_encoding_has_many_names(pipeline: Path, name: str, read: str) -> None:
    assert load_config(pipeline, [f"data.encoding={name}"]).data.encoding == read


@pytest.mark.parametrize("source", ["simulator", "complete_journey"])
def test_other_sources_take_no_mapping(pipeline: Path, source: str) -> None:
    message = refusal(pipeline, f"data.source={source}")
    assert message.endswith("`data.transactions` is for the sources hm and retail.")
    with pytest.raises(ValueError, match=r"`data\.decimal` is for the sources hm and retail"):
        DataConfig(source=source, decimal=",")  # type: ignore[arg-type]


def test_hm_needs_a_folder_alone() -> None:
    assert DataConfig(source="hm", path="x").transactions.file == ""
    with pytest.raises(ValueError, match=r"`data\.path` is empty: the source `hm` needs a folder"):
        DataConfig(source="hm")
