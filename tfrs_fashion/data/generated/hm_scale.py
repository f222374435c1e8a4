"""Generated files with the columns of H&M's three Kaggle files, at any size, to try a pipeline at scale.

No row and no text is from H&M, whose files may not be used everywhere: `hm_catalogue` generates the articles, and
`hm_shop` simulates the sales.
"""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console
from rich.progress import track

from tfrs_fashion.data.generated.hm_catalogue import make_catalogue
from tfrs_fashion.data.generated.hm_shop import FIRST_DAY, NUM_DAYS, Customers, Shop, make_customers, rows_by_day
from tfrs_fashion.outputs import replace_folder
from tfrs_fashion.schema import InputError

Format = Literal["csv", "parquet"]

# Incremented whenever equal sizes and seeds give other files than before; part of the folder's name.
GENERATOR_VERSION = 1

MAX_CUSTOMERS, MAX_ARTICLES, MAX_TRANSACTIONS = 1_371_980, 105_542, 31_788_324

_EPOCH_DAY = (FIRST_DAY - datetime.date(1970, 1, 1)).days
_ROWS_PER_WRITE = 1_000_000


def _make_ids(random: np.random.Generator, size: int) -> pa.Array:
    """Draws sorted ids of 64 hexadecimal characters."""
    drawn = random.integers(0, 256, (size, 32), np.uint8)
    drawn = drawn[np.argsort(np.ascontiguousarray(drawn[:, :8]).view(">u8").ravel(), kind="stable")]
    text = np.frombuffer(drawn.tobytes().hex().encode(), dtype=np.uint8)
    offsets = np.arange(size + 1, dtype=np.int32) * 64
    return pa.StringArray.from_buffers(size, pa.py_buffer(offsets), pa.py_buffer(text))


def _make_customer_table(random: np.random.Generator, customers: Customers, ids: pa.Array) -> pa.Table:
    size = len(ids)
    drawn = random.random(size)
    reads_news = drawn < 0.36
    postal_codes = _make_ids(random, max(1, size // 4))
    # A few postal codes have many customers, most have few.
    place = (random.random(size) ** 3 * len(postal_codes)).astype(np.int64)
    place = random.permutation(len(postal_codes))[place]

    def ones(where: np.ndarray) -> pa.Array:
        return pa.array(np.ones(size), mask=~where)

    def words(values: tuple[str, ...], shares: tuple[float, ...], missing: np.ndarray) -> pa.Array:
        chosen = random.choice(len(values), size, p=shares).astype(np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(chosen, mask=missing), pa.array(values)).cast(pa.string())

    status = words(("ACTIVE", "PRE-CREATE", "LEFT CLUB"), (0.93, 0.0695, 0.0005), random.random(size) < 0.004)
    often = np.where(reads_news, np.where(drawn < 0.001, 2, 1), 0).astype(np.int32)
    news = pa.DictionaryArray.from_arrays(
        pa.array(often, mask=random.random(size) < 0.01), pa.array(["NONE", "Regularly", "Monthly"])
    ).cast(pa.string())
    return pa.table(
        {
            "customer_id": ids,
            "FN": ones(reads_news),
            "Active": ones(reads_news & (random.random(size) < 0.96)),
            "club_member_status": status,
            "fashion_news_frequency": news,
            "age": pa.array(customers.age, from_pandas=True),
            "postal_code": postal_codes.take(pa.array(place)),
        }
    )


def _write(table: pa.Table, path: Path, *, file_format: Format) -> None:
    """Writes a small table. As in Kaggle's files, CSV has quotes only around texts that need them."""
    if file_format == "parquet":
        pa.parquet.write_table(table, path.with_suffix(".parquet"), compression="zstd")
    else:
        table.to_pandas().to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")


@contextlib.contextmanager
def _open_writer(path: Path, schema: pa.Schema, *, file_format: Format) -> Iterator[pa.csv.CSVWriter]:
    """Opens a file for a table that is written in pieces and whose texts need no quotes."""
    if file_format == "parquet":
        with pa.parquet.ParquetWriter(path.with_suffix(".parquet"), schema, compression="zstd") as writer:
            yield writer
        return
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    with path.with_suffix(".csv").open("wb") as file:
        file.write((",".join(schema.names) + "\n").encode())
        with pa.csv.CSVWriter(file, schema, write_options=options) as writer:
            yield writer


def _check_sizes(file_format: str, seed: int, **sizes: tuple[int, int]) -> None:
    for name, (value, largest) in sizes.items():
        if not 1 <= value <= largest:
            raise InputError(f"{name} is {value:,}; expected 1 to {largest:,}, which is H&M's own size.")
    if seed < 0:
        raise InputError(f"seed is {seed}; expected 0 or more.")
    if file_format not in {"csv", "parquet"}:
        raise InputError(f"format is {file_format!r}; expected 'csv' or 'parquet'.")


def write_hm_scale(
    folder: str | Path,
    *,
    num_customers: int,
    num_articles: int,
    num_transactions: int,
    seed: int = 1,
    format: Format = "csv",
    console: Console | None = None,
) -> None:
    """Writes `articles`, `customers` and `transactions_train` with Kaggle's columns and formats.

    Transactions run from 2018-09-20 to 2020-09-22, sorted by date and customer. A basket is a customer's day; an article
    bought twice in it has two equal rows.

    Args:
        folder: Folder to write, completely or not at all; it may exist if it is empty.
        num_customers: Number of customers, at most 1,371,980. Some of them never buy.
        num_articles: Number of articles, at most 105,542. Some of them are never sold.
        num_transactions: Number of transactions, at most 31,788,324.
        seed: Random seed; with the same versions of NumPy and PyArrow, equal seeds and sizes give identical files.
        format: `csv`, as on Kaggle, or `parquet`.
        console: Console for the progress bar; no progress is shown without it.

    Raises:
        InputError: A size, the seed or the format is invalid, or the folder is not empty or not writable.
    """
    _check_sizes(
        format,
        seed,
        num_customers=(num_customers, MAX_CUSTOMERS),
        num_articles=(num_articles, MAX_ARTICLES),
        num_transactions=(num_transactions, MAX_TRANSACTIONS),
    )
    random = np.random.default_rng(seed)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not an empty folder. Choose another, or delete it.")
    with replace_folder(folder) as partial:
        first_day_of_year = FIRST_DAY.timetuple().tm_yday - 1
        catalogue = make_catalogue(
            random, num_articles=num_articles, first_day_of_year=first_day_of_year, num_days=NUM_DAYS
        )
        _write(catalogue.table, partial / "articles", file_format=format)
        customers = make_customers(random, num_customers)
        customer_id, article_id = _make_ids(random, num_customers), catalogue.table["article_id"].combine_chunks()
        _write(_make_customer_table(random, customers, customer_id), partial / "customers", file_format=format)

        shop = Shop(random, catalogue, customers)
        num_rows = rows_by_day(random, num_transactions)
        schema = pa.schema(
            {
                "t_dat": pa.date32(),
                "customer_id": pa.string(),
                "article_id": pa.string(),
                "price": pa.float64(),
                "sales_channel_id": pa.int8(),
            }
        )
        with _open_writer(partial / "transactions_train", schema, file_format=format) as writer:
            pending: list[pa.Table] = []
            days = track(
                range(NUM_DAYS), "writing days of sales", console=console, disable=console is None, transient=True
            )
            for day in days:
                if num_rows[day]:
                    sold = shop.sell(day, int(num_rows[day]))
                    columns = [
                        pa.array(np.full(int(num_rows[day]), _EPOCH_DAY + day, dtype=np.int32)).cast(pa.date32()),
                        customer_id.take(pa.array(sold["customer"])),
                        article_id.take(pa.array(sold["article"])),
                        pa.array(sold["price"]),
                        pa.array(sold["sales_channel_id"]),
                    ]
                    pending.append(pa.table(columns, schema=schema))
                if sum(table.num_rows for table in pending) >= _ROWS_PER_WRITE or day == NUM_DAYS - 1:
                    writer.write_table(pa.concat_tables(pending) if pending else schema.empty_table())
                    pending = []
