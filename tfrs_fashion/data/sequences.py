"""Sequences: a line a customer, first the customer's id, then the ids of what they bought, oldest first.

Published sets for sequence models come in this form. They tell an order and no time: the first purchase of each customer is
put at the first day of 1970, the second at the second day, so that positions can be compared within a customer alone.
"""

import json
from collections import Counter
from pathlib import Path

import ibis
import numpy as np
import pandas as pd

from tfrs_fashion.schema import InputError, RowCount, Tables

# The column of articles that holds what `attributes` says of them, and what stands between its values.
ATTRIBUTES, SEPARATOR = "attributes", "|"
_MAX_DAYS = 100_000
_FEW = 5


def source_files(*, path: str | Path, file: str, attributes: str) -> list[Path]:
    """Returns the files that `load_tables` reads.

    Raises:
        InputError: One is missing.
    """
    files = [Path(path) / name for name in (file, attributes) if name]
    for found in files:
        if not found.is_file():
            raise InputError(f"{found}: no such file. Set `data.path` to its folder, or the names in `data.sequences`.")
    return files


def _read_lines(file: Path) -> tuple[pd.DataFrame, tuple[RowCount, ...]]:
    """Reads `customer_id, article_id, position` of all lines; blank ones are left out."""
    customers: list[str] = []
    articles: list[list[str]] = []
    alone, number = [], 0
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                customer, *bought = line.split() or [""]
                if not customer:
                    continue
                if not bought:
                    alone.append(number)
                    continue
                customers.append(customer)
                articles.append(bought)
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: line {number + 1:,} or one soon after it is not UTF-8: {error}.") from error
    twice = [customer for customer, count in Counter(customers).items() if count > 1]
    if twice:
        raise InputError(
            f"{file}: {len(twice):,} customer id(s) begin more than one line, e.g. {', '.join(twice[:_FEW])}. "
            "Write each customer's purchases on one line, oldest first."
        )
    if not articles:
        raise InputError(f"{file}: no line has a customer id and an article id. See docs/your_tables.md for the form.")
    length = np.array([len(bought) for bought in articles])
    if length.max() > _MAX_DAYS:
        long = customers[int(length.argmax())]
        raise InputError(
            f"{file}: customer {long} has {length.max():,} purchases; at most {_MAX_DAYS:,} can be ordered."
        )
    frame = pd.DataFrame(
        {
            "customer_id": np.repeat(np.array(customers, object), length),
            "article_id": np.concatenate([np.array(bought, object) for bought in articles]),
            "position": np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length),
        }
    )
    rule = f"dropped: a line with a customer and no article, the first of them line {alone[0]:,}" if alone else ""
    return frame, (RowCount("customers", rule, len(alone)),) if alone else ()


def _read_attributes(file: Path) -> dict[str, list[str]]:
    """Reads a JSON object of lists of numbers or texts by article id."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: is not JSON in UTF-8: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f'{file}: expected an object of lists by article id, {{"a1": ["silk", "red"]}}.')
    bad = [
        key
        for key, values in found.items()
        if not isinstance(values, list)
        or not all(isinstance(value, str | int) and SEPARATOR not in str(value) for value in values)
    ]
    if bad:
        raise InputError(
            f"{file}: {len(bad):,} article(s) have attributes that are not a list of texts or whole numbers without "
            f'"{SEPARATOR}", e.g. {", ".join(bad[:_FEW])}.'
        )
    return {key: [str(value) for value in values] for key, values in found.items()}


def load_tables(connection: ibis.BaseBackend, *, path: str | Path, file: str, attributes: str = "") -> Tables:
    """Loads sequences.

    Args:
        connection: A DuckDB backend of Ibis.
        path: Folder of the files.
        file: A line a customer: the customer's id, then article ids, oldest first, with white space between them.
        attributes: JSON, `{"article id": [attribute, ...]}`; none where empty. Articles that nobody bought may be in it.

    Returns:
        Tables in canonical columns. Each purchase is a basket of its own, a day after the one before it; articles have a
        column `attributes`, null where nothing is said, and are in the catalogue from the start.

    Raises:
        InputError: A file is missing or malformed, or a customer has two lines.
    """
    files = source_files(path=path, file=file, attributes=attributes)
    lines, counts = _read_lines(files[0])
    described = _read_attributes(files[1]) if attributes else {}
    ids = sorted({*lines["article_id"], *described})
    articles = pd.DataFrame(
        {
            "article_id": ids,
            "description": pd.Series([None] * len(ids), dtype="string"),
            ATTRIBUTES: pd.Series([SEPARATOR.join(described.get(key, [])) or None for key in ids], dtype="string"),
        }
    )
    number = lines["position"].to_numpy()
    nothing = {
        name: pd.Series([None] * len(lines), dtype=dtype)
        for name, dtype in (("price", "Float64"), ("discount", "Float64"), ("sales_channel_id", "Int64"))
    }
    transactions = pd.DataFrame(
        {
            "customer_id": lines["customer_id"],
            "article_id": lines["article_id"],
            "t_dat": (pd.Timestamp(0) + pd.to_timedelta(number, unit="D")).astype("datetime64[us]"),
            "price": nothing["price"],
            "quantity": np.ones(len(lines), np.int64),
            "discount": nothing["discount"],
            "sales_channel_id": nothing["sales_channel_id"],
            "store_id": pd.Series([None] * len(lines), dtype="string"),
            "basket_id": number.astype(str),
        }
    )
    customers = lines[["customer_id"]].drop_duplicates(ignore_index=True)
    made = {
        name: connection.create_table(ibis.util.gen_name(name), ibis.memtable(frame), temp=True)
        for name, frame in (("customers", customers), ("articles", articles), ("transactions", transactions))
    }
    return Tables(**made, counts=counts)
