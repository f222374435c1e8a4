import datetime
from dataclasses import replace
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds
from ibis import _

from tfrs_fashion.data.split import Split, cutoff_seconds, visible
from tfrs_fashion.features import timelines as timelines_module
from tfrs_fashion.features.timelines import ALWAYS, EVENT_TYPES, Timelines, read_timelines, write_timelines
from tfrs_fashion.schema import FIRST_INDEX, InputError, RunError, Tables
from tfrs_fashion.settings.pipeline import PipelineConfig


def rows_of(timelines: Timelines, values: np.ndarray) -> list[list[int]]:
    return [row.tolist() for row in np.split(values, timelines.row_splits[1:-1])]


@pytest.fixture(scope="module")
def lines(tables: Tables) -> pd.DataFrame:
    frame = tables.transactions.order_by(["customer_index", "t_dat", "basket_id", "article_index"]).execute()
    return frame.assign(time=frame["t_dat"].astype("datetime64[s]").astype("int64"))


def make_timelines(histories: list[list[tuple[int, int]]], known_from: list[int] | None = None) -> Timelines:
    """Histories of (article, second), of customers known always or from some second on."""
    events = [event for history in histories for event in history]
    return Timelines(
        customer_id=np.array([f"c{row}" for row in range(len(histories))], dtype=object),
        row_splits=np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64),
        article_index=np.array([article for article, _time in events], dtype=np.int32),
        time=np.array([time for _article, time in events], dtype=np.int64),
        price=np.array([article / 2 for article, _time in events], dtype=np.float32),
        quantity=np.ones(len(events), dtype=np.int32),
        discount=np.zeros(len(events), dtype=np.float32),
        sales_channel_id=np.full(len(events), 2, dtype=np.int32),
        store_index=np.array([article for article, _time in events], dtype=np.int32),
        store_id=np.array([f"s{number}" for number in range(20)], dtype=object),
        known_from=np.full(len(histories), ALWAYS) if known_from is None else np.array(known_from, dtype=np.int64),
        profile={"age_band": np.array([f"{row}0s" for row in range(len(histories))], dtype=object)},
        profile_numbers={"age": np.arange(len(histories), dtype=np.float32)},
    )


def test_events_equal_the_tables(timelines: Timelines, tables: Tables, lines: pd.DataFrame) -> None:
    customers = tables.customers.order_by("customer_index").execute()
    assert timelines.num_customers == len(customers)
    assert timelines.customer_id.tolist() == customers["customer_id"].tolist()
    assert len(timelines.time) == len(lines)
    # Both are ordered by customer, so the flat columns are equal, and so is where each customer begins.
    assert timelines.article_index.tolist() == lines["article_index"].tolist()
    assert timelines.time.tolist() == lines["time"].tolist()
    for name in ("price", "discount"):
        assert np.array_equal(getattr(timelines, name), lines[name].to_numpy(dtype=np.float32), equal_nan=True)
    for name in ("quantity", "sales_channel_id"):
        assert getattr(timelines, name).tolist() == lines[name].fillna(0).tolist()
    assert (timelines.row + FIRST_INDEX).tolist() == lines["customer_index"].tolist()
    for history in rows_of(timelines, timelines.time):
        assert history == sorted(history)


def test_profiles_equal_the_tables(timelines: Timelines, tables: Tables, config: PipelineConfig) -> None:
    customers = tables.customers.order_by("customer_index").execute()
    assert tuple(timelines.profile) == config.features.profile
    for name, values in timelines.profile.items():
        assert values.tolist() == customers[name].fillna("").tolist()
    assert tuple(timelines.profile_numbers) == config.features.profile_numbers == ("age",)
    assert np.array_equal(timelines.profile_numbers["age"], customers["age"].to_numpy(dtype=np.float32), equal_nan=True)
    assert np.isnan(timelines.profile_numbers["age"]).any()
    known = customers["known_from"].isna()
    assert (timelines.known_from == ALWAYS).tolist() == known.tolist()
    assert (np.diff(timelines.known_from[~known]) >= 0).all()
    # Some customers have no row in the source, so the empty profile is among them.
    assert "" in timelines.profile["status"]


def test_any_reader_of_tfds_finds_the_same(timelines: Timelines, timelines_folder: Path, lines: pd.DataFrame) -> None:
    builder = tfds.builder_from_directory(timelines_folder)
    assert builder.info.splits["train"].num_examples == timelines.num_customers
    names = builder.info.features["events"]["article_index"].names
    price = rows_of(timelines, timelines.price)
    time, article = rows_of(timelines, timelines.time), rows_of(timelines, timelines.article_index)
    quantity = lines.groupby("customer_index")["quantity"].agg(list)
    for record in tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False)):
        row = int(record["customer_index"]) - FIRST_INDEX
        events = record["events"]
        assert record["customer_id"].decode() == timelines.customer_id[row]
        assert {name: value.decode() for name, value in record["profile"].items()} == {
            name: values[row] for name, values in timelines.profile.items()
        }
        assert int(record["known_from"]) == timelines.known_from[row]
        assert np.array_equal(record["profile_numbers"]["age"], timelines.profile_numbers["age"][row], equal_nan=True)
        assert events["article_index"].tolist() == article[row]
        assert events["time"].tolist() == time[row]
        assert np.array_equal(events["price"], np.array(price[row], np.float32), equal_nan=True)
        assert events["quantity"].tolist() == quantity.get(row + FIRST_INDEX, [])
    # ClassLabel names give the id back.
    article_id = lines.set_index("article_index")["article_id"].to_dict()
    assert all(names[index] == value for index, value in article_id.items())


def seconds(year: int, month: int, day: int) -> int:
    return int(datetime.datetime(year, month, day, tzinfo=datetime.UTC).timestamp())


def make_small_tables(profile: str = "age_band") -> Tables:
    """Three customers; the last has no purchase, the first no known price and channel."""
    moments = [datetime.datetime(2024, 1, day) for day in (2, 1, 1)]
    lines = pd.DataFrame(
        {
            "customer_index": [2, 2, 3],
            "article_index": [3, 2, 2],
            "basket_id": ["b", "a", "c"],
            "quantity": [1, 2, 3],
            "store_id": ["b", "ä", None],
            "t_dat": pd.Series(moments).astype("datetime64[us]"),
        }
    )
    transactions = ibis.memtable(lines)
    transactions = transactions.mutate(
        price=ibis.ifelse(transactions.customer_index == 2, None, 4.5),
        discount=ibis.null("float64"),
        sales_channel_id=ibis.ifelse(transactions.customer_index == 2, None, 1),
    )
    customers = pd.DataFrame(
        {
            "customer_id": ["ä", "日本", "c"],
            "customer_index": [2, 3, 4],
            profile: ["20s", None, "größer"],
            "age": [20.5, None, 116.0],
            "known_from": pd.Series([None, datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 5)]),
        }
    )
    articles = pd.DataFrame({"article_id": ["01", "02"], "article_index": [2, 3]})
    listed = ibis.memtable(customers)
    return Tables(listed.mutate(age=listed.age.nullif(float("nan"))), ibis.memtable(articles), transactions)


@pytest.mark.parametrize("num_shards", [1, 2, 9])
def test_unknown_values_empty_histories_and_any_script(tmp_path: Path, num_shards: int) -> None:
    write_timelines(
        make_small_tables(), tmp_path, profile=("age_band",), profile_numbers=("age",), num_shards=num_shards
    )
    found = read_timelines(tmp_path)
    assert found.customer_id.tolist() == ["ä", "日本", "c"]
    assert found.known_from.tolist() == [ALWAYS, seconds(2024, 1, 1), seconds(2024, 1, 5)]
    assert found.quantity.tolist() == [2, 1, 3]
    assert np.isnan(found.discount).all()
    assert found.sales_channel_id.tolist() == [0, 0, 1]
    # Store ä was bought in first.
    assert found.store_id.tolist() == ["ä", "b"]
    assert found.store_index.tolist() == [2, 3, 0]
    early = found.before(np.full(5, seconds(2024, 1, 2)))
    assert early.store_id.tolist() == ["ä"]
    assert early.store_index.tolist() == [2, 0]
    assert found.before(np.full(5, seconds(2024, 1, 1))).store_id.tolist() == []
    assert found.profile_numbers["age"].tolist() == pytest.approx([20.5, np.nan, 116.0], nan_ok=True)
    assert {name: getattr(found, name).dtype for name in EVENT_TYPES} == EVENT_TYPES
    assert rows_of(found, found.article_index) == [[2, 3], [2], []]
    assert np.isnan(found.price[:2]).all()
    assert found.price[2] == 4.5
    assert found.profile["age_band"].tolist() == ["20s", "", "größer"]
    # Never more shards than customers.
    assert len(list(tmp_path.glob("*.tfrecord-*"))) == min(num_shards, 3)


@pytest.mark.parametrize("name", ["home ownership", "class", "_kids", "größe"])
def test_a_profile_column_may_have_any_name(tmp_path: Path, name: str) -> None:
    write_timelines(make_small_tables(name), tmp_path, profile=(name,))
    assert read_timelines(tmp_path).profile[name].tolist() == ["20s", "", "größer"]


def test_batches_of_any_size_read_the_same(timelines: Timelines, timelines_folder: Path) -> None:
    found = read_timelines(timelines_folder, batch_size=7)
    assert np.array_equal(found.row_splits, timelines.row_splits)
    assert np.array_equal(found.article_index, timelines.article_index)
    assert found.customer_id.tolist() == timelines.customer_id.tolist()


def test_before_keeps_what_lies_before_each_cutoff() -> None:
    histories = [[(2, 10), (3, 10), (4, 20)], [], [(5, 15), (6, 30)], [(7, 40)], []]
    timelines = make_timelines(histories, known_from=[ALWAYS, ALWAYS, 15, 40, 98])
    cutoff = np.array([0, 0, 20, 99, 16, 40, 99])
    found = timelines.before(cutoff)
    # Row 3 buys exactly at the cutoff; like rows 1 and 4, which buy nothing, it is known before the last cutoff.
    assert rows_of(found, found.article_index) == [[2, 3], [], [5], [], []]
    assert rows_of(found, found.time) == [[10, 10], [], [15], [], []]
    assert found.price.tolist() == [1.0, 1.5, 2.5]
    assert found.customer_id.tolist() == ["c0", "c1", "c2", "c3", "c4"]
    assert found.profile["age_band"].tolist() == ["00s", "10s", "20s", "30s", "40s"]


@pytest.mark.parametrize(("cutoff", "known"), [(0, 2), (15, 2), (16, 3), (40, 3), (41, 4), (98, 4), (99, 5)])
def test_before_keeps_the_customers_known_before_the_cutoff(cutoff: int, known: int) -> None:
    histories = [[(2, 10), (3, 10), (4, 20)], [], [(5, 15), (6, 30)], [(7, 40)], []]
    timelines = make_timelines(histories, known_from=[ALWAYS, ALWAYS, 15, 40, 98])
    found = timelines.before(np.full(7, cutoff))
    expected = [[article for article, time in history if time < cutoff] for history in histories[:known]]
    assert rows_of(found, found.article_index) == expected
    assert found.row_splits[-1] == len(found.time) == len(found.row)
    assert found.customer_id.tolist() == [f"c{row}" for row in range(known)]
    assert found.known_from.tolist() == timelines.known_from[:known].tolist()
    assert found.profile["age_band"].tolist() == [f"{row}0s" for row in range(known)]
    assert found.profile_numbers["age"].tolist() == list(range(known))


def test_before_the_first_customer_is_known_there_is_nobody() -> None:
    found = make_timelines([[(2, 10)], []], known_from=[10, 11]).before(np.full(4, 10))
    assert found.num_customers == 0
    assert found.row_splits.tolist() == [0]
    assert found.time.tolist() == []
    nobody = make_timelines([]).before(np.full(2, 10))
    assert nobody.num_customers == 0


def test_before_agrees_with_the_tables(
    timelines: Timelines, tables: Tables, splits: dict[str, Split], lines: pd.DataFrame
) -> None:
    for split in splits.values():
        found = timelines.before(cutoff_seconds(split, timelines.num_customers))
        seen = visible(split, tables.transactions).order_by(["customer_index", "t_dat", "basket_id", "article_index"])
        frame = seen.execute()
        assert (found.row + FIRST_INDEX).tolist() == frame["customer_index"].tolist()
        assert found.article_index.tolist() == frame["article_index"].tolist()
        known = tables.customers.filter(_.known_from.isnull() | (_.known_from < ibis.literal(split.as_of)))
        assert found.num_customers == int(known.count().execute())


@pytest.mark.parametrize(
    ("num_events", "expected"),
    [
        (0, [[], [], []]),
        (1, [[4], [], [6]]),
        (2, [[3, 4], [], [5, 6]]),
        (9, [[2, 3, 4], [], [5, 6]]),
        (None, [[2, 3, 4], [], [5, 6]]),
    ],
)
def test_last_keeps_the_latest_events(num_events: int | None, expected: list[list[int]]) -> None:
    timelines = make_timelines([[(2, 10), (3, 10), (4, 20)], [], [(5, 15), (6, 30)]])
    found = timelines.last(num_events)
    assert rows_of(found, found.article_index) == expected
    assert found.num_customers == 3


def test_last_and_before_change_nothing_in_place() -> None:
    timelines = make_timelines([[(2, 10), (3, 20)]])
    copy = replace(timelines, time=timelines.time.copy())
    timelines.last(1)
    timelines.before(np.full(3, 15))
    assert np.array_equal(timelines.time, copy.time)
    assert timelines.row_splits.tolist() == [0, 2]


def test_folder_without_timelines_raises() -> None:
    with pytest.raises(InputError, match=r"nowhere: no timelines here\. Run `prepare` first"):
        read_timelines(Path("nowhere"))


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    write_timelines(make_small_tables(), tmp_path, profile=("age_band",), num_shards=3)
    return sorted(tmp_path.glob("*.tfrecord-*"))


def test_corrupted_shard_raises(shards: list[Path]) -> None:
    content = bytearray(shards[1].read_bytes())
    content[len(content) // 2] ^= 0xFF
    shards[1].write_bytes(bytes(content))
    with pytest.raises(RunError, match=r"a shard is corrupted .* Run `prepare --force`"):
        read_timelines(shards[0].parent)


def test_truncated_shard_raises(shards: list[Path]) -> None:
    shards[1].write_bytes(shards[1].read_bytes()[:-5])
    with pytest.raises(RunError, match="a shard is corrupted"):
        read_timelines(shards[0].parent)


@pytest.mark.parametrize("damage", ["deleted", "emptied"])
def test_a_lost_shard_never_renumbers_the_customers(shards: list[Path], damage: str) -> None:
    # Row i is the customer with index FIRST_INDEX + i: without one shard every later customer would be another one.
    if damage == "deleted":
        shards[1].unlink()
    else:
        shards[1].write_bytes(b"")
    with pytest.raises((InputError, RunError)):
        read_timelines(shards[0].parent)


@pytest.mark.parametrize("setting", ["profile", "profile_numbers"])
def test_a_missing_profile_column_is_named_beside_those_found(tmp_path: Path, setting: str) -> None:
    names = {"profile": ("age_band",), "profile_numbers": ("age",)}
    names[setting] += ("income",)
    with pytest.raises(InputError) as caught:
        write_timelines(make_small_tables(), tmp_path, **names)
    assert str(caught.value).startswith(f"features.{setting}: the customers table has no column(s) `income`; found `")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_threads", [1, 3])
def test_files_are_equal_whatever_the_threads(tables: Tables, tmp_path: Path, num_threads: int) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, threads in zip(folders, (2, num_threads), strict=True):
        folder.mkdir()
        write_timelines(tables, folder, profile=("age_band",), num_shards=5, num_threads=threads)
    files = [{path.name: path.read_bytes() for path in sorted(folder.iterdir())} for folder in folders]
    assert len([name for name in files[0] if ".tfrecord-" in name]) == 5
    assert files[0] == files[1]


def test_files_are_equal_whatever_the_order_of_rows(tmp_path: Path) -> None:
    tables = make_small_tables()
    backwards = tables.transactions.order_by(ibis.desc("quantity"))
    for name, transactions in (("one", tables.transactions), ("other", backwards)):
        (tmp_path / name).mkdir()
        write_timelines(Tables(tables.customers, tables.articles, transactions), tmp_path / name, profile=("age_band",))
    shards = [sorted((tmp_path / name).glob("*.tfrecord-*")) for name in ("one", "other")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]


def test_a_shard_holds_a_hundred_thousand_customers_by_default(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timelines_module, "_SHARD_SIZE", 50)
    write_timelines(tables, tmp_path, profile=())
    customers = int(tables.customers.count().execute())
    assert len(list(tmp_path.glob("*.tfrecord-*"))) == -(-customers // 50)
    assert read_timelines(tmp_path).num_customers == customers
