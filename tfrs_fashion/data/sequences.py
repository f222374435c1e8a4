"""Sequences: one line per customer, with the customer's id and then the ids of the articles bought, oldest first.

Published data sets for sequence models have this form. They give an order and no times: the first purchase of each
customer is dated 1970-01-01 and each later one a day after it, so positions are comparable only within one customer.
"""

import json
from pathlib import Path

import ibis
import pandas as pd
from ibis import _

from tfrs_fashion.data.retail import ABSENT
from tfrs_fashion.schema import InputError, RowCount, Tables

# The column of articles that holds the content of the `attributes` file, and the separator between its values.
ATTRIBUTES, SEPARATOR = "attributes", "|"
_MAX_DAYS = 100_000
_NUM_SAMPLES = 5


def source_files(*, path: str | Path, file: str, attributes: str) -> list[Path]:
    """Returns the files that `load_tables` reads.

    Raises:
        InputError: One is missing.
    """
    files = [Path(path) / name for name in (file, attributes) if name]
    for each in files:
        if not each.is_file():
            raise InputError(f"{each}: no such file. Set `data.path` to its folder, or the names in `data.sequences`.")
    return files


def _read_lines(file: Path) -> tuple[pd.DataFrame, tuple[RowCount, ...]]:
    """Reads `customer_id, article_id, position`, without blank lines and customers who have no article."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{file}: line {number:,} is not UTF-8: {error}.") from error
    words = pd.Series(text.split("\n"), dtype=object).str.split()
    words.index += 1
    num_words = words.map(len)
    without_article = words.index[num_words == 1]
    words = words[num_words > 1]
    customers = words.str[0]
    if repeated := list(customers[customers.duplicated()].unique()):
        raise InputError(
            f"{file}: {len(repeated):,} customer id(s) begin more than one line, e.g. "
            f"{', '.join(repeated[:_NUM_SAMPLES])}. Write each customer's purchases on one line, oldest first."
        )
    if words.empty:
        raise InputError(f"{file}: no line has a customer id and an article id. See docs/your_tables.md for the form.")
    num_purchases = words.map(len) - 1
    if num_purchases.max() > _MAX_DAYS:
        raise InputError(
            f"{file}: customer {customers.iloc[int(num_purchases.argmax())]} has {num_purchases.max():,} purchases; at most "
            f"{_MAX_DAYS:,} can be ordered."
        )
    frame = pd.DataFrame({"customer_id": customers, "article_id": words.str[1:]}).explode("article_id")
    frame["position"] = frame.groupby(level=0).cumcount()
    if without_article.empty:
        return frame, ()
    rule = f"dropped: a line with a customer and no article, the first of them line {without_article[0]:,}"
    return frame, (RowCount("customers", rule, len(without_article)),)


def _read_attributes(file: Path) -> dict[str, list[str]]:
    """Reads a JSON object whose values are lists of numbers or texts, by article id."""
    try:
        attributes = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: is not JSON in UTF-8: {error}.") from error
    if not isinstance(attributes, dict):
        raise InputError(f'{file}: expected an object of lists by article id, {{"a1": ["silk", "red"]}}.')
    bad = [
        key
        for key, values in attributes.items()
        if not isinstance(values, list)
        or not all(isinstance(value, str | int) and SEPARATOR not in str(value) for value in values)
    ]
    if bad:
        raise InputError(
            f"{file}: {len(bad):,} article(s) have attributes that are not a list of texts or whole numbers without "
            f'"{SEPARATOR}", e.g. {", ".join(bad[:_NUM_SAMPLES])}.'
        )
    return {key: [str(value) for value in values] for key, values in attributes.items()}


def load_tables(connection: ibis.BaseBackend, *, path: str | Path, file: str, attributes: str = "") -> Tables:
    """Loads sequences.

    Args:
        connection: DuckDB backend of Ibis.
        path: Folder of the files.
        file: Name of the text file: per line a customer id and article ids, oldest first, separated by white space.
        attributes: Name of a JSON file `{"article id": [attribute, ...]}`, which may contain articles that nobody
            bought; empty if there is none.

    Returns:
        Tables in canonical columns. Each purchase is a basket of its own, a day after the one before it. Articles have a
        column `attributes`, null for those not in the file, and are in the catalogue from the start.

    Raises:
        InputError: A file is missing or malformed, or a customer has two lines.
    """
    files = source_files(path=path, file=file, attributes=attributes)
    frame, counts = _read_lines(files[0])
    attributes_by_id = _read_attributes(files[1]) if attributes else {}
    ids = sorted({*frame["article_id"], *attributes_by_id})
    values = [SEPARATOR.join(attributes_by_id.get(key, [])) or None for key in ids]
    catalogue = pd.DataFrame({"article_id": ids, ATTRIBUTES: pd.Series(values, dtype="string")})
    frame["quantity"] = 1
    frame["t_dat"] = (pd.Timestamp(0) + pd.to_timedelta(frame["position"], unit="D")).astype("datetime64[us]")

    def create(frame: pd.DataFrame) -> ibis.Table:
        return connection.create_table(ibis.util.gen_name("sequences"), ibis.memtable(frame), temp=True)

    columns = ABSENT | {"quantity": _.quantity, "basket_id": _.position.cast("string")}
    return Tables(
        customers=create(frame[["customer_id"]].drop_duplicates()),
        articles=create(catalogue).select(_.article_id, ibis.null("string").name("description"), _[ATTRIBUTES]),
        transactions=create(frame).select("customer_id", "article_id", "t_dat", **columns),
        counts=counts,
    )
