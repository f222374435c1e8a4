from pathlib import Path

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.features.records import Column, encode_records, write_records

INT64 = np.iinfo(np.int64)


def column(rows: list[list], dtype: type) -> Column:
    splits = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Column(np.array([value for row in rows for value in row], dtype=dtype), splits)


def text(rows: list[str]) -> Column:
    return column([list(row.encode()) for row in rows], np.uint8)


def example(**features: list | str) -> bytes:
    """Serializes one record with TensorFlow itself."""
    message = tf.train.Example()
    for name, values in features.items():
        feature = message.features.feature[name]
        if isinstance(values, str):
            feature.bytes_list.value.append(values.encode())
        elif values and isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return message.SerializeToString(deterministic=True)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(INT64.min, INT64.max), max_size=40),
            st.lists(st.floats(width=32, allow_nan=False), max_size=40),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=50)
def test_encoded_bytes_equal_tensorflows_serialization(rows: list) -> None:
    integers, floats, texts = zip(*rows, strict=True)
    records = encode_records(
        {
            "events/b": column(list(integers), np.int64),
            "größe": column(list(floats), np.float32),
            "id": text(list(texts)),
            "n": column([[number] for number in range(len(rows))], np.int64),
        }
    )
    parsed = [tf.train.Example.FromString(record) for record in records]
    assert [list(one.features.feature["events/b"].int64_list.value) for one in parsed] == list(integers)
    assert [list(one.features.feature["größe"].float_list.value) for one in parsed] == list(floats)
    assert records == [one.SerializeToString(deterministic=True) for one in parsed]


def test_written_file_equals_tensorflows_for_any_chunk_size(tmp_path: Path) -> None:
    rows: list[dict] = [
        {"customer_id": "ä" * 100, "time": [1, 127, 128, -1], "price": [0.5, float("inf")]},
        {"customer_id": "", "time": [INT64.min, INT64.max], "price": [1.0]},
        {"customer_id": "日本", "time": list(range(5_000)), "price": [0.25] * 3_000},
    ]
    columns = {
        "customer_id": text([row["customer_id"] for row in rows]),
        "time": column([row["time"] for row in rows], np.int64),
        "price": column([row["price"] for row in rows], np.float32),
    }
    with tf.io.TFRecordWriter(str(tmp_path / "expected")) as writer:
        for row in rows:
            writer.write(example(**row))
    for size in (1, 2, 10):
        write_records(tmp_path / "written", columns, chunk_size=size)
        assert (tmp_path / "written").read_bytes() == (tmp_path / "expected").read_bytes()


def test_empty_list_of_numbers_keeps_its_kind() -> None:
    columns = {"price": column([[], [1.0]], np.float32), "time": column([[], [2]], np.int64)}
    feature = tf.train.Example.FromString(encode_records(columns)[0]).features.feature
    assert feature["price"].WhichOneof("kind") == "float_list"
    assert feature["time"].WhichOneof("kind") == "int64_list"
    assert len(feature["time"].int64_list.value) == 0


def test_no_records_give_an_empty_file(tmp_path: Path) -> None:
    write_records(tmp_path / "written", {"time": column([], np.int64)})
    assert (tmp_path / "written").read_bytes() == b""
    assert encode_records({"time": column([], np.int64)}) == []
