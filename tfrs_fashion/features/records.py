"""TFRecord files of `tf.train.Example`, encoded column by column: no TensorFlow, and no Python for a single record.

It writes what `tf.train.Example.SerializeToString(deterministic=True)` and `tf.io.TFRecordWriter` write, to the byte.
So any engine's worker can call it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from tfrs_fashion.features.checksums import crc32c

_TEXT, _FLOATS, _INTEGERS = 1, 2, 3
_HEAD, _FOOT = 12, 4


@dataclass(frozen=True)
class Column:
    """A feature of all records: a list of numbers each, or one text each.

    Attributes:
        values: Flat: int64, float32, or uint8 for text in UTF-8.
        row_splits: `[num_records + 1]` int64, where the values, or the bytes, of each record begin and end.
    """

    values: np.ndarray
    row_splits: np.ndarray

    @property
    def kind(self) -> int:
        """The field of `tf.train.Feature` that holds it."""
        return {np.dtype(np.uint8): _TEXT, np.dtype(np.float32): _FLOATS, np.dtype(np.int64): _INTEGERS}[
            self.values.dtype
        ]

    def slice(self, first: int, last: int) -> "Column":
        """Returns records `first` up to but not including `last`."""
        splits = self.row_splits[first : last + 1]
        return Column(self.values[splits[0] : splits[-1]], splits - splits[0])


def _varint_sizes(values: np.ndarray) -> np.ndarray:
    """Bytes of each number as a protobuf varint: seven bits a byte."""
    unsigned = values.astype(np.uint64, copy=False)
    sizes = np.ones(len(values), dtype=np.int64)
    for bits in range(7, int(unsigned.max(initial=0)).bit_length(), 7):
        sizes += unsigned >= np.uint64(1 << bits)
    return sizes


def _put_varints(out: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Writes each number at its place; returns the places behind them."""
    left = values.astype(np.uint64, copy=False)
    ends = places + _varint_sizes(left)
    while len(left):
        more = left > 127
        out[places] = (left & np.uint64(127)).astype(np.uint8) | (more.astype(np.uint8) << np.uint8(7))
        left, places = left[more] >> np.uint64(7), places[more] + 1
    return ends


def _put_bytes(out: np.ndarray, places: np.ndarray, constant: bytes) -> np.ndarray:
    """Writes the same bytes at each place; returns the places behind them."""
    for number, byte in enumerate(constant):
        out[places + number] = byte
    return places + len(constant)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


class _Entry:
    """One feature's entries in the maps of all records: how many bytes they take, and how to write them.

    An entry is `{1: key, 2: {kind: {1: values}}}`; numbers are packed, an empty list of numbers has no values field.
    """

    def __init__(self, name: str, column: Column):
        key = name.encode()
        self._column = column
        self._lengths = np.diff(column.row_splits)
        if column.kind == _INTEGERS:
            self._value_sizes = _varint_sizes(column.values.view(np.uint64))
            self._value_ends = np.concatenate([[0], np.cumsum(self._value_sizes)])
            self._payload = np.diff(self._value_ends[column.row_splits])
        else:
            self._payload = self._lengths * column.values.itemsize
        has_values = (self._payload > 0) | (column.kind == _TEXT)
        self._list = np.where(has_values, 1 + _varint_sizes(self._payload) + self._payload, 0)
        self._feature = 1 + _varint_sizes(self._list) + self._list
        self._key = b"\x0a" + _varint(len(key)) + key + b"\x12"
        self._entry = len(self._key) + _varint_sizes(self._feature) + self._feature
        self._has_values = np.flatnonzero(has_values)
        self.sizes = 1 + _varint_sizes(self._entry) + self._entry

    def put(self, out: np.ndarray, places: np.ndarray) -> None:
        column = self._column
        places = _put_varints(out, _put_bytes(out, places, b"\x0a"), self._entry)
        places = _put_varints(out, _put_bytes(out, places, self._key), self._feature)
        places = _put_varints(out, _put_bytes(out, places, bytes([column.kind << 3 | 2])), self._list)
        rows = self._has_values
        places[rows] = _put_varints(out, _put_bytes(out, places[rows], b"\x0a"), self._payload[rows])
        if column.kind == _INTEGERS:
            shift = places - self._value_ends[column.row_splits[:-1]]
            _put_varints(out, np.repeat(shift, self._lengths) + self._value_ends[:-1], column.values.view(np.uint64))
            return
        size = column.values.itemsize
        shift = places - column.row_splits[:-1] * size
        at = np.repeat(shift, self._lengths) + np.arange(len(column.values)) * size
        parts = column.values.astype(column.values.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(-1, size)
        for number in range(size):
            out[at + number] = parts[:, number]


def _masked(crc: np.ndarray) -> np.ndarray:
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _put_fixed(out: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
    parts = values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(-1, values.itemsize)
    for number in range(parts.shape[1]):
        out[places + number] = parts[:, number]


def encode_records(columns: Mapping[str, Column]) -> np.ndarray:
    """Encodes records as the content of a TFRecord file.

    Args:
        columns: Features by name, all of equally many records.

    Returns:
        `[num_bytes]` uint8.

    Source: protobuf's wire format; `tensorflow/core/lib/io/record_writer.h` for lengths and masked checksums.
    """
    # Maps are ordered by key, as deterministic serialization does.
    entries = [_Entry(name, columns[name]) for name in sorted(columns, key=str.encode)]
    features = np.sum([entry.sizes for entry in entries], axis=0)
    lengths = 1 + _varint_sizes(features) + features
    ends = np.cumsum(lengths + _HEAD + _FOOT)
    starts = ends - lengths - _FOOT
    # Checksums read words of eight bytes.
    out = np.zeros(int(ends[-1]) + 8 if len(ends) else 8, dtype=np.uint8)
    places = _put_varints(out, _put_bytes(out, starts, b"\x0a"), features)
    for entry in entries:
        entry.put(out, places)
        places = places + entry.sizes
    _put_fixed(out, starts - _HEAD, lengths.astype(np.uint64))
    _put_fixed(out, starts - _FOOT, _masked(crc32c(out, starts - _HEAD, np.full(len(starts), 8))))
    _put_fixed(out, starts + lengths, _masked(crc32c(out, starts, lengths)))
    return out[:-8]


def write_records(file: BinaryIO, columns: Mapping[str, Column], *, chunk_size: int = 10_000) -> None:
    """Writes records to an open TFRecord file.

    Args:
        file: Open to be written in binary.
        columns: Features by name, all of equally many records.
        chunk_size: Records encoded together; it bounds memory and changes nothing else.
    """
    num_records = len(next(iter(columns.values())).row_splits) - 1
    for first in range(0, num_records, chunk_size):
        last = min(first + chunk_size, num_records)
        file.write(encode_records({name: column.slice(first, last) for name, column in columns.items()}).data)
