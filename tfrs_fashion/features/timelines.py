"""Timelines: one record per customer, with the profile and all purchases in time order.

On disk they are a TFDS dataset, which `tfds.builder_from_directory` loads. In memory they are flat arrays with row splits,
read by parsing batches of records, which is an order of magnitude faster than reading record by record.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute
import tensorflow as tf
import tensorflow_datasets as tfds
from ibis import _

from tfrs_fashion.data.split import epoch_seconds
from tfrs_fashion.features.records import Column, write_records
from tfrs_fashion.schema import FIRST_INDEX, InputError, RunError, Tables, check_names

_EVENTS: dict[str, Any] = {
    "article_index": np.int64,
    "time": np.int64,
    "price": np.float32,
    "quantity": np.int64,
    "discount": np.float32,
    "sales_channel_id": np.int64,
    # Only written if the source has stores; otherwise it would be a column of zeros.
    "store_index": np.int64,
}
_NAME = "timelines"
_SHARD_SIZE = 100_000
# The `known_from` of customers who were always known.
ALWAYS = int(np.iinfo(np.int64).min)
# The columns of events and their types in memory; on disk they have the types of `_EVENTS`.
EVENT_TYPES: dict[str, type] = {
    "article_index": np.int32,
    "time": np.int64,
    "price": np.float32,
    "quantity": np.int32,
    "discount": np.float32,
    "sales_channel_id": np.int32,
    "store_index": np.int32,
}


@dataclass(frozen=True)
class Timelines:
    """The histories of all customers as flat arrays; row i is the customer with the index `FIRST_INDEX + i`.

    Attributes:
        customer_id: `[num_customers]` object.
        row_splits: `[num_customers + 1]` int64, where each customer's events begin and end.
        article_index: `[num_events]` int32, in time order within a customer.
        time: `[num_events]` int64, seconds since 1970. All events of a customer at one instant are one basket.
        price: `[num_events]` float32, paid per unit, NaN where unknown.
        quantity: `[num_events]` int32.
        discount: `[num_events]` float32, share off the list price, NaN where unknown.
        sales_channel_id: `[num_events]` int32, 0 where unknown.
        store_index: `[num_events]` int32, 0 where unknown.
        store_id: `[num_stores]` object; row i is the store with the index `FIRST_INDEX + i`. Stores are ordered by the
            instant of their first purchase.
        known_from: `[num_customers]` int64, seconds since 1970 from which each customer is known; ascending.
        profile: `[num_customers]` object by categorical profile feature, empty strings where unknown.
        profile_numbers: `[num_customers]` float32 by numeric profile feature, NaN where unknown.
    """

    customer_id: np.ndarray
    row_splits: np.ndarray
    article_index: np.ndarray
    time: np.ndarray
    price: np.ndarray
    quantity: np.ndarray
    discount: np.ndarray
    sales_channel_id: np.ndarray
    store_index: np.ndarray
    store_id: np.ndarray
    known_from: np.ndarray
    profile: dict[str, np.ndarray]
    profile_numbers: dict[str, np.ndarray]

    @property
    def num_customers(self) -> int:
        """Number of customers, with or without events."""
        return len(self.customer_id)

    @property
    def row(self) -> np.ndarray:
        """The row of each event's customer: `[num_events]` int64."""
        return np.repeat(np.arange(self.num_customers), np.diff(self.row_splits))

    @property
    def starts_basket(self) -> np.ndarray:
        """Whether each event is the first of its basket: `[num_events]` bool."""
        starts = np.ones(len(self.time), dtype=bool)
        starts[1:] = (np.diff(self.row) != 0) | (np.diff(self.time) != 0)
        return starts

    def before(self, cutoff: np.ndarray) -> "Timelines":
        """Keeps the events before each customer's cutoff.

        Args:
            cutoff: `[num_customers + FIRST_INDEX]` int64 seconds since 1970 by `customer_index`; see `data.split`.

        Returns:
            The customers known before the last cutoff, with or without events. Customers are in the order in which they
            became known, so cutting off the last rows hides that later customers exist.
        """
        kept = self._keep(self.time < cutoff[FIRST_INDEX:][self.row])
        known = int(np.searchsorted(self.known_from, int(cutoff[FIRST_INDEX:].max(initial=0)), side="left"))
        return replace(
            kept,
            customer_id=kept.customer_id[:known],
            row_splits=kept.row_splits[: known + 1],
            known_from=kept.known_from[:known],
            # Stores are ordered by first purchase: those after the highest index kept opened later.
            store_id=kept.store_id[: max(int(kept.store_index.max(initial=0)) + 1 - FIRST_INDEX, 0)],
            profile={name: values[:known] for name, values in kept.profile.items()},
            profile_numbers={name: values[:known] for name, values in kept.profile_numbers.items()},
        )

    def last(self, num_events: int | None) -> "Timelines":
        """Keeps each customer's last `num_events` events, or all events for None."""
        if num_events is None:
            return self
        ends = np.repeat(self.row_splits[1:], np.diff(self.row_splits))
        return self._keep(ends - np.arange(len(self.time)) <= num_events)

    def _keep(self, keep: np.ndarray) -> "Timelines":
        """Keeps the events for which `keep`, `[num_events]` bool, is True."""
        counts = np.add.reduceat(np.append(keep, False).astype(np.int64), self.row_splits[:-1])
        counts[np.diff(self.row_splits) == 0] = 0
        row_splits = np.concatenate([[0], np.cumsum(counts)])
        columns = {name: getattr(self, name)[keep] for name in EVENT_TYPES}
        return replace(self, row_splits=row_splits, **columns)


def _features(
    article_id: Sequence[str], store_id: Sequence[str], profile: Sequence[str], numbers: Sequence[str]
) -> tfds.features.FeaturesDict:
    events = {name: tfds.features.Scalar(dtype=dtype) for name, dtype in _EVENTS.items()}
    del events["store_index"]
    if store_id:
        events["store_index"] = tfds.features.ClassLabel(names=["<padding>", "<unknown>", *store_id])
    events["article_index"] = tfds.features.ClassLabel(names=["<padding>", "<unknown>", *article_id])
    return tfds.features.FeaturesDict(
        {
            "customer_id": tfds.features.Text(),
            "customer_index": tfds.features.Scalar(dtype=np.int64),
            "known_from": tfds.features.Scalar(dtype=np.int64),
            "profile": tfds.features.FeaturesDict({name: tfds.features.Text() for name in profile}),
            "profile_numbers": tfds.features.FeaturesDict(
                {name: tfds.features.Scalar(dtype=np.float32) for name in numbers}
            ),
            "events": tfds.features.Sequence(events),
        }
    )


def _text_column(values: pa.ChunkedArray) -> Column:
    array = pa.compute.fill_null(values.cast(pa.large_string()), "").combine_chunks()
    _validity, offsets, content = array.buffers()
    splits = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return Column(np.frombuffer(content or b"", dtype=np.uint8)[splits[0] : splits[-1]], splits - splits[0])


def write_partition(
    path: Path, customers: pa.Table, events: pa.Table, *, profile: Sequence[str], profile_numbers: Sequence[str]
) -> None:
    """Writes one shard, a partition of customers. Depends on the partition alone, so any engine's workers can call it.

    Args:
        path: The file to write.
        customers: `customer_id, customer_index, known_from` and the profile, ordered by `customer_index`.
        events: `customer_index` and the columns of events, ordered by customer and time.
        profile: Categorical columns of customers.
        profile_numbers: Numeric columns of customers.
    """
    one_each = np.arange(len(customers) + 1, dtype=np.int64)
    columns = {name: Column(customers[name].to_numpy(), one_each) for name in ("customer_index", "known_from")}
    columns["customer_id"] = _text_column(customers["customer_id"])
    columns |= {f"profile/{name}": _text_column(customers[name]) for name in profile}
    columns |= {f"profile_numbers/{name}": Column(customers[name].to_numpy(), one_each) for name in profile_numbers}
    ends = np.searchsorted(events["customer_index"].to_numpy(), customers["customer_index"].to_numpy(), side="right")
    splits = np.concatenate([[0], ends])
    # Unknown numbers are null in tables, and NaN once converted to NumPy.
    columns |= {
        f"events/{name}": Column(events[name].to_numpy().astype(dtype, copy=False), splits)
        for name, dtype in _EVENTS.items()
        if name in events.column_names
    }
    write_records(path, columns)


def _list_stores(transactions: ibis.Table) -> list[str]:
    """Lists the stores by the instant of their first purchase, so that later data never change the index of a store."""
    seen = transactions.filter(_.store_id.notnull()).group_by("store_id").agg(first=_.t_dat.min())
    store_id: list[str] = seen.order_by(["first", "store_id"]).store_id.execute().tolist()
    return store_id


def _read_events(transactions: ibis.Table, store_id: Sequence[str], *, first: int, last: int) -> pa.Table:
    """Reads the events of the customers with indices from `first` to `last`, ordered by all columns, as engines differ in ties."""
    stores = {"store_id": _.store_id} if store_id else {}
    events = transactions.filter(_.customer_index.between(first, last)).select(
        "customer_index",
        time=epoch_seconds(_.t_dat),
        article_index=_.article_index.cast("int64"),
        quantity=_.quantity.cast("int64"),
        price=_.price.cast("float32"),
        discount=_.discount.cast("float32"),
        sales_channel_id=_.sales_channel_id.fill_null(0).cast("int64"),
        **stores,
    )
    read = events.order_by(events.columns).to_pyarrow()
    if not store_id:
        return read
    place = pa.compute.index_in(read["store_id"].cast(pa.string()), value_set=pa.array(store_id, pa.string()))
    index = pa.compute.add(place.cast(pa.int64()), FIRST_INDEX)
    return read.drop_columns("store_id").append_column("store_index", pa.compute.fill_null(index, 0))


def check_profile_columns(customers: ibis.Table, *, profile: Sequence[str], profile_numbers: Sequence[str]) -> None:
    """Checks that the customers have the columns of their profile.

    Raises:
        InputError: `customers` lacks a column, or one of `profile_numbers` is not numeric.
    """
    check_names(customers, profile, setting="features.profile", where="customers")
    check_names(customers, profile_numbers, setting="features.profile_numbers", where="customers", is_numeric=True)


def write_timelines(
    tables: Tables,
    folder: Path,
    *,
    profile: Sequence[str],
    profile_numbers: Sequence[str] = (),
    num_shards: int | None = None,
    num_threads: int | None = None,
) -> None:
    """Writes the timelines as a TFDS dataset. Equal tables give equal bytes, whatever the number of threads.

    Args:
        tables: Indexed tables.
        folder: Folder for `dataset_info.json`, `features.json` and the TFRecord shards.
        profile: Categorical columns of customers to keep.
        profile_numbers: Numeric columns of customers to keep.
        num_shards: Number of files, each a partition of customers; by default one per 100,000 customers, at least 4.
        num_threads: Number of shards written at a time; by default one per core. NumPy releases Python's lock as it works.

    Raises:
        InputError: See `check_profile_columns`.
    """
    check_profile_columns(tables.customers, profile=profile, profile_numbers=profile_numbers)
    article_id = tables.articles.order_by("article_index").article_id.execute().tolist()
    store_id = _list_stores(tables.transactions)
    columns = {name: tables.customers[name].cast("string") for name in profile}
    columns |= {
        name: tables.customers[name].cast("float64").fill_null(float("nan")).cast("float32") for name in profile_numbers
    }
    known_from = epoch_seconds(tables.customers.known_from).fill_null(ALWAYS)
    customers = (
        tables.customers.select(
            "customer_id", customer_index=_.customer_index.cast("int64"), known_from=known_from, **columns
        )
        .order_by("customer_index")
        .to_pyarrow()
    )
    num_shards = max(1, min(num_shards or max(4, -(-len(customers) // _SHARD_SIZE)), len(customers)))
    lengths = [len(rows) for rows in np.array_split(np.arange(len(customers)), num_shards)]
    num_threads = num_threads or os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as pool:
        writing: list[Future[None]] = []
        for shard, (end, length) in enumerate(zip(np.cumsum(lengths).tolist(), lengths, strict=True)):
            path = folder / f"{_NAME}-train.tfrecord-{shard:05d}-of-{num_shards:05d}"
            partition = customers.slice(end - length, length)
            span = {"first": FIRST_INDEX + end - length, "last": FIRST_INDEX + end - 1}
            events = _read_events(tables.transactions, store_id, **span)
            write = partial(write_partition, profile=profile, profile_numbers=profile_numbers)
            writing.append(pool.submit(write, path, partition, events))
            if shard >= num_threads:
                # Holds at most one partition per thread in memory, and the one that is being read.
                writing[shard - num_threads].result()
        for written in writing:
            written.result()
    features = _features(article_id, store_id, profile, profile_numbers)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=_NAME, split="train", filetype_suffix="tfrecord"
    )
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.tfrecord-*"))
    split = tfds.core.SplitInfo(name="train", shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[split],
        description="One record per customer: profile, and purchases in time order. `events/time` is in seconds since "
        "1970; purchases at one instant are one basket. `price` and `discount` are NaN and `sales_channel_id` 0 where unknown.",
        check_data=False,
    )
    kept = {"profile": list(profile), "profile_numbers": list(profile_numbers), "store_id": store_id}
    (folder / "profile.json").write_text(json.dumps(kept), encoding="utf-8")


def read_timelines(folder: Path, *, batch_size: int = 1024) -> Timelines:
    """Reads the timelines that `write_timelines` wrote.

    Args:
        folder: The folder of the TFDS dataset.
        batch_size: Number of records parsed at a time.

    Returns:
        All customers, with all their events.

    Raises:
        InputError: The folder contains no timelines.
        RunError: A shard is corrupted or missing.
    """
    shards = sorted(str(path) for path in folder.glob(f"{_NAME}-train.tfrecord-*"))
    if not shards or not (folder / "profile.json").is_file():
        raise InputError(f"{folder}: no timelines here. Run `prepare` first.")
    kept = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    context = {"customer_id": tf.io.FixedLenFeature([], tf.string)}
    context["known_from"] = tf.io.FixedLenFeature([], tf.int64)
    context |= {f"profile/{name}": tf.io.FixedLenFeature([], tf.string) for name in kept["profile"]}
    context |= {f"profile_numbers/{name}": tf.io.FixedLenFeature([], tf.float32) for name in kept["profile_numbers"]}
    event_types = {name: dtype for name, dtype in EVENT_TYPES.items() if kept["store_id"] or name != "store_index"}
    events = {
        f"events/{name}": tf.io.RaggedFeature(
            tf.float32 if dtype is np.float32 else tf.int64, row_splits_dtype=tf.int64
        )
        for name, dtype in event_types.items()
    }
    dataset = tf.data.TFRecordDataset(shards).batch(batch_size)
    dataset = dataset.map(lambda records: tf.io.parse_example(records, context | events), tf.data.AUTOTUNE)
    try:
        batches = list(dataset.prefetch(tf.data.AUTOTUNE))
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise RunError(f"{folder}: a shard is corrupted ({error.message}). Run `prepare --force`.") from error

    records = sum(int(batch["customer_id"].shape[0]) for batch in batches)
    expected = sum(int(length) for length in info["splits"][0]["shardLengths"])
    if records != expected:
        raise RunError(
            f"{folder}: {records:,} records in {len(shards)} shard(s), but {expected:,} were written. A shard is "
            "missing or cut short. Run `prepare --force`."
        )

    def joined(name: str) -> np.ndarray:
        return np.concatenate([batch[name].numpy() for batch in batches])

    def decoded(name: str) -> np.ndarray:
        return np.array([value.decode() for value in joined(name)], dtype=object)

    def flat(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([batch[f"events/{name}"].flat_values.numpy() for batch in batches]).astype(dtype)

    counts = np.concatenate([batch["events/time"].row_lengths().numpy() for batch in batches])
    flat_events = {name: flat(name, dtype) for name, dtype in event_types.items()}
    flat_events.setdefault("store_index", np.zeros(int(counts.sum()), np.int32))
    return Timelines(
        customer_id=decoded("customer_id"),
        row_splits=np.concatenate([[0], np.cumsum(counts)]),
        known_from=joined("known_from"),
        store_id=np.array(kept["store_id"], dtype=object),
        profile={name: decoded(f"profile/{name}") for name in kept["profile"]},
        profile_numbers={name: joined(f"profile_numbers/{name}") for name in kept["profile_numbers"]},
        **flat_events,
    )
