import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.features.checksums import crc32c
from tfrs_fashion.features.records import Column, encode_records, write_records

INT64 = np.iinfo(np.int64)


def column(rows: list[list], dtype: type) -> Column:
    splits = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Column(np.array([value for row in rows for value in row], dtype=dtype), splits)


def text(rows: list[str]) -> Column:
    return column([list(row.encode()) for row in rows], np.uint8)


def example(**features: list | str) -> bytes:
    """What TensorFlow itself makes of one record."""
    made = tf.train.Example()
    for name, values in features.items():
        feature = made.features.feature[name]
        if isinstance(values, str):
            feature.bytes_list.value.append(values.encode())
        elif values and isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return made.SerializeToString(deterministic=True)


def read(content: np.ndarray, path: Path) -> list[bytes]:
    path.write_bytes(content.tobytes())
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def test_a_known_checksum() -> None:
    # The check value of CRC-32C.
    buffer = np.frombuffer(b"123456789" + bytes(8), dtype=np.uint8)
    assert hex(crc32c(buffer, np.array([0]), np.array([9]))[0]) == "0xe3069283"
    assert crc32c(buffer, np.array([0, 3]), np.array([0, 0])).tolist() == [0, 0]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 255, 256, 257, 511, 512, 5_000])
def test_checksums_agree_with_the_definition(length: int) -> None:
    random = np.random.default_rng(length)
    buffer = random.integers(0, 256, 20_000, dtype=np.uint8)
    starts = np.array([0, 3, 11_111])
    expected = []
    for start in starts:
        crc = 0xFFFFFFFF
        for byte in buffer[start : start + length].tolist():
            crc ^= byte
            for _bit in range(8):
                crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        expected.append(crc ^ 0xFFFFFFFF)
    assert crc32c(buffer, starts, np.full(3, length)).tolist() == expected


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
def test_bytes_are_those_of_tensorflow(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    integers, floats, texts = zip(*rows, strict=True)
    content = encode_records(
        {
            "events/b": column(list(integers), np.int64),
            "größe": column(list(floats), np.float32),
            "id": text(list(texts)),
            "n": column([[number] for number in range(len(rows))], np.int64),
        }
    )
    found = read(content, tmp_path_factory.mktemp("records") / "one.tfrecord")
    parsed = [tf.train.Example.FromString(record) for record in found]
    assert [list(one.features.feature["events/b"].int64_list.value) for one in parsed] == list(integers)
    assert [list(one.features.feature["größe"].float_list.value) for one in parsed] == list(floats)
    expected = [one.SerializeToString(deterministic=True) for one in parsed]
    assert found == expected


def test_records_and_file_equal_tensorflows(tmp_path: Path) -> None:
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
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for row in rows:
            writer.write(example(**row))
    for size in (1, 2, 10):
        file = io.BytesIO()
        write_records(file, columns, chunk_size=size)
        assert file.getvalue() == (tmp_path / "theirs").read_bytes()


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    columns = {"price": column([[], [1.0]], np.float32), "time": column([[], [2]], np.int64)}
    found = read(encode_records(columns), tmp_path / "records")
    feature = tf.train.Example.FromString(found[0]).features.feature
    assert feature["price"].WhichOneof("kind") == "float_list"
    assert feature["time"].WhichOneof("kind") == "int64_list"
    assert len(feature["time"].int64_list.value) == 0


def test_no_records() -> None:
    file = io.BytesIO()
    write_records(file, {"time": column([], np.int64)})
    assert file.getvalue() == b""
    assert encode_records({"time": column([], np.int64)}).tolist() == []
