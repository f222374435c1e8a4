"""Timelines: one record a customer, with the profile and every purchase in time order.

On disk they are a TFDS dataset that anyone loads with `tfds.builder_from_directory`; in memory, flat arrays with row
splits, read by parsing whole batches of records, which is an order of magnitude faster than reading row by row.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_datasets as tfds
from ibis import _

from tfrs_fashion.data.split import epoch_seconds
from tfrs_fashion.schema import FIRST_INDEX, InputError, RunError, Tables

_EVENTS: dict[str, Any] = {
    "article_index": np.int64,
    "time": np.int64,
    "price": np.float32,
    "quantity": np.int64,
    "discount": np.float32,
    "sales_channel_id": np.int64,
}
_NAME = "timelines"
# Of customers who were known all along.
ALWAYS = int(np.iinfo(np.int64).min)
# The columns of events in memory, and their types there.
EVENT_TYPES: dict[str, type] = {
    "article_index": np.int32,
    "time": np.int64,
    "price": np.float32,
    "quantity": np.int32,
    "discount": np.float32,
    "sales_channel_id": np.int32,
}


@dataclass(frozen=True)
class Timelines:
    """Histories of all customers as flat arrays; row i is the customer with index `FIRST_INDEX + i`.

    Attributes:
        customer_id: `[num_customers]` object.
        row_splits: `[num_customers + 1]` int64, where each customer's events begin and end.
        article_index: `[num_events]` int32, in time order within a customer.
        time: `[num_events]` int64, seconds since 1970. Events of one customer at one instant are one basket.
        price: `[num_events]` float32, paid per unit, NaN where unknown.
        quantity: `[num_events]` int32.
        discount: `[num_events]` float32, share off the list price, NaN where unknown.
        sales_channel_id: `[num_events]` int32, 0 where unknown.
        known_from: `[num_customers]` int64, seconds since 1970 from which each customer is known; ascending.
        profile: For each categorical profile feature `[num_customers]` object, empty strings where unknown.
        profile_numbers: For each numeric profile feature `[num_customers]` float32, NaN where unknown.
    """

    customer_id: np.ndarray
    row_splits: np.ndarray
    article_index: np.ndarray
    time: np.ndarray
    price: np.ndarray
    quantity: np.ndarray
    discount: np.ndarray
    sales_channel_id: np.ndarray
    known_from: np.ndarray
    profile: dict[str, np.ndarray]
    profile_numbers: dict[str, np.ndarray]

    @property
    def num_customers(self) -> int:
        """Customers, with or without events."""
        return len(self.customer_id)

    @property
    def row(self) -> np.ndarray:
        """`[num_events]` int64, the row of each event's customer."""
        return np.repeat(np.arange(self.num_customers), np.diff(self.row_splits))

    def before(self, cutoff: np.ndarray) -> "Timelines":
        """Keeps the events before each customer's cutoff.

        Args:
            cutoff: `[num_customers + FIRST_INDEX]` int64 seconds by `customer_index`; see `data.split`.

        Returns:
            The customers known before the last cutoff, with or without events. Customers are numbered by the instant
            from which they are known, so those of a later time are not known to have existed.
        """
        kept = self._keep(self.time < cutoff[FIRST_INDEX:][self.row])
        known = int(np.searchsorted(self.known_from, int(cutoff[FIRST_INDEX:].max(initial=0)), side="left"))
        return replace(
            kept,
            customer_id=kept.customer_id[:known],
            row_splits=kept.row_splits[: known + 1],
            known_from=kept.known_from[:known],
            profile={name: values[:known] for name, values in kept.profile.items()},
            profile_numbers={name: values[:known] for name, values in kept.profile_numbers.items()},
        )

    def last(self, num_events: int | None) -> "Timelines":
        """Keeps each customer's last `num_events` events; all of them for None."""
        if num_events is None:
            return self
        ends = np.repeat(self.row_splits[1:], np.diff(self.row_splits))
        return self._keep(ends - np.arange(len(self.time)) <= num_events)

    def _keep(self, keep: np.ndarray) -> "Timelines":
        counts = np.add.reduceat(np.append(keep, False).astype(np.int64), self.row_splits[:-1])
        counts[np.diff(self.row_splits) == 0] = 0
        row_splits = np.concatenate([[0], np.cumsum(counts)])
        columns = {name: getattr(self, name)[keep] for name in EVENT_TYPES}
        return replace(self, row_splits=row_splits, **columns)


def _features(article_id: Sequence[str], profile: Sequence[str], numbers: Sequence[str]) -> tfds.features.FeaturesDict:
    events = {name: tfds.features.Scalar(dtype=dtype) for name, dtype in _EVENTS.items()}
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


def _examples(
    customers: pd.DataFrame, events: pd.DataFrame, profile: Sequence[str], numbers: Sequence[str]
) -> Iterator[bytes]:
    """Serializes one partition of customers: frames that any engine can hand over, both ordered by customer."""
    first = np.searchsorted(events["customer_index"], customers["customer_index"], side="left")
    last = np.searchsorted(events["customer_index"], customers["customer_index"], side="right")
    columns = {name: events[name].to_numpy() for name in _EVENTS}
    known = {
        name: customers[name].tolist() for name in ("customer_id", "customer_index", "known_from", *profile, *numbers)
    }
    for row, (start, end) in enumerate(zip(first, last, strict=True)):
        example = tf.train.Example()
        feature = example.features.feature
        feature["customer_id"].bytes_list.value.append(known["customer_id"][row].encode())
        feature["customer_index"].int64_list.value.append(known["customer_index"][row])
        feature["known_from"].int64_list.value.append(known["known_from"][row])
        for name in profile:
            value = known[name][row]
            feature[f"profile/{name}"].bytes_list.value.append(value.encode() if isinstance(value, str) else b"")
        for name in numbers:
            feature[f"profile_numbers/{name}"].float_list.value.append(known[name][row])
        for name, dtype in _EVENTS.items():
            values = columns[name][start:end].tolist()
            if dtype is np.float32:
                feature[f"events/{name}"].float_list.value.extend(values)
            else:
                feature[f"events/{name}"].int64_list.value.extend(values)
        yield example.SerializeToString(deterministic=True)


def write_timelines(
    tables: Tables, folder: Path, *, profile: Sequence[str], profile_numbers: Sequence[str] = (), num_shards: int = 4
) -> None:
    """Writes the TFDS dataset.

    Args:
        tables: Indexed tables.
        folder: Where `dataset_info.json`, `features.json` and the TFRecord shards go.
        profile: Categorical columns of customers to keep.
        profile_numbers: Numeric columns of customers to keep.
        num_shards: Files to write; a shard is one partition of customers.

    Raises:
        InputError: The customers table lacks a profile column.
    """
    for setting, names in (("profile", profile), ("profile_numbers", profile_numbers)):
        missing = [name for name in names if name not in tables.customers.columns]
        if missing:
            raise InputError(
                f"features.{setting}: the customers table has no column(s) "
                f"{', '.join(f'`{name}`' for name in missing)}; "
                f"found {', '.join(f'`{name}`' for name in tables.customers.columns)}."
            )
    article_id = tables.articles.order_by("article_index").article_id.execute().tolist()
    columns = {name: tables.customers[name].cast("string") for name in profile}
    columns |= {
        name: tables.customers[name].cast("float64").fill_null(float("nan")).cast("float32") for name in profile_numbers
    }
    known_from = epoch_seconds(tables.customers.known_from).fill_null(ALWAYS)
    customers = (
        tables.customers.select("customer_id", "customer_index", known_from=known_from, **columns)
        .order_by("customer_index")
        .execute()
    )
    num_shards = max(1, min(num_shards, len(customers)))
    lengths = []
    for shard, rows in enumerate(np.array_split(np.arange(len(customers)), num_shards)):
        partition = customers.iloc[rows]
        low, high = int(partition["customer_index"].iloc[0]), int(partition["customer_index"].iloc[-1])
        events = (
            tables.transactions.filter(_.customer_index.between(low, high))
            .order_by(["customer_index", "t_dat", "article_index", "basket_id"])
            .select(
                "customer_index",
                "article_index",
                "quantity",
                time=epoch_seconds(_.t_dat),
                price=_.price.cast("float32"),
                discount=_.discount.cast("float32"),
                sales_channel_id=_.sales_channel_id.fill_null(0),
            )
            .execute()
        )
        path = folder / f"{_NAME}-train.tfrecord-{shard:05d}-of-{num_shards:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in _examples(partition, events, profile, profile_numbers):
                writer.write(example)
        lengths.append(len(partition))
    features = _features(article_id, profile, profile_numbers)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=_NAME, split="train", filetype_suffix="tfrecord"
    )
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.tfrecord-*"))
    split = tfds.core.SplitInfo(name="train", shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[split],
        description="One record a customer: profile, and purchases in time order. `events/time` is in seconds since "
        "1970; purchases at one instant are one basket. `price` and `discount` are NaN and `sales_channel_id` 0 where unknown.",
        check_data=False,
    )
    kept = {"profile": list(profile), "profile_numbers": list(profile_numbers)}
    (folder / "profile.json").write_text(json.dumps(kept), encoding="utf-8")


def read_timelines(folder: Path, *, batch_size: int = 1024) -> Timelines:
    """Reads the shards, a batch of records at a time.

    Args:
        folder: Where `write_timelines` wrote.
        batch_size: Records parsed together.

    Returns:
        All customers, with all their events.

    Raises:
        InputError: There is no dataset in the folder.
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
    events = {
        f"events/{name}": tf.io.RaggedFeature(
            tf.float32 if dtype is np.float32 else tf.int64, row_splits_dtype=tf.int64
        )
        for name, dtype in EVENT_TYPES.items()
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
    return Timelines(
        customer_id=decoded("customer_id"),
        row_splits=np.concatenate([[0], np.cumsum(counts)]),
        known_from=joined("known_from"),
        profile={name: decoded(f"profile/{name}") for name in kept["profile"]},
        profile_numbers={name: joined(f"profile_numbers/{name}") for name in kept["profile_numbers"]},
        **{name: flat(name, dtype) for name, dtype in EVENT_TYPES.items()},
    )
